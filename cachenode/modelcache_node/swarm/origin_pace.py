"""How many chunks to read from the origin at once, learnt from how long they take.

Nodes that share a slow origin must not crowd it: each chunk would come at a fraction of its rate,
and for the whole first round no node has anything to pass on. So a few nodes begin, and each reads
more at once while its chunks take no longer than they did: an origin that answers each request at a
rate of its own (as object stores do) is soon used to the full. As TCP Vegas has it; unlike a rate,
the time of a chunk tells of crowding without a race for shares.
"""

from collections.abc import Callable

#: Chunks under way at first, of all nodes together: enough to hide round trips.
AT_ONCE = 8.0
#: Within so many seconds the other nodes begin.
SPREAD_S = 1.0
#: Chunks that take up to so many times the best are no sign of crowding, from the second on one.
CALM, CROWDED = 1.35, 1.7
#: After crowding so many rounds pass before more is tried.
PAUSE_ROUNDS = 4
#: By so much the best is forgotten in each round: it may have been luck, or the origin slower now.
FORGET = 1.05


class OriginPace:
    """Its mutable state: how many, and the times of this round and of the best one.

    Fewer than one at once: after each chunk none is read for a while.
    """

    def __init__(self, uniform: Callable[[], float]) -> None:
        """`uniform` gives random numbers of [0, 1)."""
        self._uniform = uniform
        self._allowed: float | None = None
        self._least = 1.0
        self._best_s = 0.0
        self._round_began_at = self._not_before = 0.0
        self._sum_s = 0.0
        self._n = 0
        self._pause = 0
        self._was_crowded = False

    def allowed(self, n_nodes: int, now: float) -> int:
        """Chunks to read at once, where `n_nodes` read from the origin."""
        self._least = min(1.0, AT_ONCE / n_nodes)
        if self._allowed is None:
            self._allowed = self._least
            if self._uniform() >= self._least:
                self._not_before = now + SPREAD_S * self._uniform()
        return 0 if now < self._not_before else max(1, int(self._allowed))

    def took(self, asked_at: float, now: float, most: int) -> None:
        """A chunk came; one that was asked for before this round says nothing of it."""
        if self._allowed is None or asked_at < self._round_began_at:
            return
        self._sum_s += now - asked_at
        self._n += 1
        if self._n >= min(most, self._allowed):
            self._end_round(self._sum_s / self._n, now, most)
        if self._allowed < 1:
            mean_s = (1 / self._allowed - 1) * (now - asked_at)
            self._not_before = now + mean_s * (0.5 + self._uniform())

    def _end_round(self, mean_s: float, now: float, most: int) -> None:
        assert self._allowed is not None
        best_s = self._best_s * FORGET
        self._best_s = min(best_s, mean_s) if best_s else mean_s
        self._pause -= 1
        if mean_s > CROWDED * self._best_s:
            self._allowed = max(self._least, self._allowed / 2)
            self._pause = PAUSE_ROUNDS
            self._was_crowded = True
        elif mean_s <= CALM * self._best_s and self._pause <= 0:
            more = min(1.0, self._allowed) if self._was_crowded else self._allowed
            self._allowed = min(most, self._allowed + more)
        self._round_began_at, self._sum_s, self._n = now, 0.0, 0
