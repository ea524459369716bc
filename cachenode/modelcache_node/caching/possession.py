"""Whether who claims a content's digest can really read that content.

Where an origin states the sha256 of a file, its blob is named by it, and the same file of two
sources is one blob. So a listing that merely *claims* the digests of somebody else's model, with an
origin of one's own behind it, comes to that model's revision. A digest is no secret. Therefore such
a proof stays provisional until the session's own grants have answered with the bytes themselves:
of every such blob some ranges, which nobody can foresee, are read and compared with those on disk.
"""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

from awscrt import checksums

from modelcache_api.errors import SourceLiesError
from modelcache_api.listing import ObjectGrant
from modelcache_node.caching.resolving import PROBE_CONCURRENCY, BlobSource, Resolution, to_grant
from modelcache_node.transfer.movers import Movers
from modelcache_node.transfer.ranges import RangeRequest

#: Ranges read of each blob, and their length. Who lacks a tenth of a file fails in one of four with
#: that file alone; a model has tens. 256 KiB a file is nothing beside fetching it.
RANGES = 4
RANGE_BYTES = 64 << 10


async def check_possession(
    resolution: Resolution,
    grants: Mapping[str, tuple[str, ObjectGrant]],
    movers: Movers,
    *,
    data_path: Callable[[str], Path],
    below: Callable[[int], int],
) -> None:
    """Compare what `grants` read with the sealed blobs that are named by their content.

    Args:
        resolution: All of its blobs are sealed.
        grants: Path and grant by blob.
        movers: Who reads.
        data_path: A sealed blob's bytes, by key.
        below: An unforeseeable number from 0 to below its argument.

    Raises:
        SourceLiesError: the origin behind a grant has other bytes than it claims.
        ModelCacheError: as movers say.
    """
    slots = asyncio.Semaphore(PROBE_CONCURRENCY)

    async def check(source: BlobSource, offset: int, length: int) -> None:
        path, grant = grants[source.file.blob]
        request = RangeRequest(
            path=None,
            offset=offset,
            length=length,
            grant=to_grant(grant),
            validator=source.validator,
            total_bytes=source.file.size_bytes,
            ca_pem=resolution.ca_pem,
        )
        async with slots:
            answered = await movers.fetch(request)
            kept = await asyncio.to_thread(_crc32c_of, data_path(source.file.blob), offset, length)
        if answered.crc32c != kept:
            raise SourceLiesError(f"{path}: its content is not what its checksum says")

    try:
        async with asyncio.TaskGroup() as group:
            for source in resolution.by_claim:
                for offset, length in _ranges(source.file.size_bytes, below):
                    group.create_task(check(source, offset, length))
    except ExceptionGroup as e:
        raise e.exceptions[0] from e


def _ranges(size_bytes: int, below: Callable[[int], int]) -> list[tuple[int, int]]:
    if size_bytes <= RANGES * RANGE_BYTES:
        return [(0, size_bytes)] if size_bytes else []
    return [(below(size_bytes - RANGE_BYTES + 1), RANGE_BYTES) for _ in range(RANGES)]


def _crc32c_of(path: Path, offset: int, length: int) -> int:
    with path.open("rb") as opened:
        opened.seek(offset)
        return int(checksums.crc32c(opened.read(length)))
