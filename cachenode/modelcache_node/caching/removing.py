"""Removing revisions from the node, never beneath a call that is at one.

Guarantees:
- between the look at what holds a revision and the moment from which nobody is given it any more,
  nothing else runs: no lease comes in between;
- a call that is at a revision (`kept`) keeps it; one that comes while it is removed waits for the
  end of that, and finds it gone.

Used from one event loop.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from modelcache_node.store.store import Store


class Removals:
    """See the module's text. Its mutable state: calls and removals under way, by revision."""

    def __init__(self, store: Store, is_held: Callable[[str], bool]) -> None:
        """`is_held`: whether a revision is leased, pinned or being fetched."""
        self._store = store
        self._is_held = is_held
        self._calls: Counter[str] = Counter()
        self._removing: dict[str, asyncio.Task[None]] = {}

    @asynccontextmanager
    async def kept(self, revision: str) -> AsyncIterator[None]:
        """Keep a revision, if it is here, for the length of a call."""
        while removal := self._removing.get(revision):
            await asyncio.wait({removal})
        self._calls[revision] += 1
        try:
            yield
        finally:
            self._calls[revision] -= 1
            if not self._calls[revision]:
                del self._calls[revision]

    def is_kept(self, revision: str) -> bool:
        """Whether something holds a revision, or a call is at it."""
        return revision in self._calls or self._is_held(revision)

    async def remove(self, revision: str) -> bool:
        """Remove a revision unless it is kept; whether it went. Goes on when cancelled."""
        if self.is_kept(revision):
            return False
        if revision not in self._removing:
            self._store.revisions.withdraw(revision)
            task = asyncio.create_task(asyncio.to_thread(self._store.delete, revision))
            self._removing[revision] = task
            task.add_done_callback(lambda _: self._removing.pop(revision))
        await asyncio.shield(self._removing[revision])
        return True
