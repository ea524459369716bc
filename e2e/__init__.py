"""End-to-end runs: a Kubernetes lab without Docker, and the scenarios that run on it."""
