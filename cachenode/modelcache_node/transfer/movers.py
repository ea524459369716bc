"""Movers: worker processes that fetch ranges, seen from the process that asks for them.

Guarantees:
- `fetch` answers once, with a range that is whole and written, or with one typed error;
- a mover that dies is replaced, and its ranges are asked for again;
- cancelling a fetch cancels its range at the worker: nothing is written after `fetch` returned;
- no credential or grant is logged, and none reaches a worker's command line or environment.
"""

import random
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from modelcache_node.transfer.ranges import MoverLimits, MoverStats, RangeRequest, RangeResult

#: How long `fetch` goes on asking again. Arbitrary: callers that wait longer ask anew.
GIVE_UP_AFTER_S = 120.0


class Movers:
    """Worker processes and the queue before them. An async context manager.

    Belongs to one event loop. Its mutable state: the queue, the workers, and per origin how many
    ranges may be under way.
    """

    def __init__(
        self,
        *,
        count: int | None = None,
        limits: MoverLimits | None = None,
        download_limit_bytes_per_s: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """Start nothing yet.

        Args:
            count: Worker processes; None chooses by the number of cores.
            limits: Bounds inside each worker; None chooses by the memory there is.
            download_limit_bytes_per_s: Bound on all of them together, over seconds; None: none.
            clock: Monotonic seconds.
            uniform: Randomness of back-off.
        """
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        """Start the workers; does not wait until they are up."""
        raise NotImplementedError

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop and reap the workers, so that their CPU time counts as our children's."""
        raise NotImplementedError

    @property
    def max_outstanding(self) -> int:
        """Fetches that keep every connection busy; more wait in the queue."""
        raise NotImplementedError

    async def fetch(
        self,
        request: RangeRequest,
        *,
        give_up_after_s: float | None = GIVE_UP_AFTER_S,
        on_retry: Callable[[str], None] | None = None,
    ) -> RangeResult:
        """Fetch one range; asks again after failures that may pass.

        Args:
            request: What to fetch.
            give_up_after_s: Since the first failure in a row; None: until cancelled.
            on_retry: Told the reason, for people, each time the range is asked for again.

        Raises:
            GrantExpiredError: get a new grant and call again.
            SourceChangedError: the object is not the one listed; resolve anew.
            SourceNotFoundError, AccessDeniedError, InvalidSourceError: retrying does not help.
            SourceUnavailableError: given up; the origin may be back later.
            DiskFullError, DiskFailedError: our side.
        """
        raise NotImplementedError

    def stats(self) -> MoverStats:
        raise NotImplementedError
