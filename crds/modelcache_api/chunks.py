"""Chunks, and the journal that says which of a blob's chunks are on disk.

Format 1 of ``blobs/<aa>/<key>/chunks`` (all integers little-endian)::

    0     8   magic b"MCCHUNKS"
    8     2   format version, 1
    10    2   flags: bit 0 = sealed (complete, checked, durable)
    12    4   chunk size, bytes
    16    8   blob size, bytes
    24    8   number of chunks
    32   16   boot id under which unsealed chunks were written
    48   16   reserved, zero
    64   16 × n  records, one per chunk:
              0  1  state: 0 absent, 1 present (written, then checked)
              1  3  reserved, zero
              4  4  CRC32C of the chunk
              8  8  CRC64/NVME of the chunk, or 0 where the origin states none

The record of a present chunk is written after its bytes. The file may be mapped read-only by
another process: a one-byte state flips once, from 0 to 1, so a reader needs no lock.
"""

import struct
from dataclasses import dataclass
from uuid import UUID

from modelcache_api.errors import IntegrityMismatchError
from modelcache_api.units import MIB

#: Unit of transfer, check and sharing. A protocol constant: it never varies between nodes.
CHUNK_BYTES = 16 * MIB

MAGIC = b"MCCHUNKS"
FORMAT_VERSION = 1
FLAG_SEALED = 1
HEADER_BYTES = 64
RECORD_BYTES = 16
ABSENT, PRESENT = 0, 1

_HEADER = struct.Struct("<8sHHIQQ16s16x")
_RECORD = struct.Struct("<B3xIQ")
assert _HEADER.size == HEADER_BYTES
assert _RECORD.size == RECORD_BYTES


@dataclass(frozen=True, slots=True)
class ChunkRecord:
    """What the journal says of one chunk. CRCs are meaningful only when it is present."""

    is_present: bool
    crc32c: int = 0
    crc64nvme: int = 0


@dataclass(frozen=True, slots=True)
class JournalHeader:
    """The fixed part of a journal."""

    size_bytes: int
    is_sealed: bool
    boot_id: UUID

    @property
    def n_chunks(self) -> int:
        return chunk_count(self.size_bytes)

    @property
    def journal_bytes(self) -> int:
        return HEADER_BYTES + self.n_chunks * RECORD_BYTES


def chunk_count(size_bytes: int) -> int:
    """Chunks of a blob; an empty blob has none."""
    return -(-size_bytes // CHUNK_BYTES)


def chunk_range(index: int, size_bytes: int) -> tuple[int, int]:
    """(offset, length) in bytes of a blob's chunk; only the last may be short."""
    offset = index * CHUNK_BYTES
    if not 0 <= offset < size_bytes:
        raise IndexError(f"chunk {index} of a blob of {size_bytes} bytes")
    return offset, min(CHUNK_BYTES, size_bytes - offset)


def pack_header(header: JournalHeader) -> bytes:
    flags = FLAG_SEALED if header.is_sealed else 0
    return _HEADER.pack(
        MAGIC,
        FORMAT_VERSION,
        flags,
        CHUNK_BYTES,
        header.size_bytes,
        header.n_chunks,
        header.boot_id.bytes,
    )


def unpack_header(raw: bytes | memoryview) -> JournalHeader:
    """Parse a journal's first 64 bytes.

    Raises:
        IntegrityMismatchError: not such a journal, of another version, or inconsistent. The
            blob's chunks count as absent.
    """
    if len(raw) < HEADER_BYTES:
        raise IntegrityMismatchError(f"chunk journal of {len(raw)} bytes is cut short")
    magic, version, flags, chunk_bytes, size_bytes, n_chunks, boot = _HEADER.unpack_from(raw)
    if magic != MAGIC or version != FORMAT_VERSION:
        raise IntegrityMismatchError(f"not a chunk journal of format {FORMAT_VERSION}")
    if chunk_bytes != CHUNK_BYTES or n_chunks != chunk_count(size_bytes) or flags & ~FLAG_SEALED:
        raise IntegrityMismatchError("chunk journal contradicts itself")
    return JournalHeader(size_bytes, bool(flags & FLAG_SEALED), UUID(bytes=boot))


def record_offset(index: int) -> int:
    return HEADER_BYTES + index * RECORD_BYTES


def pack_record(record: ChunkRecord) -> bytes:
    return _RECORD.pack(PRESENT if record.is_present else ABSENT, record.crc32c, record.crc64nvme)


def unpack_record(raw: bytes | memoryview) -> ChunkRecord:
    state, crc32c, crc64nvme = _RECORD.unpack(raw)
    return ChunkRecord(state == PRESENT, crc32c, crc64nvme)
