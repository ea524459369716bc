"""Which neighbour to ask first: the one with the fewest requests under way for its speed. Pure."""

from collections.abc import Iterable

from modelcache_node.swarm.neighbours import Neighbour


def best_neighbour(
    neighbours: Iterable[Neighbour],
    slots: int,
    now: float,
    mean_s: float,
    but: str | None = None,
) -> Neighbour | None:
    """The cheapest neighbour that has any of `slots` and may be asked now.

    Args:
        neighbours: In an order of this node's own, random: it decides between equals.
        slots: The set that is wanted.
        now: Seconds.
        mean_s: What a chunk takes on the whole; stands in for neighbours not yet measured.
        but: Not this one.
    """
    best, best_cost = None, float("inf")
    for one in neighbours:
        cost = (one.n_in_flight + 1) * (one.ewma_s or mean_s or 1.0) * one.weight
        if (
            cost < best_cost
            and now >= one.busy_until
            and one.bits & slots
            and one.is_usable(now)
            and one.name != but
        ):
            best, best_cost = one, cost
    return best
