"""Room on the disk: what fetches reserve, and evictions to make room.

Guarantees:
- a fetch begins only when all it still has to bring fits, so fetches never starve each other;
- nothing is evicted before the plugin has told all mounts since this start (`allow_evictions`);
- a model that cannot fit evicts nothing.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager

from modelcache_api.errors import InsufficientCapacityError
from modelcache_api.manifest import Manifest
from modelcache_node.caching.eviction import Held, choose_evictions
from modelcache_node.store.store import Store

_LOG = logging.getLogger(__name__)

#: Without --capacity, this share of the file system: below the kubelet's own eviction threshold
#: (nodefs.available 10 %) and the high watermark of a disk that we do not have to ourselves.
HIGH_WATERMARK = 0.9
#: An eviction for a full disk goes on to here, so that it is not repeated at every chunk.
LOW_WATERMARK = 0.8


class Capacity:
    """Reservations and evictions of one node. Used from one event loop."""

    def __init__(
        self,
        store: Store,
        *,
        limit_bytes: int | None,
        held: Callable[[], Iterable[Held]],
        remove: Callable[[str], Awaitable[bool]],
    ) -> None:
        """`held` tells the revisions that are here, with what holds them; `remove` removes one,
        unless something holds it by then.
        """
        self._store = store
        self._limit_bytes = limit_bytes
        self._held = held
        self._remove = remove
        self._reserved: dict[str, dict[str, int]] = {}
        self._making_room = asyncio.Lock()
        self.evictions_allowed = False

    @property
    def capacity_bytes(self) -> int:
        """What models may take on this node's disk."""
        if self._limit_bytes is not None:
            return self._limit_bytes
        disk = os.statvfs(self._store.root)
        return int(HIGH_WATERMARK * disk.f_frsize * disk.f_blocks)

    @property
    def used_bytes(self) -> int:
        return self._store.blobs.usage()[0]

    @property
    def reserved_bytes(self) -> int:
        """Of running fetches: bytes not yet allocated on disk."""
        wanted: dict[str, int] = {}
        for blobs in self._reserved.values():
            wanted |= blobs
        return sum(
            max(0, size - self._store.blobs.allocated_bytes(key)) for key, size in wanted.items()
        )

    def has_room_for(self, manifest: Manifest) -> bool:
        """Whether a revision fits without evicting any other."""
        taken_bytes = self.used_bytes + self.reserved_bytes
        return taken_bytes + self._missing_bytes(manifest) <= self.capacity_bytes

    def allow_evictions(self) -> None:
        """Every mount of this node is known now."""
        self.evictions_allowed = True

    @asynccontextmanager
    async def reserved(self, revision: str, manifest: Manifest) -> AsyncIterator[None]:
        """Hold room for a revision while it is fetched, evicting others for it if needed.

        Raises:
            InsufficientCapacityError: it does not fit, even after evicting all that may go;
                nothing was evicted for it.
        """
        async with self._making_room:
            wanted = {key: file.size_bytes for key, file in manifest.blobs.items()}
            await self._make_room(self._missing_bytes(manifest), manifest)
            self._reserved[revision] = wanted
        try:
            yield
        finally:
            del self._reserved[revision]

    def _missing_bytes(self, manifest: Manifest) -> int:
        reserved = {key for blobs in self._reserved.values() for key in blobs}
        return sum(
            max(0, file.size_bytes - self._store.blobs.allocated_bytes(key))
            for key, file in manifest.blobs.items()
            if key not in reserved  # by another revision that has the file too
        )

    async def relieve(self) -> None:
        """The disk is full although space was reserved: others fill it. Make some room."""
        async with self._making_room:
            excess = int(self.used_bytes * (1 - LOW_WATERMARK / HIGH_WATERMARK))
            try:
                await self._evict(max(1, excess))
            except InsufficientCapacityError as e:
                _LOG.warning("the disk is full and nothing can be evicted: %s", e)

    async def _make_room(self, missing_bytes: int, manifest: Manifest) -> None:
        while True:  # again, where something was leased while others went
            taken_bytes = self.used_bytes + self.reserved_bytes
            excess_bytes = taken_bytes + missing_bytes - self.capacity_bytes
            if excess_bytes <= 0:
                return
            try:
                await self._evict(excess_bytes)
            except InsufficientCapacityError as e:
                raise InsufficientCapacityError(
                    f"the model has {manifest.size_bytes} bytes, {missing_bytes} of them not on "
                    f"this node, where {taken_bytes} of {self.capacity_bytes} bytes are taken: "
                    f"{e}; give the node more disk, or unpin or delete models"
                ) from e

    async def _evict(self, needed_bytes: int) -> None:
        if not self.evictions_allowed:
            raise InsufficientCapacityError(
                "nothing may be evicted before the CSI plugin has reported this node's mounts"
            )
        for revision in choose_evictions(self._held(), needed_bytes=needed_bytes):
            if await self._remove(revision):
                _LOG.info("evicted %s", revision)
