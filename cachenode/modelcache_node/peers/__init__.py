"""Serving chunks to other nodes, and asking other nodes small things."""
