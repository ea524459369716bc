"""Bounds what open sessions' listings take of the agent's memory, one by one and together.

A listing is what a Job says, and a Job may be forged: without a bound, a few of them would end the
agent, and with it everybody's fetches.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from modelcache_api.errors import InvalidRequestError, UnavailableError

#: Of one session: 100,000 objects with grants of 400 bytes, or 40,000 with the longest that
#: temporary credentials sign.
MAX_LISTING_BYTES = 144 << 20
#: Of all sessions together: within the agent's memory limit of 1 GiB, beside everything else.
MAX_LISTINGS_BYTES = 320 << 20


class Share:
    """What one session's listing has taken."""

    def __init__(self, budget: "ListingBudget") -> None:
        self._budget = budget
        self.taken_bytes = 0

    def take(self, n_bytes: int) -> None:
        """Take more.

        Raises:
            InvalidRequestError: more than one listing may have.
            UnavailableError: others have it now.
        """
        if self.taken_bytes + n_bytes > MAX_LISTING_BYTES:
            raise InvalidRequestError(
                f"the listing takes more than {MAX_LISTING_BYTES} bytes; name a narrower prefix"
            )
        if self._budget.taken_bytes + n_bytes > MAX_LISTINGS_BYTES:
            raise UnavailableError("other listings fill this agent's memory now; try again")
        self.taken_bytes += n_bytes
        self._budget.taken_bytes += n_bytes


class ListingBudget:
    """All sessions' listings. Used from one event loop."""

    def __init__(self) -> None:
        self.taken_bytes = 0

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Share]:
        """A session's share, given back at its end."""
        share = Share(self)
        try:
            yield share
        finally:
            self.taken_bytes -= share.taken_bytes
