"""When all but urgent ranges are held up, so that these have the line for themselves.

Where the origin or the line is the bottleneck, a range that somebody waits for would otherwise get
its share among all that are under way: a sixteenth, and take sixteen times as long. Where each
connection is slow by itself, holding gains nothing; so it never takes more than half of the time.
"""

from collections.abc import Callable
from typing import Protocol

#: Urgent ranges at one worker, beyond its others. Arbitrary; as many as readers may have.
MAX_URGENT = 4
#: The longest hold. Arbitrary; far below the time after which a silent connection is given up.
LONGEST_S = 5.0


class Tell(Protocol):
    """Tells every worker."""

    def __call__(self, *, is_on: bool) -> None: ...


class Holding:
    """Which urgent ranges are under way. For one event loop.

    Mutable state: `_urgent`; `_since_s`, None while nothing is held up; `_not_before_s`.
    """

    def __init__(
        self,
        tell: Tell,
        *,
        clock: Callable[[], float],
        call_later: Callable[[float, Callable[[], None]], None],
    ) -> None:
        self._tell = tell
        self._clock = clock
        self._call_later = call_later
        self._urgent: set[int] = set()
        self._since_s: float | None = None
        self._not_before_s = float("-inf")

    def begin(self, range_id: int) -> None:
        """An urgent range is under way."""
        self._urgent.add(range_id)
        now = self._clock()
        if self._since_s is None and now >= self._not_before_s:
            self._since_s = now
            self._tell(is_on=True)
            self._call_later(LONGEST_S, lambda: self._release_if_since(now))

    def end(self, range_id: int) -> None:
        """A range is no longer under way; most are not urgent."""
        self._urgent.discard(range_id)
        if not self._urgent and self._since_s is not None:
            self._release(self._since_s)

    def _release_if_since(self, since_s: float) -> None:
        if self._since_s == since_s:
            self._release(since_s)

    def _release(self, since_s: float) -> None:
        now = self._clock()
        self._since_s = None
        self._not_before_s = now + (now - since_s)
        self._tell(is_on=False)
