"""How many chunks this node serves at once, and whom it names when it does not. Pure."""

from collections.abc import Iterable

from modelcache_node.swarm.neighbours import Neighbour

#: Uploads queued at once, over all serving processes of a node. With a smaller number uploaders run
#: dry between two requests, with a larger one requests wait at one node while others idle.
MAX_UPLOADS = 8
#: Uploads of one chunk queued at once: who asks third gets it sooner from the first. Without this
#: a node with a slow uplink sends each chunk that it alone has to everyone.
MAX_SAME = 2
#: The second waits in the queue only while so few are in it: an uplink that would else idle serves
#: it at once, as at the start, when nodes have a chunk or two each. With many in the queue a node
#: is what others wait for, and sends what they can pass on (ADR 13 has figures).
MAX_QUEUED_FOR_SAME = 5
#: Other holders named to whom this node is too busy for.
MAX_HINTS = 2


def admits(n_queued: int, n_same: int) -> bool:
    """Whether one more upload may be queued, `n_same` being under way of the same chunk."""
    most = MAX_QUEUED_FOR_SAME if n_same else MAX_UPLOADS
    return n_queued < most and n_same < MAX_SAME


def hints(slot: int, neighbours: Iterable[Neighbour], asker: str, now: float) -> tuple[str, ...]:
    """Neighbours to ask instead: holders of the slot, those with the fewest uploads first."""
    holders = sorted(
        (one.uploads_queued, one.name)
        for one in neighbours
        if one.name != asker and one.bits >> slot & 1 and one.is_usable(now)
    )
    return tuple(name for _, name in holders[:MAX_HINTS])
