"""All fetches of this node: at most one per revision, and why the last one of each failed."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable

from modelcache_api.errors import ModelCacheError, SourceChangedError
from modelcache_node.caching.fetches import Fetch
from modelcache_node.caching.reporting import Failure
from modelcache_node.caching.resolving import Resolution
from modelcache_node.store.store import Store

#: Failures remembered for reports. Arbitrary.
MAX_FAILURES = 256


class Fetches:
    """See the module. Used from one event loop."""

    def __init__(
        self, store: Store, new: Callable[[Resolution], Fetch], on_change: Callable[[], None]
    ) -> None:
        """`new` makes a fetch; `on_change` hears of each that begins or ends."""
        self.running: dict[str, Fetch] = {}
        self.failures: OrderedDict[str, Failure] = OrderedDict()
        self._store = store
        self._new = new
        self._on_change = on_change
        self._cleaning: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Stop every fetch; what they have is kept."""
        await asyncio.gather(*self._cleaning)
        for fetch in list(self.running.values()):
            await fetch.cancel()

    async def join(self, resolution: Resolution) -> Fetch:
        """The running fetch of a revision, or a new one.

        One that nobody's grants feed any more is begun anew where this resolution leads.
        """
        revision = resolution.manifest.revision
        fetch = self.running.get(revision)
        if fetch and not fetch.grants.has_sessions and fetch.resolution != resolution:
            await fetch.cancel()
            fetch = self.running.get(revision)
        if fetch is None:
            fetch = self._new(resolution)
            self.running[revision] = fetch
            self.failures.pop(revision, None)
            fetch.start(self._ended)
        self._on_change()
        return fetch

    def _ended(self, fetch: Fetch, error: ModelCacheError | None) -> None:
        del self.running[fetch.revision]
        if error is not None:
            self.failures[fetch.revision] = Failure(error.reason, str(error))
            while len(self.failures) > MAX_FAILURES:
                self.failures.popitem(last=False)
        if isinstance(error, SourceChangedError):
            task = asyncio.create_task(asyncio.to_thread(self._store.abandon, fetch.revision))
            self._cleaning.add(task)
            task.add_done_callback(self._cleaning.discard)
        self._on_change()
