"""One revision on its way to this node, however many sessions and volumes wait for it.

Guarantees:
- at most one fetch per revision runs; its result or error goes to everybody who waits;
- who stops waiting does not stop the fetch: other pods may wait for the same bytes;
- without any session it keeps what it has and waits for one.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress

from modelcache_api.errors import DiskFailedError, DiskFullError, ModelCacheError
from modelcache_api.listing import ListedObject, ObjectGrant
from modelcache_api.messages import Done, Progress
from modelcache_node.caching.capacity import Capacity
from modelcache_node.caching.downloads import Download
from modelcache_node.caching.grants import GrantPool
from modelcache_node.caching.integrity import integrity_of
from modelcache_node.caching.resolving import Resolution
from modelcache_node.caching.swarms import Swarms
from modelcache_node.caching.tallies import Tally
from modelcache_node.store.store import Store
from modelcache_node.transfer.movers import Movers

_LOG = logging.getLogger(__name__)

#: Pause before a full disk is tried again, while evictions and other users make room. Arbitrary.
DISK_FULL_PAUSE_S = 10.0


class Fetch:
    """A running or finished fetch. `start` it once; `wait` as often as one likes."""

    def __init__(
        self,
        resolution: Resolution,
        *,
        store: Store,
        movers: Movers,
        capacity: Capacity,
        swarms: Swarms,
        now: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        """`now` is the wall clock, for grants; `clock` is monotonic; both in seconds."""
        self.resolution = resolution
        self.revision = resolution.manifest.revision
        self.grants = GrantPool(now, resolution.is_of_blob)
        self._store = store
        self._movers = movers
        self._capacity = capacity
        self._swarms = swarms
        self._now = now
        self._clock = clock
        self._download = self._new_download()
        self._began_at = clock()
        self._task: asyncio.Task[Done] | None = None

    @property
    def tally(self) -> Tally:
        return self._download.tally

    @property
    def bytes_per_s(self) -> float:
        elapsed_s = self._clock() - self._began_at
        moved = self.tally.bytes_from_origin + self.tally.bytes_from_peers
        return moved / elapsed_s if elapsed_s > 0 else 0.0

    @property
    def is_fed(self) -> bool:
        """Somebody grants it the origin's bytes, or a peer offers some that it wants."""
        return self.grants.has_sessions or self._download.has_offers

    def start(self, on_end: Callable[["Fetch", ModelCacheError | None], None]) -> None:
        """Begin; `on_end` hears of the end once, with the error if there was one."""
        self._task = asyncio.create_task(self._run(), name=f"fetch {self.revision[:19]}")
        self._task.add_done_callback(lambda task: on_end(self, _error_of(task)))

    def prioritise(self, blob: str, chunks: Sequence[int]) -> None:
        """Readers wait for these chunks of a blob; see `Download.prioritise`."""
        self._download.prioritise(blob, chunks)

    async def wait(self) -> Done:
        """The end of the fetch, or its error."""
        assert self._task is not None
        return await asyncio.shield(self._task)

    async def cancel(self) -> None:
        """Stop; what was fetched is kept."""
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait({self._task})

    def grants_by_blob(self, objects: Sequence[ListedObject]) -> dict[str, tuple[str, ObjectGrant]]:
        """What a session's listing brings: (path, grant) by blob.

        Grants to other places than those this fetch reads are left out: equal digests may be
        claimed by who has other bytes, and must not spoil what others fetch.
        """
        blob_of = {file.path: file.blob for file in self.resolution.manifest.files}
        return {
            blob_of[listed.path]: (listed.path, listed.grant)
            for listed in objects
            if self.resolution.is_of_blob(blob_of[listed.path], listed.grant)
        }

    def progress(self) -> Progress:
        tally = self.tally
        return Progress(
            revision=self.revision,
            bytes_present=tally.bytes_present,
            bytes_total=tally.bytes_total,
            bytes_from_origin=tally.bytes_from_origin,
            bytes_from_peers=tally.bytes_from_peers,
            retries=tally.retries,
            note=tally.note,
        )

    async def _run(self) -> Done:
        try:
            return await self._fetch()
        finally:
            with suppress(DiskFullError, DiskFailedError):  # a count is not worth a fetch
                self._store.index.add_moved(
                    self.revision,
                    from_origin=self.tally.bytes_from_origin,
                    from_peers=self.tally.bytes_from_peers,
                )

    async def _fetch(self) -> Done:
        manifest = self.resolution.manifest
        async with self._capacity.reserved(self.revision, manifest):
            while True:
                try:
                    await self._download.run()
                except DiskFullError as e:
                    _LOG.warning("%s: %s", self.revision, e)
                    self.tally.note = f"{e}; making room"
                    await self._capacity.relieve()
                    await asyncio.sleep(DISK_FULL_PAUSE_S)
                if self._store.is_sealed(self.revision):
                    break
                self._download = self._new_download(self.tally)  # also after `verify` found damage
            await asyncio.to_thread(self._store.revisions.publish, self.revision)
            await asyncio.to_thread(self._store.index.touch, self.revision, self._now())
        tally = self.tally
        seconds = self._clock() - self._began_at
        _LOG.info("%s: %d bytes in %.1f s", self.revision, manifest.size_bytes, seconds)
        return Done(
            revision=self.revision,
            bytes=manifest.size_bytes,
            bytes_from_origin=tally.bytes_from_origin,
            bytes_from_peers=tally.bytes_from_peers,
            seconds=seconds,
            retries=tally.retries,
            integrity=integrity_of(manifest),
        )

    def _new_download(self, before: Tally | None = None) -> Download:
        download = Download(
            self.resolution,
            blobs=self._store.blobs,
            movers=self._movers,
            grants=self.grants,
            swarms=self._swarms,
            clock=self._clock,
        )
        if before:
            download.tally.bytes_from_origin = before.bytes_from_origin
            download.tally.bytes_from_peers = before.bytes_from_peers
            download.tally.retries = before.retries
            download.tally.note = before.note  # until something arrives
        return download


def _error_of(task: asyncio.Task[Done]) -> ModelCacheError | None:
    if task.cancelled():
        return None
    error = task.exception()
    if error is None or isinstance(error, ModelCacheError):
        return error
    _LOG.error("a fetch failed by a bug", exc_info=error)
    return ModelCacheError("a bug; see the agent's log")
