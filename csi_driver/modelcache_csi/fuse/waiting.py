"""READs that wait for bytes, and which chunks to ask for because of them. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from modelcache_api.chunks import chunk_count
from modelcache_csi.fuse.answering import ReadBytes
from modelcache_csi.fuse.blobs import chunks_of

#: Chunks asked for ahead of a reader that goes through a file in order: as many as the agent has
#: under way at once, so that none of its connections fetches what is wanted later. Arbitrary.
READ_AHEAD_CHUNKS = 16


@dataclass(frozen=True, slots=True)
class Waiting:
    """One READ, and the ledger's slot that keeps it."""

    read: ReadBytes
    slot: int


class WaitingReads:
    """The READs that wait, in the order they came.

    Mutable state: `_by_unique`; `_last_chunk`, where each blob was last found wanting.
    """

    def __init__(self) -> None:
        self._by_unique: dict[int, Waiting] = {}
        self._last_chunk: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._by_unique)

    def __iter__(self) -> Iterator[Waiting]:
        return iter(tuple(self._by_unique.values()))

    def add(self, one: Waiting) -> None:
        self._by_unique[one.read.unique] = one

    def take(self, unique: int) -> Waiting | None:
        """It waits no longer; None when it did not."""
        return self._by_unique.pop(unique, None)

    def blobs(self) -> set[int]:
        """What somebody waits for."""
        return {one.read.blob_index for one in self._by_unique.values()}

    def wanted(self, read: ReadBytes, size_bytes: int) -> tuple[int, ...]:
        """Chunks to ask for because of a new READ: its own, and more for who reads in order."""
        first, last = chunks_of(read.offset, read.size)
        before = self._last_chunk.get(read.blob_index)
        self._last_chunk[read.blob_index] = last
        is_in_order = first == 0 or (before is not None and 0 <= first - before <= 1)
        end = last + 1 + (READ_AHEAD_CHUNKS if is_in_order else 0)
        return tuple(range(first, min(end, chunk_count(size_bytes))))
