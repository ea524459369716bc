"""The chunk journal of one blob: which chunks are on disk, with their CRCs.

The format is `modelcache_api.chunks`. A whole journal is held in memory (16 bytes per chunk: 1 MiB
for a blob of 1 TiB); every change is written through with `pwrite`, which reports a full disk as
an error where a mapping would end the process.

A journal is used by one thread at a time. Others may map the file: a chunk's CRCs are written
before its state.
"""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Self
from uuid import UUID

from modelcache_api import chunks
from modelcache_api.chunks import ChunkRecord, JournalHeader, chunk_range
from modelcache_api.errors import IntegrityMismatchError
from modelcache_node.store.files import write_at

_STATES = slice(chunks.HEADER_BYTES, None, chunks.RECORD_BYTES)


class Journal:
    """Make it with `create` or `open`; `close` it."""

    def __init__(self, fd: int, raw: bytearray, header: JournalHeader) -> None:
        self._fd = fd
        self._raw = raw
        self._header = header
        self._n_present = self._states().count(chunks.PRESENT)

    @classmethod
    def create(cls, path: Path, size_bytes: int, boot_id: UUID) -> Self:
        """A new journal with every chunk absent, in place of any other.

        Not synced: after a power failure whatever is left of it counts as absent or is checked.
        """
        header = JournalHeader(size_bytes, is_sealed=False, boot_id=boot_id)
        raw = bytearray(chunks.pack_header(header).ljust(header.journal_bytes, b"\0"))
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            write_at(fd, raw, 0)
        except BaseException:
            os.close(fd)
            raise
        return cls(fd, raw, header)

    @classmethod
    def open(cls, path: Path, size_bytes: int) -> Self:
        """An existing journal.

        Raises:
            FileNotFoundError: there is none.
            IntegrityMismatchError: it cannot be trusted; make a new one.
        """
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            header = chunks.unpack_header(_read(fd, chunks.HEADER_BYTES))
            _check_size(header, size_bytes, os.fstat(fd).st_size)
            raw = bytearray(_read(fd, header.journal_bytes))
        except BaseException:
            os.close(fd)
            raise
        return cls(fd, raw, header)

    @property
    def header(self) -> JournalHeader:
        return self._header

    @property
    def n_chunks(self) -> int:
        return self._header.n_chunks

    @property
    def is_full(self) -> bool:
        return self._n_present == self.n_chunks

    def is_present(self, index: int) -> bool:
        return self._raw[self._offset(index)] == chunks.PRESENT

    def record(self, index: int) -> ChunkRecord:
        """What is known of a chunk. The CRCs of one that was marked absent again are kept."""
        offset = self._offset(index)
        return chunks.unpack_record(bytes(self._raw[offset : offset + chunks.RECORD_BYTES]))

    def mark_present(self, index: int, crc32c: int, crc64nvme: int = 0) -> None:
        """The chunk is written and checked. `crc64nvme` is 0 where nobody computed it."""
        offset = self._offset(index)
        record = chunks.pack_record(
            ChunkRecord(is_present=True, crc32c=crc32c, crc64nvme=crc64nvme)
        )
        write_at(self._fd, record[1:], offset + 1)
        write_at(self._fd, record[:1], offset)
        self._n_present += self._raw[offset] != chunks.PRESENT
        self._raw[offset : offset + chunks.RECORD_BYTES] = record

    def mark_absent(self, index: int) -> None:
        """The chunk is missing or wrong; its CRCs stay known."""
        offset = self._offset(index)
        write_at(self._fd, bytes([chunks.ABSENT]), offset)
        self._n_present -= self._raw[offset] == chunks.PRESENT
        self._raw[offset] = chunks.ABSENT

    def missing(self) -> Iterator[int]:
        """Absent chunks, in order, as they are now."""
        states = self._states()
        return (index for index in range(self.n_chunks) if states[index] != chunks.PRESENT)

    def present(self) -> Iterator[int]:
        """Present chunks, in order, as they are now."""
        states = self._states()
        return (index for index in range(self.n_chunks) if states[index] == chunks.PRESENT)

    def present_bytes(self) -> int:
        if not self._n_present:
            return 0
        last = self.n_chunks - 1
        short = chunks.CHUNK_BYTES - chunk_range(last, self._header.size_bytes)[1]
        return self._n_present * chunks.CHUNK_BYTES - (short if self.is_present(last) else 0)

    def begin_boot(self, boot_id: UUID) -> None:
        """Every present chunk was checked in this boot."""
        self._write_header(replace(self._header, boot_id=boot_id))

    def seal(self) -> None:
        """Say durably that the blob is complete: first the records, then the header's flag."""
        os.fsync(self._fd)
        self._write_header(replace(self._header, is_sealed=True))
        os.fsync(self._fd)

    def unseal(self) -> None:
        """Say durably that the blob is incomplete again."""
        self._write_header(replace(self._header, is_sealed=False))
        os.fsync(self._fd)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _write_header(self, header: JournalHeader) -> None:
        raw = chunks.pack_header(header)
        write_at(self._fd, raw, 0)
        self._raw[: chunks.HEADER_BYTES] = raw
        self._header = header

    def _states(self) -> bytearray:
        return self._raw[_STATES]

    def _offset(self, index: int) -> int:
        if not 0 <= index < self.n_chunks:
            raise IndexError(f"chunk {index} of {self.n_chunks}")
        return chunks.record_offset(index)


def read_header(path: Path) -> JournalHeader | None:
    """A journal's header, or None where there is none to trust."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return chunks.unpack_header(_read(fd, chunks.HEADER_BYTES))
    except IntegrityMismatchError:
        return None
    finally:
        os.close(fd)


def _read(fd: int, length: int) -> bytes:
    return os.pread(fd, length, 0)


def _check_size(header: JournalHeader, size_bytes: int, file_bytes: int) -> None:
    if header.size_bytes != size_bytes or file_bytes != header.journal_bytes:
        raise IntegrityMismatchError("chunk journal is of another blob or cut short")
