"""A work queue keyed by object: what is queued is worth looking at again, no more."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

log = logging.getLogger(__name__)
Key = TypeVar("Key", bound=Hashable)

#: Pause after the first failure of a key, and the longest, seconds. Arbitrary.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 300.0


class WorkQueue(Generic[Key]):
    """Keys to work on.

    Guarantees:
        A key is queued at most once, and worked on by at most one worker.
        A key that is added while it is worked on is worked on again.
        A key whose work failed comes back after a pause that doubles.
    """

    def __init__(self) -> None:
        self._ready: asyncio.Queue[Key] = asyncio.Queue()
        self._queued: set[Key] = set()
        self._busy: set[Key] = set()
        self._again: set[Key] = set()
        self._later: dict[Key, asyncio.TimerHandle] = {}
        self._failures: dict[Key, int] = {}

    @property
    def is_idle(self) -> bool:
        """Nothing to do now; keys may still be due later."""
        return not self._queued and not self._busy

    def add(self, key: Key) -> None:
        """Queue `key` now."""
        timer = self._later.pop(key, None)
        if timer:
            timer.cancel()
        if key in self._busy:
            self._again.add(key)
        elif key not in self._queued:
            self._queued.add(key)
            self._ready.put_nowait(key)

    def add_later(self, key: Key, delay_s: float) -> None:
        """Queue `key` after a while, unless it comes earlier anyway."""
        loop = asyncio.get_running_loop()
        due = loop.time() + max(0.0, delay_s)
        timer = self._later.get(key)
        if timer and timer.when() <= due:
            return
        if timer:
            timer.cancel()
        self._later[key] = loop.call_at(due, self.add, key)

    async def run(self, work: Callable[[Key], Awaitable[None]], *, workers: int) -> None:
        """Work until cancelled. What `work` raises is logged and its key tried again."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(workers):
                    tasks.create_task(self._work(work))
        finally:
            for timer in self._later.values():
                timer.cancel()

    async def _work(self, work: Callable[[Key], Awaitable[None]]) -> None:
        while True:
            key = await self._ready.get()
            self._queued.discard(key)
            self._busy.add(key)
            try:
                await work(key)
                self._failures.pop(key, None)
            except Exception as e:  # noqa: BLE001 - the edge that reports it: one key harms no other
                self._come_back(key, e)
            finally:
                self._busy.discard(key)
                if key in self._again:
                    self._again.discard(key)
                    self.add(key)

    def _come_back(self, key: Key, error: Exception) -> None:
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        longest_s = min(_FIRST_PAUSE_S * 2 ** min(failures, 20), _LONGEST_PAUSE_S)
        pause_s = random.uniform(longest_s / 2, longest_s)
        log.warning("%s: %s: %s; again in %.1f s", key, type(error).__name__, error, pause_s)
        log.debug("the traceback", exc_info=error)
        self._again.discard(key)  # else it would come back at once, whatever the failure
        self.add_later(key, pause_s)
