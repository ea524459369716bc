"""Bring the missing chunks of a revision into the store, and seal its blobs.

One engine for the agent and for `pull`: the swarm's policy says which chunk to fetch next, from the
origin or from a peer; a node that is alone reads everything from the origin. It goes on until
everything is sealed or something cannot be mended here: a changed source, a full disk, content that
stays wrong. An origin or peers that do not answer are waited for; who wants to give up cancels.

Guarantees:
- a chunk counts as present only after it was written and its answer checked;
- a chunk from a peer only if it is what its reader at the origin announced;
- a blob is sealed only when its checksum, where the origin states one, agrees;
- what was fetched before a crash or a cancellation is not fetched again;
- chunks that readers wait for are fetched before all others, and beside them.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from modelcache_api.chunk_slots import ChunkSlots
from modelcache_api.chunks import CHUNK_BYTES, chunk_range
from modelcache_api.errors import IntegrityMismatchError, ModelCacheError
from modelcache_node.caching.grants import GrantPool
from modelcache_node.caching.ordering import fetch_order
from modelcache_node.caching.providers import NotGivenError, Providers, Wanted
from modelcache_node.caching.resolving import BlobSource, Resolution
from modelcache_node.caching.swarms import Swarms
from modelcache_node.caching.tallies import Tally
from modelcache_node.caching.wishes import Wishes
from modelcache_node.store.blobs import BlobStore
from modelcache_node.store.combining import chunk_crcs
from modelcache_node.store.files import open_file
from modelcache_node.store.partial_blob import PartialBlob
from modelcache_node.swarm.asks import Ask
from modelcache_node.transfer.movers import Movers
from modelcache_node.transfer.ranges import URGENT_PRIORITY, RangeResult

P = ParamSpec("P")
T = TypeVar("T")

#: How often a blob whose checksum disagrees is mended before the source is called broken.
MAX_MENDS = 2
#: Between looks at a blob that another revision's download is at. Arbitrary; blobs take seconds.
SHARED_BLOB_PAUSE_S = 0.5
#: Of ranges that readers wait for, in the movers' queue: before all others.
READERS_PRIORITY = -1
#: Ranges under way for readers, beside the others. Arbitrary: a reader in order needs one at a
#: time, several readers one each.
READERS_REQUESTS = 4
#: Blobs under way at once, in fetch order: what peers may offer is chosen among their chunks.
#: Arbitrary; a descriptor and a journal each.
MAX_OPEN_BLOBS = 64
#: At least so often the policy is asked anew, seconds: time alone may have changed its mind.
LOOK_S = 0.1


@dataclass(slots=True, eq=False)
class _Blob:
    """One blob under way, and how many chunks it lacks."""

    source: BlobSource
    partial: PartialBlob
    slots: range
    n_missing: int
    n_mends: int = 0
    is_sealing: bool = False


class Download:
    """One revision's way into the store. `run` it once."""

    def __init__(
        self,
        resolution: Resolution,
        *,
        blobs: BlobStore,
        movers: Movers,
        grants: GrantPool,
        swarms: Swarms,
        clock: Callable[[], float],
    ) -> None:
        """`clock` is monotonic, in seconds; the same as that of `swarms`."""
        self._resolution = resolution
        self._blobs = blobs
        self._movers = movers
        self._grants = grants
        self._swarms = swarms
        self._clock = clock
        self._slots = ChunkSlots.of(resolution.manifest)
        self._link = swarms.join(
            resolution.manifest, self._slots, origin_requests=movers.max_outstanding
        )
        self._policy = self._link.policy
        self._providers = Providers(
            resolution, movers, grants, self._link, on_retry=self._note_retry
        )
        self._open_blobs: dict[str, _Blob] = {}
        self._n_opening = 0
        self._wishes = Wishes()
        self._n_for_readers = 0
        self._carrying: dict[Ask, asyncio.Task[None]] = {}
        files = fetch_order(resolution.manifest.blobs.values())
        self._pending = deque(resolution.sources[file.blob] for file in files)
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
            async with asyncio.TaskGroup() as tasks:
                await self._drive(tasks)
                self._link.stop()
        except ExceptionGroup as e:
            raise e.exceptions[0] from e
        finally:
            self._swarms.leave(self._resolution.manifest.revision, self._link)
            for entry in self._open_blobs.values():
                entry.partial.close()

    def prioritise(self, blob: str, chunks: Sequence[int]) -> None:
        """Readers wait for these chunks: fetch them next, in this order.

        Of a blob that is not begun it is begun, also without chunks: readers need its files.
        """
        self._wishes.add(blob, chunks)
        self._link.pulse()

    @property
    def has_offers(self) -> bool:
        """Whether a peer has anything that is wanted."""
        return self._link.has_offers

    async def _drive(self, tasks: asyncio.TaskGroup) -> None:
        await self._take_sealed()
        while self._n_unsealed:
            changed = self._link.changed
            self._step(tasks)
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await changed.wait()

    def _step(self, tasks: asyncio.TaskGroup) -> None:
        """Begin whatever can be begun now."""
        self._link.step(tasks)
        can_fetch = self._grants.has_sessions and self._link.is_introduced
        if self._policy.can_fetch != can_fetch:
            self._policy.set_can_fetch(self._clock(), can_fetch=can_fetch)
            self._link.pulse()
        self._drop_overruled()
        while self._pending and len(self._open_blobs) + self._n_opening < MAX_OPEN_BLOBS:
            self._begin(self._pending[0], tasks)
        self._serve_readers(tasks)
        while (ask := self._policy.next_ask(self._clock())) is not None:
            self._carrying[ask] = tasks.create_task(self._carry(ask))
        for entry in list(self._open_blobs.values()):
            if not entry.n_missing and not entry.is_sealing:
                entry.is_sealing = True
                self._policy.holdings.freeze(entry.slots)
                tasks.create_task(self._seal(entry))

    def _serve_readers(self, tasks: asyncio.TaskGroup) -> None:
        """Fetch what readers wait for, beside the rest; what nobody can give yet goes first."""
        early = []
        while self._n_for_readers < READERS_REQUESTS and (wish := self._wishes.take()) is not None:
            blob, index, is_urgent = wish
            entry = self._open_blobs.get(blob)
            if entry is None:
                if (source := self._resolution.sources.get(blob)) in self._pending and source:
                    self._begin(source, tasks)
                if source and index is not None and not self._blobs.is_sealed(blob):
                    early.append(wish)
            elif index is not None:
                ask = self._policy.ask_urgently(entry.slots[index], self._clock())
                if ask is None:
                    offset = index * CHUNK_BYTES
                    self._movers.hurry(entry.partial.data_path, offset, READERS_PRIORITY)
                else:
                    self._n_for_readers += 1
                    carrying = self._carry_for_reader(ask, is_urgent=is_urgent)
                    self._carrying[ask] = tasks.create_task(carrying)
        for blob, index, is_urgent in reversed(early):
            self._wishes.put_back(blob, index, is_urgent=is_urgent)

    async def _carry_for_reader(self, ask: Ask, *, is_urgent: bool) -> None:
        try:
            await self._carry(ask, priority=URGENT_PRIORITY if is_urgent else READERS_PRIORITY)
        finally:
            self._n_for_readers -= 1

    # Blobs

    def _begin(self, source: BlobSource, tasks: asyncio.TaskGroup) -> None:
        self._pending.remove(source)
        self._n_opening += 1
        tasks.create_task(self._open(source))

    async def _take_sealed(self) -> None:
        """Tell neighbours of what is here already."""
        for source in [one for one in self._pending if self._blobs.is_sealed(one.file.blob)]:
            await self._hold_sealed(source)
            self._pending.remove(source)
            self._n_unsealed -= 1

    async def _hold_sealed(self, source: BlobSource) -> None:
        file = source.file
        found = await asyncio.to_thread(self._blobs.checksums, file.blob, file.size_bytes)
        for slot, (crc32c, crc64nvme) in zip(self._slots.slots_of(file.blob), found, strict=True):
            self._policy.hold(slot, crc32c, crc64nvme, vouched=True)
        self.tally.bytes_present += file.size_bytes

    async def _open(self, source: BlobSource) -> None:
        file = source.file
        partial = await self._open_partial(source)
        self._n_opening -= 1
        slots = self._slots.slots_of(file.blob)
        missing = list(partial.missing())
        for index, record in partial.present():
            self._policy.hold(
                slots[index],
                record.crc32c,
                record.crc64nvme,
                vouched=partial.is_sealed,
                is_shared=partial.is_shared,
            )
        self._open_blobs[file.blob] = _Blob(source, partial, slots, len(missing))
        self.tally.bytes_present += file.size_bytes - _bytes_of(source, missing)
        self._policy.want(slots[index] for index in missing)
        self._link.pulse()

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

    async def _seal(self, entry: _Blob) -> None:
        file = entry.source.file
        sealing = _in_thread(entry.partial.seal, file.checksum)
        try:
            try:
                await asyncio.shield(sealing)
            except asyncio.CancelledError:  # its journal must stay open until the thread is done
                await asyncio.wait({sealing})
                raise
        except IntegrityMismatchError:
            entry.n_mends += 1
            if entry.n_mends > MAX_MENDS:
                raise
            missing = list(entry.partial.missing())
            self._is_mended(entry, missing)
            self._policy.reject((entry.slots[index] for index in missing), entry.slots)
            self.tally.note = f"{file.path}: wrong content, fetching again"
        else:
            del self._open_blobs[file.blob]
            entry.partial.close()
            self._n_unsealed -= 1
            self._policy.seal(entry.slots)
        self._link.pulse()

    def _is_mended(self, entry: _Blob, missing: list[int]) -> None:
        """Sealing failed: these are to come again."""
        entry.is_sealing = False
        entry.n_missing = len(missing)
        self.tally.bytes_present -= _bytes_of(entry.source, missing)

    def _drop_overruled(self) -> None:
        """Chunks that were announced wrongly, as better words say now."""
        for slot in self._policy.take_dropped():
            blob, index = self._slots.locate(slot)
            entry = self._open_blobs.get(blob)
            if entry is not None:
                self._mark_absent(entry, index)

    def _mark_absent(self, entry: _Blob, index: int) -> None:
        entry.partial.mark_absent(index)
        entry.n_missing += 1
        self.tally.bytes_present -= chunk_range(index, entry.source.file.size_bytes)[1]

    # Chunks

    async def _carry(self, ask: Ask, *, priority: int = 0) -> None:
        blob, index = self._slots.locate(ask.slot)
        entry = self._open_blobs[blob]
        try:
            result = await self._fetch(ask, entry, index, priority)
        except NotGivenError as e:
            self._policy.failed(ask, e.why, self._clock(), e.holders)
        except BaseException:
            self._policy.abandoned(ask, self._clock())
            raise
        else:
            del self._carrying[ask]
            self._policy.landed(ask)
            await self._accept(ask, entry, index, result)
        finally:
            self._carrying.pop(ask, None)
            self._link.pulse()

    async def _fetch(self, ask: Ask, entry: _Blob, index: int, priority: int) -> RangeResult:
        wanted = Wanted(
            entry.source,
            index,
            entry.partial.data_path,
            announced=self._policy.words.crc32c(ask.slot),
            priority=priority,
        )
        if ask.peer is None:
            return await self._providers.from_origin(wanted)
        return await self._providers.from_peer(wanted, ask.peer, ask.timeout_s)

    async def _accept(self, ask: Ask, entry: _Blob, index: int, result: RangeResult) -> None:
        if not await self._is_undisturbed(ask, entry, index, result.crc32c):
            self._policy.abandoned(ask, self._clock())
            return
        crc64nvme = result.crc64nvme or 0
        outcome = self._policy.came(
            ask, result.crc32c, crc64nvme, self._clock(), is_shared=entry.partial.is_shared
        )
        if not outcome.is_accepted:
            return
        entry.partial.mark_present(index, result.crc32c, crc64nvme)
        entry.n_missing -= 1
        self.tally.bytes_present += result.bytes
        if ask.peer is None:
            self.tally.bytes_from_origin += result.bytes
        else:
            self.tally.bytes_from_peers += result.bytes
        self.tally.note = None

    async def _is_undisturbed(self, ask: Ask, entry: _Blob, index: int, crc32c: int) -> bool:
        """End others that write the same chunk; whether what is on disk is still what came."""
        is_same = True
        while others := {one: t for one, t in self._carrying.items() if one.slot == ask.slot}:
            for task in others.values():
                task.cancel()
            await asyncio.wait(others.values())
            for one in others:  # one that was cancelled before it began did not say so
                if self._carrying.pop(one, None) is not None:
                    self._policy.abandoned(one, self._clock())
            is_same = await asyncio.to_thread(_crc32c_on_disk, entry.partial, index) == crc32c
        return is_same

    def _note_retry(self, note: str) -> None:
        self.tally.retries += 1
        self.tally.note = note


def _in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Task[T]:
    return asyncio.create_task(asyncio.to_thread(function, *args, **kwargs))


def _crc32c_on_disk(partial: PartialBlob, index: int) -> int | None:
    """None where another attempt was first, and the blob has been sealed since."""
    try:
        with open_file(partial.data_path) as fd:
            return chunk_crcs(fd, index, partial.size_bytes)[0]
    except FileNotFoundError:
        return None


def _bytes_of(source: BlobSource, indexes: list[int]) -> int:
    return sum(chunk_range(index, source.file.size_bytes)[1] for index in indexes)
