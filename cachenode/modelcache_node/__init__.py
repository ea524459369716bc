"""The cache node agent and the command line."""
