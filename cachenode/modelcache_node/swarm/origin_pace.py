"""How many chunks to read from the origin at once, learnt from what all readers together get.

Nodes that share a slow origin must not crowd it: each chunk would come at a fraction of its rate,
and for the whole first round no node has anything to pass on. An origin that answers each request
at a rate of its own, as object stores do, wants many. Maps tell how many chunks are under way; so
many, divided by the time of one, is what the origin gives (Little's law), and all nodes find the
same: they go on to twice as many only where that brought more. A node's own rate would not do:
whoever asks for more gets more of a link that is full.
"""

from collections.abc import Callable

from modelcache_node.swarm.crowd import Crowd
from modelcache_node.swarm.neighbours import moving_mean

#: Chunks under way at first, of all nodes together; as powers of two. Enough to hide round trips.
FIRST_LEVEL = 2
#: Twice as many chunks at once are worth it where they bring so many times as much.
WORTH = 1.3
#: So many chunks tell what a level brings.
MEASURED = 4
#: Of chunks read here, before a level that was not worth it is tried again.
HOLD_CHUNKS = 64
#: Nodes that do not begin do so when the first chunks have come, or when nobody is seen to read any
#: for so many seconds; a reader that is as slow as the second, arbitrary, is not waited for.
AWAIT_S, MAX_AWAIT_S = 1.0, 15.0
#: More than any node can read at once.
UNBOUNDED = 1 << 16


class OriginPace:
    """Its mutable state: the level, what each brought, and until when nothing is read.

    Where a node's share is less than one chunk at once, it reads none for a while after each.
    """

    def __init__(self, uniform: Callable[[], float]) -> None:
        """`uniform` gives random numbers of [0, 1)."""
        self._uniform = uniform
        self._level = FIRST_LEVEL
        self._rates: dict[int, float] = {}
        self._n_measured = 0
        self._hold = 0
        self._not_before: float | None = None
        self._awaits_since: float | None = None

    def allowed(self, crowd: Crowd, now: float, *, others_read: bool, others_have: bool) -> int:
        """Chunks to read at once; who reads alone is not bounded here.

        Args:
            crowd: Who reads from the origin.
            now: Monotonic seconds.
            others_read: Whether any of them is known to read a chunk now.
            others_have: Whether any of them is known to hold a chunk.
        """
        if crowd.n_readers == 1:
            return UNBOUNDED
        share = self._share(crowd)
        if self._not_before is None:
            self._not_before = now
            if self._uniform() >= share:
                self._awaits_since, self._not_before = now, now + AWAIT_S
        if self._awaits_since is not None:
            if others_have:
                self._rest(now, now - self._awaits_since, share, self._uniform())
                self._awaits_since = None
            elif now >= self._not_before:
                self._awaits_since = None
            elif others_read:
                self._not_before = min(now + AWAIT_S, self._awaits_since + MAX_AWAIT_S)
        return 0 if now < self._not_before else max(1, int(share))

    def took(self, chunk_s: float, now: float, crowd: Crowd, most: int) -> None:
        """A chunk came, `chunk_s` after it was asked for; `most` is what this node can do at once.

        `crowd` is without the chunk.
        """
        n_chunks = 1 + crowd.n_chunks
        level, rate = n_chunks.bit_length() - 1, n_chunks / max(chunk_s, 1e-3)
        self._rates[level] = moving_mean(self._rates.get(level, 0.0), rate)
        self._n_measured += level == self._level
        self._hold -= 1
        if self._n_measured >= MEASURED:
            self._judge(crowd.n_readers * most)
        share = self._share(crowd)
        if share < 1:
            self._rest(now, chunk_s, share, 0.5 + self._uniform())

    def _judge(self, ceiling: int) -> None:
        below = self._rates.get(self._level - 1)
        is_worth = below is None or self._rates[self._level] >= WORTH * below
        if not is_worth and self._level > FIRST_LEVEL:
            self._level -= 1
            self._hold = HOLD_CHUNKS
            self._n_measured = 0
        elif self._hold <= 0 and 2**self._level < ceiling:
            self._level += 1
            self._rates.pop(self._level, None)
            self._n_measured = 0

    def _share(self, crowd: Crowd) -> float:
        """Chunks that each reader may read at once; below one: that part of the time."""
        return float(2**self._level) / crowd.n_readers

    def _rest(self, now: float, chunk_s: float, share: float, part: float) -> None:
        self._not_before = now + part * max(0.0, 1 / share - 1) * chunk_s
