"""Mending a sealed blob in which chunks went bad on disk, while pods may have it mapped.

A pod's mapping shows the data file itself. So new bytes arrive in a file beside it, `repair`, and
go to their place only when they are known to be right: they are the bytes that were sealed (the
journal still has their CRC32C), and with them the whole blob matches its checksum. A page of the
data file therefore only ever turns from wrong to right; the file is never truncated or replaced.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from modelcache_api.chunks import ChunkRecord, chunk_range
from modelcache_api.errors import IntegrityMismatchError
from modelcache_api.manifest import Checksum, ChecksumAlgorithm
from modelcache_node.store.combining import chunk_crcs, pieces
from modelcache_node.store.files import disk_errors, open_file, write_at
from modelcache_node.store.partial_blob import PartialBlob, mismatch

STAGING_NAME = "repair"


class Repair(PartialBlob):
    """A `PartialBlob` whose chunks land in a file of their own first."""

    _staged: dict[int, ChunkRecord]
    _staging_fd: int

    def begin(self) -> None:
        """Make the file that chunks are fetched into; it is sparse and holds no other chunk."""
        self._staged = {}
        self._staging_fd = os.open(
            self.data_path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600
        )
        os.ftruncate(self._staging_fd, self.size_bytes)

    @property
    def data_path(self) -> Path:
        return self.directory / STAGING_NAME

    def missing(self) -> Iterator[int]:
        return (index for index in super().missing() if index not in self._staged)

    def present_bytes(self) -> int:
        staged = sum(chunk_range(index, self.size_bytes)[1] for index in self._staged)
        return super().present_bytes() + staged

    def mark_present(self, index: int, crc32c: int, crc64nvme: int = 0) -> None:
        self._staged[index] = ChunkRecord(is_present=True, crc32c=crc32c, crc64nvme=crc64nvme)

    @property
    def is_shared(self) -> bool:
        """No chunk of it is served while it is mended."""
        return False

    def mark_absent(self, index: int) -> None:
        self._staged.pop(index, None)

    @disk_errors()
    def seal(self, checksum: Checksum | None) -> None:
        """As `PartialBlob.seal`; what it raises leaves the data file as it was."""
        if self._is_sealed:
            return
        if next(self.missing(), None) is not None:
            raise IntegrityMismatchError("chunks are missing")
        with open_file(self.directory / "data", os.O_RDWR) as fd:
            for index in list(self._staged):
                self._check(fd, index)
            self._check_whole(fd, checksum)
            self._put_in_place(fd)
            self._finish(fd)

    def close(self) -> None:
        if self._staging_fd >= 0:
            os.close(self._staging_fd)
            self._staging_fd = -1
            self.data_path.unlink(missing_ok=True)
        super().close()

    def _check(self, fd: int, index: int) -> None:
        """A staged chunk holds what was sealed once, as far as the journal remembers."""
        known = self.journal.record(index).crc32c
        staged = chunk_crcs(self._staging_fd, index, self.size_bytes)[0]
        if staged != self._staged[index].crc32c:
            del self._staged[index]
            raise IntegrityMismatchError(f"chunk {index} changed on its way to the disk")
        # A journal may itself have lost what it knew: 0, or a CRC that the bytes never had.
        if known in (0, staged) or staged == chunk_crcs(fd, index, self.size_bytes)[0]:
            return
        del self._staged[index]
        raise IntegrityMismatchError(f"chunk {index} is not the one that was sealed")

    def _check_whole(self, fd: int, checksum: Checksum | None) -> None:
        found = self._content_checksum(fd, checksum) if checksum else None
        if checksum and found != checksum.value:
            self._staged.clear()
            self._drop_wrong_chunks(fd)
            raise mismatch(checksum, found)

    def _put_in_place(self, fd: int) -> None:
        for index in list(self._staged):
            offset, length = chunk_range(index, self.size_bytes)
            for piece in pieces(self._staging_fd, offset, length):
                write_at(fd, piece, offset)
                offset += len(piece)
        os.fdatasync(fd)
        for index, record in self._staged.items():
            self.journal.mark_present(index, record.crc32c, record.crc64nvme)
        self._staged.clear()

    def _content(self, fd: int) -> Iterator[memoryview]:
        for index in range(self.journal.n_chunks):
            source = self._staging_fd if index in self._staged else fd
            yield from pieces(source, *chunk_range(index, self.size_bytes))

    def _parts(self, fd: int, algorithm: ChecksumAlgorithm) -> Iterator[tuple[int, int]]:
        for index, (known, length) in enumerate(super()._parts(fd, algorithm)):
            if index not in self._staged:
                yield known, length
            elif algorithm is ChecksumAlgorithm.CRC32C:
                yield self._staged[index].crc32c, length
            else:
                crcs = chunk_crcs(self._staging_fd, index, self.size_bytes, with_crc64nvme=True)
                yield crcs[1], length
