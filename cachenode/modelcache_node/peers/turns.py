"""Whose upload goes on: a few at a time, in the order of their requests.

Streams that share an uplink end all together, and late; in turns, the first of them can be passed
on while the others still come (ADR 13 has figures).
"""

from collections.abc import Callable, Iterable
from typing import TypeVar

_Owner = TypeVar("_Owner")

#: Uploads at once, of one worker: with fewer, downlinks idle whose sender waits (ADR 13).
AT_ONCE = 5
#: One that takes so many times the best is held up by who receives it: others may go on beside it.
HELD_UP = 3.0
#: By so much the best is forgotten with each upload: chunks and links differ.
FORGET = 1.1


class Turns:
    """Its mutable state: who is at it since when, who waits, and how long the best one took."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since: dict[object, float] = {}
        self._waiting: dict[object, None] = {}
        self._best_s = 0.0

    def may_go_on(self, owner: object) -> bool:
        """Whether it is this one's turn; if not, it waits behind who asked before."""
        if owner in self._since:
            return True
        self._waiting.setdefault(owner)
        if next(iter(self._waiting)) is not owner or self._n_in_time() >= AT_ONCE:
            return False
        del self._waiting[owner]
        self._since[owner] = self._clock()
        return True

    @property
    def is_awaited(self) -> bool:
        return bool(self._waiting)

    def in_order(self, owners: Iterable[_Owner]) -> list[_Owner]:
        """Those that do not wait for a turn, then those that do, whoever is next first."""
        places = {owner: place for place, owner in enumerate(self._waiting)}
        return sorted(owners, key=lambda owner: places.get(owner, -1))

    def end(self, owner: object, *, is_whole: bool) -> None:
        """It is done, or gives up. Without effect for one that has no turn and awaits none."""
        self._waiting.pop(owner, None)
        since = self._since.pop(owner, None)
        if since is not None and is_whole:
            took_s = self._clock() - since
            self._best_s = min(took_s, self._best_s * FORGET) if self._best_s else took_s

    def _n_in_time(self) -> int:
        if not self._best_s:
            return len(self._since)
        oldest = self._clock() - HELD_UP * self._best_s
        return sum(since > oldest for since in self._since.values())
