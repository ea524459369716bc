"""A simulated link whose streams share its rate evenly, as TCP's do on the whole."""

import heapq
from collections import deque
from collections.abc import Callable
from typing import Any


class SharedLink:
    """Sends chunks; each takes as long as the others under way let it. Time comes from outside."""

    def __init__(self, at: Callable[..., None], rate: float, at_once: int | None = None) -> None:
        """`at(time, action, *args)` plans an event; `rate` is chunks per second in all.

        Beyond `at_once` streams chunks wait, in the order of `send`; None: all are sent together.
        """
        self._at = at
        self._rate = rate
        self._at_once = at_once
        self._sent = 0.0  # of a chunk, by each stream that was here all the time
        self._looked_at = 0.0
        self._n_begun = self._n_plans = 0
        self._ends: list[tuple[float, int, Callable[..., Any], tuple[Any, ...]]] = []
        self._waiting: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()

    def send(self, now: float, action: Callable[..., Any], *args: Any) -> None:
        """Send a chunk; when it has left, `action` is done."""
        self._waiting.append((action, args))
        self._look(now)
        self._begin()
        self._plan(now)

    def _begin(self) -> None:
        while self._waiting and (self._at_once is None or len(self._ends) < self._at_once):
            self._n_begun += 1
            heapq.heappush(self._ends, (self._sent + 1.0, self._n_begun, *self._waiting.popleft()))

    def _look(self, now: float) -> None:
        if self._ends:
            self._sent += (now - self._looked_at) * self._rate / len(self._ends)
        self._looked_at = now

    def _plan(self, now: float) -> None:
        self._n_plans += 1
        if self._ends:
            left = max(0.0, self._ends[0][0] - self._sent)
            end = now + left * len(self._ends) / self._rate
            self._at(end, self._end_first, end, self._n_plans)

    def _end_first(self, now: float, plan: int) -> None:
        if plan != self._n_plans:
            return
        self._look(now)
        _, _, action, args = heapq.heappop(self._ends)
        self._begin()
        self._plan(now)
        action(*args)
