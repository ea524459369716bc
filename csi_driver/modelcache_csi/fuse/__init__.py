"""Lazy mounts: a read-only FUSE file system whose processes may die at any time."""
