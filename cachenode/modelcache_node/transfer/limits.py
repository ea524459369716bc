"""Bounds inside one mover. A NamedTuple, for a worker imports as little as it can."""

from typing import NamedTuple

from modelcache_api.units import KIB, MIB


class MoverLimits(NamedTuple):
    """Bounds that hold inside one mover.

    Attributes:
        connections: Connections at work, all providers together.
        idle_connections: Others left open for the next range.
        connect_timeout_s: For TCP and TLS handshakes together.
        inactivity_timeout_s: A connection that brings no byte for this long is given up.
        peer_inactivity_timeout_s: The same, of a peer: others hold what it does not bring.
        min_bytes_per_s: A connection slower than this over `speed_window_s` is given up.
        buffer_bytes: The one receive buffer. About a core's L2 cache: larger is slower.
        dirty_bytes: Written bytes that may be on their way to the disk; beyond it, writing waits.
        keep_cached_bytes: Written bytes left in the page cache; older ones are dropped.
            None leaves that to the kernel.
    """

    connections: int = 8
    idle_connections: int = 32  # a node's neighbours in a swarm
    connect_timeout_s: float = 10.0  # arbitrary; above two lost SYNs (1 s + 2 s)
    inactivity_timeout_s: float = 30.0  # arbitrary; above an object store's usual pauses
    peer_inactivity_timeout_s: float = 10.0  # arbitrary; above what a loaded node takes
    min_bytes_per_s: int = 16 * KIB  # arbitrary; far below one connection's share of a useful line
    speed_window_s: float = 60.0  # arbitrary
    buffer_bytes: int = MIB
    dirty_bytes: int = 256 * MIB
    keep_cached_bytes: int | None = None
