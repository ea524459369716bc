"""How many chunks of one revision a node has under way at once."""

from dataclasses import dataclass

#: Chunks asked of peers at once: 4 leave a slow neighbour's place empty too long, 8 make every
#: uploader busy (ADR 13).
PEER_REQUESTS = 6
#: Chunks read from an origin at once, if its shell does not say.
ORIGIN_REQUESTS = 8


@dataclass(frozen=True, slots=True)
class SwarmLimits:
    """Chunks under way at once, from peers and from the origin."""

    peer_requests: int = PEER_REQUESTS
    origin_requests: int = ORIGIN_REQUESTS
