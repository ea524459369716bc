"""One chunk, from the origin by a live grant or from a peer."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from modelcache_api.chunks import chunk_range
from modelcache_api.errors import AccessDeniedError, GrantExpiredError, ModelCacheError
from modelcache_api.manifest import ChecksumAlgorithm
from modelcache_node.caching.grants import GrantPool
from modelcache_node.caching.resolving import BlobSource, Resolution, to_grant
from modelcache_node.caching.swarm_links import SwarmLink
from modelcache_node.swarm.asks import Failure
from modelcache_node.transfer.movers import Movers
from modelcache_node.transfer.peer_ranges import (
    PeerBusyError,
    PeerError,
    PeerLacksError,
    PeerMisbehavedError,
    PeerRange,
)
from modelcache_node.transfer.ranges import RangeRequest, RangeResult

#: How often in a row a range's grant may be called expired, each time a new one, before the source
#: is called closed. Arbitrary: clocks differ, but a fresh grant that is refused is no grant.
MAX_RENEWALS = 3


class NotGivenError(ModelCacheError):
    """A peer did not give a chunk; `holders` are neighbours that it named instead."""

    retryable = True

    def __init__(self, why: Failure, message: str, holders: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.why = why
        self.holders = holders


@dataclass(frozen=True, slots=True)
class Wanted:
    """One chunk, and where it goes; `announced` is its CRC32C, where somebody announced it."""

    source: BlobSource
    index: int
    path: Path
    announced: int | None
    priority: int


class Providers:
    """Fetches single chunks for one download."""

    def __init__(
        self,
        resolution: Resolution,
        movers: Movers,
        grants: GrantPool,
        link: SwarmLink,
        *,
        on_retry: Callable[[str], None],
    ) -> None:
        """`on_retry` is told why something is asked for again."""
        self._ca_pem = resolution.ca_pem
        self._movers = movers
        self._grants = grants
        self._link = link
        self._on_retry = on_retry

    async def from_origin(self, wanted: Wanted) -> RangeResult:
        """By whichever grant is live; waits for one, and for the origin.

        Raises what `Movers.fetch` raises, and
            AccessDeniedError: fresh grants are refused.
        """
        source, file = wanted.source, wanted.source.file
        offset, length = chunk_range(wanted.index, file.size_bytes)
        n_renewals = 0
        while True:
            await self._link.may_read_origin(length)
            grant = await self._grants.get(file.blob)
            try:
                return await self._movers.fetch(
                    RangeRequest(
                        path=wanted.path,
                        offset=offset,
                        length=length,
                        grant=to_grant(grant),
                        validator=source.validator,
                        total_bytes=file.size_bytes,
                        ca_pem=self._ca_pem,
                        want_crc64nvme=_wants_crc64nvme(source),
                        priority=wanted.priority,
                    ),
                    give_up_after_s=None,
                    on_retry=self._on_retry,
                )
            except GrantExpiredError as e:
                n_renewals += 1
                if n_renewals > MAX_RENEWALS:
                    raise AccessDeniedError(f"new grants are refused too: {e}") from e
                self._grants.reject(file.blob, grant)

    async def from_peer(self, wanted: Wanted, name: str, timeout_s: float | None) -> RangeResult:
        """One attempt at the neighbour of this name, within the time.

        Raises what `Movers.fetch_from_peer` raises of our own disk, and
            NotGivenError: for any other reason.
        """
        source = wanted.source
        peer = self._link.address(name)
        if peer is None:
            raise NotGivenError(Failure.UNAVAILABLE, f"{name} is no neighbour any more")
        asked = PeerRange(
            peer=peer,
            blob=_name_at_peers(source),
            index=wanted.index,
            total_bytes=source.file.size_bytes,
            path=wanted.path,
            crc32c=wanted.announced,
            want_crc64nvme=_wants_crc64nvme(source),
            priority=wanted.priority,
        )
        try:
            async with asyncio.timeout(timeout_s):
                return await self._movers.fetch_from_peer(asked)
        except PeerBusyError as e:
            raise NotGivenError(Failure.BUSY, str(e), self._link.names(e.hints)) from e
        except PeerLacksError as e:
            why = Failure.APART if source.provider_id else Failure.LACKS
            raise NotGivenError(why, str(e)) from e
        except PeerMisbehavedError as e:
            self._on_retry(str(e))
            raise NotGivenError(Failure.MISBEHAVED, str(e)) from e
        except (PeerError, TimeoutError) as e:
            self._on_retry(str(e) or f"{peer}: too slow")
            raise NotGivenError(Failure.UNAVAILABLE, str(e)) from e


def _name_at_peers(source: BlobSource) -> str:
    """What peers serve a blob under; unsealed chunks of a content key are of one origin."""
    key, provider_id = source.file.blob, source.provider_id
    return f"{key}.{provider_id}" if provider_id else key


def _wants_crc64nvme(source: BlobSource) -> bool:
    checksum = source.file.checksum
    return checksum is not None and checksum.algorithm is ChecksumAlgorithm.CRC64NVME
