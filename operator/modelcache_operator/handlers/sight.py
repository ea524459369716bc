"""Whether the operator could see: what it could not see is nobody's silence.

While the API server is away no agent can be heard. Counting that against them would call every
node silent, move models and drop pins, for an outage that the nodes themselves sit out unharmed.
"""

import dataclasses
from collections.abc import Mapping
from datetime import datetime

from modelcache_operator.planning.observed import CacheView
from modelcache_operator.planning.placement import STALE_AFTER


class Sight:
    """Remembers the last time of blindness; times come from the caller."""

    def __init__(self, now: datetime) -> None:
        self._seen_at = now
        self._blind_from: datetime | None = None
        self._blind_until: datetime | None = None

    def saw(self, now: datetime) -> None:
        """The API server answered."""
        if self._blind_from is not None and self._blind_until is None:
            self._blind_until = now
        self._seen_at = now

    def missed(self) -> None:
        """The API server did not answer."""
        if self._blind_from is None or self._blind_until is not None:
            self._blind_from, self._blind_until = self._seen_at, None

    def fair(self, caches: Mapping[str, CacheView], now: datetime) -> Mapping[str, CacheView]:
        """`caches`, as if who was heard before the blindness had been heard until its end."""
        if self._blind_from is None:
            return caches
        until = now if self._blind_until is None else self._blind_until
        if now - until >= STALE_AFTER:
            self._blind_from = self._blind_until = None
            return caches
        heard_since = self._blind_from - STALE_AFTER
        return {
            name: dataclasses.replace(cache, heartbeat_at=until)
            if cache.heartbeat_at is not None and heard_since < cache.heartbeat_at < until
            else cache
            for name, cache in caches.items()
        }
