"""How long, and how often, something that may yet succeed is tried again."""

import asyncio
import random
from collections.abc import Callable

from modelcache_api.errors import (
    InsufficientCapacityError,
    IntegrityMismatchError,
    ModelCacheError,
    UnavailableError,
)

#: Between attempts: full jitter below a cap that doubles up to the longest. Arbitrary.
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 20.0


class Patience:
    """Ends when nothing has moved for `give_up_s`. Tell it of every progress."""

    def __init__(
        self,
        give_up_s: float,
        *,
        clock: Callable[[], float],
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """`clock` is monotonic, in seconds."""
        self.give_up_s = give_up_s
        self._clock = clock
        self._uniform = uniform
        self._progressed_at = clock()
        self._pause_s = FIRST_PAUSE_S

    def anew(self) -> "Patience":
        """As much again, from now."""
        return Patience(self.give_up_s, clock=self._clock, uniform=self._uniform)

    @property
    def is_over(self) -> bool:
        return self._clock() - self._progressed_at > self.give_up_s

    def progressed(self) -> None:
        """Something moved: the clock starts anew, and so do the pauses."""
        self._progressed_at = self._clock()
        self._pause_s = FIRST_PAUSE_S

    async def pause_after(self, error: ModelCacheError) -> None:
        """Wait before the next attempt; raises `error` where there should be none.

        Who asked for a pause, as throttling stores do, gets it, and jitter on top.

        A model that does not fit is not waited for: what would make room is a decision. Nor is
        content that was fetched again and again and stayed wrong.
        """
        idle_s = self._clock() - self._progressed_at
        asked_s = error.retry_after_s if isinstance(error, UnavailableError) else None
        if (
            not error.retryable
            or isinstance(error, InsufficientCapacityError | IntegrityMismatchError)
            or idle_s + (asked_s or 0.0) + self._pause_s > self.give_up_s
        ):
            raise error
        await asyncio.sleep((asked_s or 0.0) + self._uniform(0, self._pause_s))
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
