"""This node among others: its part in each revision's swarm, and what it tells neighbours.

A revision that is being fetched is told of by its download; one that is complete, from the journals
of its sealed blobs. Of anything else this node knows nothing.
"""

import asyncio
import random
import secrets
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress

from modelcache_api.chunk_slots import ChunkSlots
from modelcache_api.claims import pack_answer, unpack_claim
from modelcache_api.errors import InvalidRequestError
from modelcache_api.manifest import Manifest
from modelcache_node.caching.members import Members, MembersOf
from modelcache_node.caching.ordering import is_early
from modelcache_node.caching.swarm_links import NO_SLOTS, PeerCalls, SwarmLink
from modelcache_node.store.store import Store
from modelcache_node.swarm.holdings import Holdings
from modelcache_node.swarm.limits import SwarmLimits
from modelcache_node.swarm.origin_duty import ClaimState
from modelcache_node.swarm.policy import Swarm

#: Complete revisions whose checksums are kept in memory for neighbours. Arbitrary; one of a model
#: of 1 TB takes a mebibyte.
MAX_KEPT = 8
_KEY_DIGITS = 64
#: Of a node that nobody else knows.
_ALONE = "alone"


class Swarms:
    """See the module. A `peers.api.SwarmHost`. Used from one event loop."""

    def __init__(
        self,
        store: Store,
        *,
        clock: Callable[[], float],
        origin_limit_bytes_per_s: int | None = None,
        uniform: Callable[[], float] = random.random,
        random_bits: Callable[[int], int] = secrets.randbits,
    ) -> None:
        """Alone, until it is connected. `clock` is monotonic, in seconds.

        `origin_limit_bytes_per_s`: of each revision, where nobody said what this node's share is.
        """
        self._origin_limit_bytes_per_s = origin_limit_bytes_per_s
        self._store = store
        self._clock = clock
        self._uniform = uniform
        self._random_bits = random_bits
        #: Asks others; None: there are none.
        self.calls: PeerCalls | None = None
        self._me = _ALONE
        self._members_of: MembersOf = lambda _: Members()
        self._uploads_queued: Callable[[], int] = lambda: 0
        self._links: dict[str, SwarmLink] = {}
        self._kept: OrderedDict[str, Holdings] = OrderedDict()

    def connect(
        self,
        me: str,
        calls: PeerCalls,
        members_of: MembersOf,
        uploads_queued: Callable[[], int],
    ) -> None:
        """Join others, by the name `me`."""
        self._me = me
        self.calls = calls
        self._members_of = members_of
        self._uploads_queued = uploads_queued

    def sharers(self, revision: str) -> list[str]:
        """Addresses of others that share a revision, in any order."""
        members = self._members_of(revision) if self.calls else None
        addresses = [one.address for one in members.neighbours] if members else []
        return sorted(addresses, key=lambda _: self._uniform())

    def join(self, manifest: Manifest, slots: ChunkSlots, *, origin_requests: int) -> SwarmLink:
        """Begin this node's part in a revision's swarm; `leave` in any case."""
        revision = manifest.revision
        policy = Swarm(
            self._me,
            slots,
            instance=self._random_bits(64),
            uniform=self._uniform,
            now=self._clock(),
            limits=SwarmLimits(origin_requests=origin_requests),
        )
        early = [key for key, file in manifest.blobs.items() if is_early(file)]
        policy.prefer(slot for key in early for slot in slots.slots_of(key))
        link = SwarmLink(
            revision,
            policy,
            me=self._me,
            calls=self.calls,
            members=lambda: self._members_of(revision),
            clock=self._clock,
            origin_limit_bytes_per_s=self._origin_limit_bytes_per_s,
        )
        self._links[revision] = link
        return link

    def leave(self, revision: str, link: SwarmLink) -> None:
        """The download ended. If it was to the good, neighbours go on with what they know."""
        link.stop()
        if self._links.get(revision) is link:
            del self._links[revision]
        if link.policy.holdings.bits.bit_count() == link.policy.n_slots:
            self._keep(revision, link.policy.holdings)
        link.pulse()

    # -- what neighbours ask

    def manifest(self, revision: str) -> bytes | None:
        found = self._store.revisions.find(revision)
        return found.canonical() if found else None

    def proofs(self, revision: str) -> bytes | None:
        """Those of this node that let a namespace use the revision; the newest first."""
        # not at the top: pydantic's loading takes longer than much that a pull does
        from modelcache_api.peer_proofs import PassedProof, pack_proofs  # noqa: PLC0415

        found = [
            PassedProof(
                namespace=proof.namespace,
                model_cache=proof.model_cache,
                model_cache_uid=proof.model_cache_uid,
                request=proof.request,
                at=proof.at,
                renewed_at=proof.renewed_at,
                root=proof.root,
            )
            for proof in reversed(self._store.index.proofs)
            if proof.revision == revision and not proof.is_provisional
        ]
        return pack_proofs(found) if found else None

    async def have(
        self, revision: str, asker: str, *, instance: int, since: int, wait_s: float
    ) -> bytes | None:
        deadline = self._clock() + wait_s
        while True:
            link = self._links.get(revision)
            if link is None:
                return await self._have_complete(revision, instance, since)
            changed = link.changed
            could_fetch = link.policy.can_fetch
            told = link.map_for(asker, instance, since, self._uploads_queued())
            left_s = deadline - self._clock()
            if told.version > told.since or told.instance != instance or left_s <= 0:
                link.told(asker)
                return told.pack()
            with suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await changed.wait()
            if link.policy.can_fetch != could_fetch:
                deadline = self._clock()

    def claim(self, revision: str, asker: str, body: bytes) -> bytes | None:
        try:
            slots = unpack_claim(body)
        except InvalidRequestError:
            return None
        link = self._links.get(revision)
        if link is not None:
            known = [slot for slot in slots if slot < link.policy.n_slots]
            states = link.policy.serve_claim(known, link.name_at(asker), self._clock())
            return pack_answer(states)
        if self._is_sealed(revision):
            return pack_answer([ClaimState.SEEN_TO] * len(slots))
        return None

    def holders(self, blob: str, index: int, asker: str) -> tuple[str, ...]:
        key = blob[:_KEY_DIGITS]
        for link in self._links.values():
            slot = link.policy.slots.find(key, index)
            if slot is not None:
                return link.holders(slot, asker)
        return ()

    async def _have_complete(self, revision: str, instance: int, since: int) -> bytes | None:
        if not self._is_sealed(revision):
            self._kept.pop(revision, None)
            return None
        holdings = self._kept.get(revision)
        if holdings is None:
            try:
                holdings = await asyncio.to_thread(self._load, revision)
            except (FileNotFoundError, InvalidRequestError):  # evicted meanwhile
                return None
            self._keep(revision, holdings)
        return holdings.map_since(
            instance,
            since,
            can_fetch=False,
            fetching=NO_SLOTS,
            uploads_queued=self._uploads_queued(),
        ).pack()

    def _is_sealed(self, revision: str) -> bool:
        """Every blob is here, whether or not the tree is published yet."""
        return revision in self._store.revisions.revisions() and self._store.is_sealed(revision)

    def _load(self, revision: str) -> Holdings:
        manifest = self._store.revisions.manifest(revision)
        slots = ChunkSlots.of(manifest)
        holdings = Holdings(slots.n_slots, self._random_bits(64))
        for key, file in manifest.blobs.items():
            found = self._store.blobs.checksums(key, file.size_bytes)
            for slot, (crc32c, crc64nvme) in zip(slots.slots_of(key), found, strict=True):
                holdings.add(slot, crc32c, crc64nvme, vouched=True)
        return holdings

    def _keep(self, revision: str, holdings: Holdings) -> None:
        self._kept[revision] = holdings
        self._kept.move_to_end(revision)
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
