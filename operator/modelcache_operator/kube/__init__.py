"""How the operator reads and writes Kubernetes objects."""
