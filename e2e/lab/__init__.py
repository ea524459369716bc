"""A real Kubernetes of several nodes on one machine, without Docker and with a clean stop.

Bringing it up needs root, Debian's packages, Go and the standard library of Python: nothing else.
"""
