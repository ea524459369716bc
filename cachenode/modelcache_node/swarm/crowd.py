"""How many nodes read from the origin now, and how much of it: what neighbours' maps say. Pure."""

from collections.abc import Iterable, Set as AbstractSet
from typing import NamedTuple

from modelcache_node.swarm.neighbours import Neighbour


class Crowd(NamedTuple):
    """All readers together, this node among them."""

    n_readers: int
    n_chunks: int


def crowd_of(
    neighbours: Iterable[Neighbour], group: AbstractSet[str], everything: int, n_own: int
) -> Crowd:
    """Members of the origin group that are no neighbours are taken to be like those that are.

    Args:
        neighbours: With what they said last; one not heard of yet counts as a reader.
        group: Names of the origin group.
        everything: The set of all slots: who holds it reads nothing.
        n_own: Chunks that this node reads now.
    """
    n_known = n_readers = 1
    n_chunks = n_own
    for one in neighbours:
        if one.name in group:
            n_known += 1
            is_there = not one.is_absent and one.can_fetch
            n_readers += not one.is_heard or (is_there and one.bits != everything)
            n_chunks += one.fetching.bit_count() if is_there else 0
    scale = max(1.0, len(group) / n_known)
    return Crowd(round(n_readers * scale), max(1, round(n_chunks * scale)))
