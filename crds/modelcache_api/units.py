"""Sizes in bytes. Durations are plain ``float`` seconds and end in ``_s``."""

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
TIB = 1024 * GIB
