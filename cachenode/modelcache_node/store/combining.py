"""CRCs of file ranges, and of wholes from their parts."""

import os
from collections.abc import Iterable
from typing import Any

from modelcache_api.chunks import chunk_range
from modelcache_api.manifest import ChecksumAlgorithm
from modelcache_api.units import MIB

#: Read buffer. About a core's second-level cache; larger is slower.
BUFFER_BYTES = MIB


def combine(algorithm: ChecksumAlgorithm, parts: Iterable[tuple[int, int]]) -> str:
    """The CRC of a whole, as a checksum's value, from (CRC, bytes) of its parts in order."""
    checksums = _checksums()
    if algorithm is ChecksumAlgorithm.CRC32C:
        combine_two, digits = checksums.combine_crc32c, 8
    else:
        combine_two, digits = checksums.combine_crc64nvme, 16
    crc = 0
    for part, length in parts:
        crc = combine_two(crc, part, length)
    return f"{crc:0{digits}x}"


def chunk_crcs(
    fd: int, index: int, size_bytes: int, *, with_crc64nvme: bool = False
) -> tuple[int, int]:
    """(CRC32C, CRC64/NVME or 0) of one chunk as it is in the file now."""
    checksums = _checksums()
    crc32c = crc64nvme = 0
    for piece in pieces(fd, *chunk_range(index, size_bytes)):
        crc32c = checksums.crc32c(piece, crc32c)
        if with_crc64nvme:
            crc64nvme = checksums.crc64nvme(piece, crc64nvme)
    return crc32c, crc64nvme


def pieces(fd: int, offset: int, length: int) -> Iterable[memoryview]:
    """A range of a file, a buffer at a time; a piece is valid until the next is asked for.

    A file that ends early yields less than `length`.
    """
    view = memoryview(bytearray(min(BUFFER_BYTES, length)))
    end = offset + length
    while offset < end:
        n_read = os.preadv(fd, [view[: end - offset]], offset)
        if n_read == 0:
            return
        yield view[:n_read]
        offset += n_read


def _checksums() -> Any:
    """The library, loaded when it is needed: 40 ms, and a pull of few files may never need it."""
    from awscrt import checksums  # noqa: PLC0415

    return checksums
