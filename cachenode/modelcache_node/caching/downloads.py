"""Bring the missing chunks of a revision into the store, and seal its blobs.

One engine for the agent and for `pull`. It goes on until everything is sealed or something cannot
be mended here: a changed source, a full disk, content that stays wrong. An origin that does not
answer is waited for; who wants to give up cancels.

Guarantees:
- a chunk counts as present only after it was written and its answer checked;
- a blob is sealed only when its checksum, where the origin states one, agrees;
- what was fetched before a crash or a cancellation is not fetched again;
- chunks that readers wait for are fetched before all others, and beside them.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from modelcache_api.chunks import chunk_range
from modelcache_api.errors import (
    AccessDeniedError,
    GrantExpiredError,
    IntegrityMismatchError,
    ModelCacheError,
)
from modelcache_api.manifest import ChecksumAlgorithm
from modelcache_node.caching.grants import GrantPool
from modelcache_node.caching.ordering import fetch_order
from modelcache_node.caching.resolving import BlobSource, Resolution, to_grant
from modelcache_node.caching.wishes import Wishes
from modelcache_node.store.blobs import BlobStore
from modelcache_node.store.partial_blob import PartialBlob
from modelcache_node.transfer.movers import Movers
from modelcache_node.transfer.ranges import RangeRequest, RangeResult

P = ParamSpec("P")
T = TypeVar("T")

#: How often a blob whose checksum disagrees is mended before the source is called broken.
MAX_MENDS = 2
#: How often in a row a range's grant may be called expired, each time a new one, before the source
#: is called closed. Arbitrary: clocks differ, but a fresh grant that is refused is no grant.
MAX_RENEWALS = 3
#: Between looks at a blob that another revision's download is at. Arbitrary; blobs take seconds.
SHARED_BLOB_PAUSE_S = 0.5
#: Of ranges that readers wait for, in the movers' queue: before all others.
READERS_PRIORITY = -1
#: Ranges under way for readers, beside the others. Arbitrary: a reader in order needs one at a
#: time, several readers one each.
READERS_WORKERS = 4


@dataclass(slots=True)
class Tally:
    """How far a download is; written by it alone, read by anyone on the loop."""

    bytes_total: int = 0
    bytes_present: int = 0
    bytes_from_origin: int = 0
    bytes_from_peers: int = 0
    retries: int = 0
    note: str | None = None


@dataclass(slots=True)
class _Blob:
    """One blob under way: its missing chunks, and how many of them are being fetched."""

    source: BlobSource
    partial: PartialBlob
    missing: deque[int]
    n_in_flight: int = 0
    n_mends: int = 0


class Download:
    """One revision's way into the store. `run` it once."""

    def __init__(
        self,
        resolution: Resolution,
        *,
        blobs: BlobStore,
        movers: Movers,
        grants: GrantPool,
    ) -> None:
        self._resolution = resolution
        self._blobs = blobs
        self._movers = movers
        self._grants = grants
        self._queue: deque[_Blob] = deque()
        self._wishes = Wishes()
        self._wake = asyncio.Event()
        self._pending = deque(
            resolution.sources[file.blob]
            for file in fetch_order(resolution.manifest.blobs.values())
        )
        self._n_unsealed = len(self._pending)
        self.tally = Tally(
            bytes_total=sum(f.size_bytes for f in resolution.manifest.blobs.values())
        )

    async def run(self) -> None:
        """Return when every blob of the revision is sealed.

        Raises:
            SourceChangedError: resolve anew.
            InvalidSourceError and its kind: the grants no longer read an object.
            IntegrityMismatchError: content and checksum disagree, again and again.
            DiskFullError, DiskFailedError: what was fetched so far is kept.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._movers.max_outstanding):
                    group.create_task(self._work())
                for _ in range(READERS_WORKERS):
                    group.create_task(self._work_for_readers())
        except ExceptionGroup as e:
            raise e.exceptions[0] from e
        finally:
            for entry in self._queue:
                entry.partial.close()

    def prioritise(self, blob: str, chunks: Sequence[int]) -> None:
        """Readers wait for these chunks: fetch them next, in this order.

        Of a blob that is not begun it is begun, also without chunks: readers need its files.
        """
        self._wishes.add(blob, chunks)
        self._pulse()

    async def _work_for_readers(self) -> None:
        while self._n_unsealed:
            wish = self._wishes.take()
            if wish is None:
                await self._wake.wait()
                continue
            blob, index = wish
            entry = next((one for one in self._queue if one.source.file.blob == blob), None)
            if entry is None:
                source = next((one for one in self._pending if one.file.blob == blob), None)
                if source is None:
                    continue  # sealed, or being opened: the reader asks again
                self._pending.remove(source)
                self._wishes.add(blob, () if index is None else (index,))
                await self._open(source)
            elif index is not None and index in entry.missing:
                entry.missing.remove(index)
                await self._fetch(entry, index, priority=READERS_PRIORITY)

    async def _open(self, source: BlobSource) -> None:
        if self._blobs.is_sealed(source.file.blob):
            self.tally.bytes_present += source.file.size_bytes
            self._n_unsealed -= 1
            self._pulse()
            return
        partial = await self._open_partial(source)
        missing = deque(partial.missing())
        self.tally.bytes_present += source.file.size_bytes - _missing_bytes(source, missing)
        self._queue.append(_Blob(source, partial, missing))
        self._pulse()

    async def _open_partial(self, source: BlobSource) -> PartialBlob:
        """Open a blob, waiting for another revision's download that is at it."""
        file = source.file
        while self._blobs.is_open(file.blob):  # noqa: ASYNC110 - a thread closes it
            await asyncio.sleep(SHARED_BLOB_PAUSE_S)
        opening = _in_thread(
            self._blobs.open_partial, file.blob, file.size_bytes, source.provider_id
        )
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            with suppress(ModelCacheError):
                (await opening).close()
            raise

    async def _work(self) -> None:
        while self._n_unsealed:
            entry = next(self._with_work(), None)
            if entry is None and self._pending:  # opened late: few blobs are open at once
                await self._open(self._pending.popleft())
            elif entry is None:
                await self._wake.wait()
            elif entry.missing:
                await self._fetch(entry, entry.missing.popleft())
            else:
                await self._seal(entry)

    def _with_work(self) -> Iterator[_Blob]:
        """Blobs with a chunk to fetch, or to be sealed and not being so yet."""
        for entry in self._queue:
            if entry.missing or (entry.n_in_flight == 0):
                yield entry

    async def _fetch(self, entry: _Blob, index: int, *, priority: int = 0) -> None:
        offset, length = chunk_range(index, entry.source.file.size_bytes)
        entry.n_in_flight += 1
        try:
            result = await self._fetch_range(entry, offset, length, priority)
        except BaseException:
            entry.missing.appendleft(index)
            raise
        finally:
            entry.n_in_flight -= 1
            self._pulse()
        entry.partial.mark_present(index, result.crc32c, result.crc64nvme or 0)
        self.tally.bytes_present += length
        self.tally.bytes_from_origin += length
        self.tally.note = None

    async def _fetch_range(
        self, entry: _Blob, offset: int, length: int, priority: int
    ) -> RangeResult:
        """One range, by whichever grant is live; waits for one, and for the origin."""
        file = entry.source.file
        n_renewals = 0
        while True:
            grant = await self._grants.get(file.blob)
            try:
                return await self._movers.fetch(
                    RangeRequest(
                        path=entry.partial.data_path,
                        offset=offset,
                        length=length,
                        grant=to_grant(grant),
                        validator=entry.source.validator,
                        total_bytes=file.size_bytes,
                        ca_pem=self._resolution.ca_pem,
                        want_crc64nvme=_wants_crc64nvme(entry.source),
                        priority=priority,
                    ),
                    give_up_after_s=None,
                    on_retry=self._note_retry,
                )
            except GrantExpiredError as e:
                n_renewals += 1
                if n_renewals > MAX_RENEWALS:
                    raise AccessDeniedError(f"new grants are refused too: {e}") from e
                self._grants.reject(file.blob, grant)

    async def _seal(self, entry: _Blob) -> None:
        entry.n_in_flight += 1  # so that nobody else seals it
        try:
            sealing = _in_thread(entry.partial.seal, entry.source.file.checksum)
            try:
                await asyncio.shield(sealing)
            except asyncio.CancelledError:  # its journal must stay open until the thread is done
                await asyncio.wait({sealing})
                raise
        except IntegrityMismatchError:
            entry.n_mends += 1
            if entry.n_mends > MAX_MENDS:
                raise
            entry.missing.extend(entry.partial.missing())
            self.tally.bytes_present -= _missing_bytes(entry.source, entry.missing)
            self.tally.note = f"{entry.source.file.path}: wrong content, fetching again"
            entry.n_in_flight -= 1
        else:
            self._queue.remove(entry)
            entry.partial.close()
            self._n_unsealed -= 1
        self._pulse()

    def _note_retry(self, note: str) -> None:
        self.tally.retries += 1
        self.tally.note = note

    def _pulse(self) -> None:
        self._wake.set()
        self._wake = asyncio.Event()


def _in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Task[T]:
    return asyncio.create_task(asyncio.to_thread(function, *args, **kwargs))


def _missing_bytes(source: BlobSource, missing: deque[int]) -> int:
    return sum(chunk_range(index, source.file.size_bytes)[1] for index in missing)


def _wants_crc64nvme(source: BlobSource) -> bool:
    checksum = source.file.checksum
    return checksum is not None and checksum.algorithm is ChecksumAlgorithm.CRC64NVME
