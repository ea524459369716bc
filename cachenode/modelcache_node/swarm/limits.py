"""How many chunks of one revision a node has under way at once."""

from dataclasses import dataclass

#: Chunks asked of peers at once: with fewer downlinks idle between two of them, more only wait at
#: uploaders, for longer than the maps that told of them are true (ADR 13 has figures).
PEER_REQUESTS = 8
#: Chunks read from an origin at once, if its shell does not say.
ORIGIN_REQUESTS = 8


@dataclass(frozen=True, slots=True)
class SwarmLimits:
    """Chunks under way at once, from peers and from the origin."""

    peer_requests: int = PEER_REQUESTS
    origin_requests: int = ORIGIN_REQUESTS
