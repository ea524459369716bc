"""A blob that is not complete yet: its data file, its journal, and the way to its seal.

Guarantees:
- a chunk counts as present only after it was marked so, by who wrote and checked it; after another
  boot it is read and compared with its CRC first, since what was not synced may be lost;
- a seal is durable: data first, then the journal, then the name;
- content that disagrees with its checksum is never sealed.

Used by one thread at a time; `seal` and opening block, and belong into a worker thread.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from modelcache_api.chunks import ChunkRecord, chunk_range
from modelcache_api.errors import IntegrityMismatchError
from modelcache_api.manifest import Checksum, ChecksumAlgorithm
from modelcache_node.store.blob_dirs import SEALED_MODE, is_intact
from modelcache_node.store.combining import chunk_crcs, combine, pieces
from modelcache_node.store.files import disk_errors, open_file
from modelcache_node.store.journal import Journal


class Hasher(Protocol):
    """What `hashlib` makes."""

    def update(self, data: memoryview, /) -> None: ...
    def hexdigest(self) -> str: ...


class PartialBlob:
    """One blob under way, for one user. `close` it in the end, sealed or not."""

    def __init__(
        self,
        directory: Path,
        journal: Journal,
        *,
        on_sealed: Callable[["PartialBlob"], Path],
        on_closed: Callable[["PartialBlob"], None],
    ) -> None:
        """For `BlobStore`: `on_sealed` names the sealed directory finally and returns its path."""
        self.directory = directory
        self.journal = journal
        self._on_sealed = on_sealed
        self._on_closed = on_closed
        self._is_sealed = journal.header.is_sealed

    @property
    def size_bytes(self) -> int:
        return self.journal.header.size_bytes

    @property
    def data_path(self) -> Path:
        """Where chunks are written, each at its offset. Moves when the blob is sealed."""
        return self.directory / "data"

    @property
    def is_sealed(self) -> bool:
        return self._is_sealed

    def missing(self) -> Iterator[int]:
        """Chunks still to be written, in order, as it is now."""
        return self.journal.missing()

    def present_bytes(self) -> int:
        return self.journal.present_bytes()

    @disk_errors()
    def mark_present(self, index: int, crc32c: int, crc64nvme: int = 0) -> None:
        """The chunk is in `data_path` and was checked. Cheap; does not sync.

        Args:
            index: Of the chunk.
            crc32c: Of its bytes, as they were received.
            crc64nvme: The same, or 0 where nobody computed it.
        """
        self.journal.mark_present(index, crc32c, crc64nvme)

    def present(self) -> Iterator[tuple[int, ChunkRecord]]:
        """Chunks that are present now, in order, with their checksums."""
        return ((index, self.journal.record(index)) for index in self.journal.present())

    @property
    def is_shared(self) -> bool:
        """Whether other nodes may have its chunks before it is sealed."""
        return True

    @disk_errors()
    def mark_absent(self, index: int) -> None:
        """The chunk is not what it should be, though it is what was received."""
        self.journal.mark_absent(index)

    @disk_errors()
    def seal(self, checksum: Checksum | None) -> None:
        """Compare the content with its checksum, make it durable and give it its final name.

        Idempotent. Blocks: what is no CRC reads every byte again.

        Args:
            checksum: Of the whole blob, from its origin; None where that states none.

        Raises:
            IntegrityMismatchError: chunks are missing, or the content is wrong. Those to fetch
                again are in `missing` now: the chunks whose bytes changed since they were marked,
                or all, where every chunk is as it was received.
        """
        if self._is_sealed:
            return
        if not self.journal.is_full:
            raise IntegrityMismatchError("chunks are missing")
        with open_file(self.data_path) as fd:
            found = self._content_checksum(fd, checksum) if checksum else None
            if checksum and found != checksum.value:
                self._drop_wrong_chunks(fd)
                raise mismatch(checksum, found)
            self._finish(fd)

    def combined(self, algorithm: ChecksumAlgorithm) -> str:
        """The CRC of the whole blob from those of its chunks, as a checksum's value."""
        with open_file(self.data_path) as fd:
            return combine(algorithm, self._parts(fd, algorithm))

    def close(self) -> None:
        """Give it up for now; what is present stays. Idempotent."""
        self.journal.close()
        self._on_closed(self)

    def _finish(self, fd: int) -> None:
        os.fdatasync(fd)
        self.journal.seal()
        os.fchmod(fd, SEALED_MODE)  # last: read-only data is taken as sealed
        self.directory = self._on_sealed(self)
        self._is_sealed = True

    def _content_checksum(self, fd: int, checksum: Checksum) -> str:
        if checksum.algorithm in (ChecksumAlgorithm.CRC32C, ChecksumAlgorithm.CRC64NVME):
            return combine(checksum.algorithm, self._parts(fd, checksum.algorithm))
        hasher = new_hasher(checksum.algorithm, self.size_bytes)
        for piece in self._content(fd):
            hasher.update(piece)
        return hasher.hexdigest()

    def _content(self, fd: int) -> Iterator[memoryview]:
        """The bytes that are to be sealed."""
        yield from pieces(fd, 0, self.size_bytes)

    def _parts(self, fd: int, algorithm: ChecksumAlgorithm) -> Iterator[tuple[int, int]]:
        for index in range(self.journal.n_chunks):
            record = self.journal.record(index)
            length = chunk_range(index, self.size_bytes)[1]
            if algorithm is ChecksumAlgorithm.CRC32C:
                yield record.crc32c, length
            elif record.crc64nvme:
                yield record.crc64nvme, length
            else:  # who fetched this chunk did not compute it
                yield chunk_crcs(fd, index, self.size_bytes, with_crc64nvme=True)[1], length

    def _drop_wrong_chunks(self, fd: int) -> None:
        changed = [i for i in self.journal.present() if not is_intact(fd, i, self.journal)]
        for index in changed or range(self.journal.n_chunks):
            self.journal.mark_absent(index)


def new_hasher(algorithm: ChecksumAlgorithm, size_bytes: int) -> Hasher:
    """What hashes a blob of that size by an algorithm that is no CRC."""
    if algorithm is ChecksumAlgorithm.GIT_SHA1:
        # SHA-1 detects accidents; who could forge it is the hub itself
        return hashlib.sha1(b"blob %d\0" % size_bytes, usedforsecurity=False)
    return hashlib.new(algorithm, usedforsecurity=False)


def mismatch(stated: Checksum, found: str | None) -> IntegrityMismatchError:
    return IntegrityMismatchError(
        f"content does not match its checksum: {stated} was stated, {found} is there"
    )
