"""Bounds inside one upload worker. A NamedTuple, for a worker imports as little as it can."""

from typing import NamedTuple

from modelcache_api.units import KIB


class UploadLimits(NamedTuple):
    """Bounds that hold inside one worker, but for `uploads`: those of a node, over all workers.

    Attributes:
        uploads: Chunks under way at once; others are told to ask elsewhere.
        connections: Open connections; beyond it the oldest idle one is closed.
        asks: Requests that wait for the parent at once.
        head_timeout_s: For a request's head to come whole, a handshake included.
        idle_timeout_s: A connection without a request for this long is closed.
        ask_timeout_s: For the parent's answer.
        hint_timeout_s: For the parent's word on who else holds a chunk, before a bare 503.
        inactivity_timeout_s: An upload of which nothing leaves for this long is given up.
        min_bytes_per_s: An upload slower than this over `speed_window_s` is given up.
        speed_window_s: See there.
    """

    uploads: int = 8
    connections: int = 1024  # arbitrary; 32 neighbours have a few each
    asks: int = 64  # arbitrary; two for each neighbour
    head_timeout_s: float = 10.0  # arbitrary; above two lost packets
    idle_timeout_s: float = 75.0  # arbitrary; nginx's own
    ask_timeout_s: float = 35.0  # above a long poll's 30 s
    hint_timeout_s: float = 0.5  # arbitrary
    inactivity_timeout_s: float = 30.0  # arbitrary
    min_bytes_per_s: int = 16 * KIB  # arbitrary; as the movers' own
    speed_window_s: float = 60.0  # arbitrary
