"""Revisions that this node should keep and no Job brings: begun from peers, with their proofs.

While a store is away no session comes, and yet the cluster may hold what the operator wants here.
A neighbour then gives the manifest, whose digest is the revision, and the proofs that its own agent
has: so a namespace may use here what it was proved to read there. Only full proofs are passed on,
and they grow no younger on the way (ADR 18).

Guarantees:
- a session's fetch is left alone, and one that comes later takes over;
- without a proof nothing is fetched, and without a waiting pod nothing is evicted for it;
- at most MAX_ASKED neighbours are asked for one revision per PAUSE_S.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable

from modelcache_api.blob_key import Place
from modelcache_api.errors import InvalidRequestError, ModelCacheError
from modelcache_api.manifest import Manifest
from modelcache_api.peer_proofs import unpack_proofs
from modelcache_node.caching.capacity import Capacity
from modelcache_node.caching.fetching import Fetches
from modelcache_node.caching.proving import Proving
from modelcache_node.caching.removing import Removals
from modelcache_node.caching.resolving import BlobSource, Resolution
from modelcache_node.caching.swarms import Swarms
from modelcache_node.store.store import Store
from modelcache_node.transfer.peer_ranges import PeerError

_LOG = logging.getLogger(__name__)

#: A Job gets so long to begin a session first, which brings grants as well. Arbitrary: above what
#: a pod's start takes where the store answers.
JOB_PATIENCE_S = 10.0
#: Between two attempts at one revision. Arbitrary.
PAUSE_S = 10.0
#: Between looks at what is wished. Arbitrary.
_LOOK_S = 1.0
#: Neighbours asked in one attempt.
MAX_ASKED = 4
#: No origin: unsealed chunks of blobs named by their content are kept apart under it.
_NOWHERE = Place("peer", "", 0, "")


class PeerStarts:
    """See the module. Used from one event loop."""

    def __init__(
        self,
        store: Store,
        swarms: Swarms,
        proving: Proving,
        fetches: Fetches,
        capacity: Capacity,
        removals: Removals,
        *,
        is_awaited: Callable[[str], bool],
        clock: Callable[[], float],
    ) -> None:
        """`is_awaited`: whether a volume waits for a revision; `clock` is monotonic, in seconds."""
        self._store = store
        self._swarms = swarms
        self._proving = proving
        self._fetches = fetches
        self._capacity = capacity
        self._removals = removals
        self._is_awaited = is_awaited
        self._clock = clock
        self._due_at: dict[str, float] = {}

    def wish(self, revisions: Iterable[str]) -> None:
        """What this node should keep, from now on."""
        first_at = self._clock() + JOB_PATIENCE_S
        self._due_at = {name: self._due_at.get(name, first_at) for name in revisions}

    async def run(self) -> None:
        """Look now and then, until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_S)
            await self.look()

    async def look(self) -> None:
        """Begin what is due."""
        now, proved = self._clock(), self._proving.proved()
        for revision in [one for one, due_at in self._due_at.items() if now >= due_at]:
            is_wished = revision in self._due_at  # still, after what was begun before
            if not is_wished or (revision in proved and self._is_coming(revision)):
                continue
            self._due_at[revision] = now + PAUSE_S
            try:
                async with self._removals.kept(revision):
                    await self._begin(revision)
            except ModelCacheError as e:  # the disk's
                _LOG.warning("%s is not begun from peers: %s", revision, e)

    def _is_coming(self, revision: str) -> bool:
        return self._store.is_complete(revision) or revision in self._fetches.running

    async def _begin(self, revision: str) -> None:
        manifest = self._store.revisions.find(revision)
        for peer in self._swarms.sharers(revision)[:MAX_ASKED]:
            if manifest is not None and revision in self._proving.proved():
                break
            try:
                manifest = manifest or await self._manifest_of(peer, revision)
                await self._take_proofs(peer, revision)
            except (PeerError, InvalidRequestError) as e:
                _LOG.info("%s: %s", revision, e)
        if manifest is None or revision not in self._proving.proved() or self._is_coming(revision):
            return
        if self._is_awaited(revision) or self._capacity.has_room_for(manifest):
            _LOG.info("%s: no Job brings it; fetching from peers", revision)
            await asyncio.to_thread(self._store.revisions.put_manifest, manifest)
            await self._fetches.join(_of_peers(manifest))

    async def _manifest_of(self, peer: str, revision: str) -> Manifest:
        calls = self._swarms.calls
        assert calls is not None
        return Manifest.parse(await calls.manifest(peer, revision))

    async def _take_proofs(self, peer: str, revision: str) -> None:
        calls = self._swarms.calls
        assert calls is not None
        passed = unpack_proofs(await calls.proofs(peer, revision))
        await self._proving.take_passed(revision, passed)


def _of_peers(manifest: Manifest) -> Resolution:
    """A revision whose bytes only peers give: no grant leads to any of its blobs."""
    sources = {key: BlobSource(file, "", _NOWHERE) for key, file in manifest.blobs.items()}
    return Resolution(manifest, sources, namespace="", ca_pem=None, root="")
