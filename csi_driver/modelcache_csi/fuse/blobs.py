"""Blobs as the agent handed them over: their bytes, and the journal that says which may be shown.

The journal is looked at with `pread`, not through a mapping: an agent that makes it anew (it does
so after it found it broken) cuts it to nothing first, and a mapping would then end the server.
Absent is what the journal does not call present: also whatever cannot be read of it, or was
written before the last boot and not been looked at since.
"""

import os
from collections.abc import Callable, Iterator
from uuid import UUID

from modelcache_api import chunks
from modelcache_api.chunks import CHUNK_BYTES, HEADER_BYTES, RECORD_BYTES, record_offset
from modelcache_api.errors import IntegrityMismatchError

#: Blobs held open at once, at two descriptors each. Arbitrary; a revision of more files than this
#: has small ones, which do not stay incomplete for long.
MAX_OPEN = 4096


class OpenBlob:
    """One blob: two descriptors, which `close` gives back."""

    def __init__(self, data_fd: int, journal_fd: int, size_bytes: int, boot_id: UUID) -> None:
        self.data_fd = data_fd
        self.journal_fd = journal_fd
        self._size_bytes = size_bytes
        self._boot_id = boot_id
        self._is_sealed = False
        self._is_trusted = False
        self.look()

    @property
    def is_sealed(self) -> bool:
        """Complete and checked, as of the last look."""
        return self._is_sealed

    def look(self) -> bool:
        """Read the journal's header again; whether the blob became complete by it."""
        if self._is_sealed:
            return False
        try:
            header = chunks.unpack_header(os.pread(self.journal_fd, HEADER_BYTES, 0))
        except (OSError, IntegrityMismatchError):
            self._is_trusted = False
            return False
        is_ours = header.size_bytes == self._size_bytes
        self._is_sealed = is_ours and header.is_sealed
        self._is_trusted = is_ours and (header.is_sealed or header.boot_id == self._boot_id)
        return self._is_sealed

    def has(self, first: int, last: int) -> bool:
        """Whether all chunks from `first` to `last` are present."""
        if self._is_sealed:
            return True
        if not self._is_trusted and not (self.look() or self._is_trusted):
            return False
        wanted = (last - first) * RECORD_BYTES + 1
        try:
            states = os.pread(self.journal_fd, wanted, record_offset(first))
        except OSError:
            return False
        states = states[::RECORD_BYTES]
        return states.count(chunks.PRESENT) == last - first + 1

    def close(self) -> None:
        os.close(self.data_fd)
        os.close(self.journal_fd)


class OpenBlobs:
    """The open blobs of a mount, by index."""

    def __init__(self, boot_id: UUID) -> None:
        self._boot_id = boot_id
        self._open: dict[int, OpenBlob] = {}
        #: Told of a blob's index when it is seen to be complete.
        self.on_complete: Callable[[int], None] = lambda _: None

    def __iter__(self) -> Iterator[int]:
        return iter(tuple(self._open))

    def get(self, index: int) -> OpenBlob | None:
        return self._open.get(index)

    def adopt(self, index: int, data_fd: int, journal_fd: int, size_bytes: int) -> None:
        """Take over the descriptors of a blob, in place of any that it had."""
        blob = OpenBlob(data_fd, journal_fd, size_bytes, self._boot_id)
        before = self._open.pop(index, None)
        if before is not None:
            before.close()
        elif len(self._open) >= MAX_OPEN:
            self._open.pop(next(iter(self._open))).close()
        self._open[index] = blob
        if blob.is_sealed and not (before is not None and before.is_sealed):
            self.on_complete(index)

    def is_complete(self, index: int) -> bool:
        """Whether a blob is whole and checked; looked up anew if it was not."""
        blob = self._open.get(index)
        if blob is None:
            return False
        if blob.look():
            self.on_complete(index)
        return blob.is_sealed

    def look(self) -> None:
        """See which blobs became complete."""
        for index in self:
            self.is_complete(index)

    def close(self) -> None:
        while self._open:
            self._open.popitem()[1].close()


def chunks_of(offset: int, size: int) -> tuple[int, int]:
    """(first, last) chunk of a range that is not empty."""
    return offset // CHUNK_BYTES, (offset + size - 1) // CHUNK_BYTES


def this_boot() -> UUID:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return UUID(file.read().strip())
