"""Checksums of a whole file from those of its chunks, in order, without reading it again. Pure."""

from collections.abc import Callable, Iterable

from awscrt import checksums


def combined_crc32c(parts: Iterable[tuple[int, int]]) -> int:
    """CRC32C of the concatenation of parts, given as (CRC32C, length in bytes)."""
    return _combined(parts, checksums.combine_crc32c)


def combined_crc64nvme(parts: Iterable[tuple[int, int]]) -> int:
    """CRC64/NVME of the concatenation of parts, given as (CRC64/NVME, length in bytes)."""
    return _combined(parts, checksums.combine_crc64nvme)


def _combined(parts: Iterable[tuple[int, int]], combine: Callable[[int, int, int], int]) -> int:
    total = 0  # of no bytes
    for checksum, n_bytes in parts:
        if n_bytes:
            total = combine(total, checksum, n_bytes)
    return total
