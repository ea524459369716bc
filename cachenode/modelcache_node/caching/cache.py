"""One node's cache: which revisions are wanted, fetched, leased, proved and kept.

The store on disk is the truth; this holds what only matters while the agent runs: fetches, the
volumes that wait, and why the last fetch of a revision failed.

Guarantees:
- a lease is on disk before its answer is given, so that a mount never lacks one;
- a volume is told of a revision only with a proof of its own pod's namespace;
- a waiting lease call returns as soon as the last chunk is in the tree.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from modelcache_api.cache_node import CacheNodeSpec
from modelcache_api.errors import InvalidRequestError
from modelcache_api.listing import ListedObject
from modelcache_api.messages import (
    Hello,
    LazyReport,
    LeaseAnswer,
    LeaseReport,
    LeaseRequest,
    LeaseState,
    NodeReport,
    RevisionReport,
    VerifyReport,
)
from modelcache_api.names import tree_path
from modelcache_api.reasons import Reason
from modelcache_node.caching.capacity import Capacity
from modelcache_node.caching.eviction import Held
from modelcache_node.caching.fetches import Fetch
from modelcache_node.caching.fetching import Fetches
from modelcache_node.caching.file_access import FileAccess
from modelcache_node.caching.listings import ListingBudget
from modelcache_node.caching.peer_starts import PeerStarts
from modelcache_node.caching.proving import Proving
from modelcache_node.caching.removing import Removals
from modelcache_node.caching.reporting import Facts, report_proof, report_revision
from modelcache_node.caching.resolving import Resolution, resolve
from modelcache_node.caching.swarms import Swarms
from modelcache_node.caching.waiting import Waiting, not_yet
from modelcache_node.store.store import Store
from modelcache_node.transfer.movers import Movers

#: Between looks whether a fetch still has grants: a session's end wakes nobody. Arbitrary.
_LOOK_S = 1.0


class Joined(NamedTuple):
    """A session's fetch, which others may share, and what its own listing resolved to."""

    fetch: Fetch
    resolution: Resolution


class Cache:
    """See the module's text. Used from one event loop."""

    def __init__(
        self,
        store: Store,
        movers: Movers,
        swarms: Swarms,
        *,
        capacity_bytes: int | None,
        now: Callable[[], float],
        clock: Callable[[], float],
        version: str,
        proof_max_age_s: float | None = None,
    ) -> None:
        """`now` is the wall clock, `clock` monotonic; both in seconds.

        `proof_max_age_s`: how long a proof holds without being renewed; None: for ever.
        """
        self._store = store
        self._movers = movers
        self._swarms = swarms
        self._now = now
        self._clock = clock
        self._version = version
        self.listings = ListingBudget()
        self._proving = Proving(store, movers, now=now, max_age_s=proof_max_age_s)
        self._removals = Removals(store, self._is_held)
        self._capacity = Capacity(
            store, limit_bytes=capacity_bytes, held=self._held, remove=self._removals.remove
        )
        self._fetching = Fetches(store, self._new_fetch, self._pulse)
        self._fetches, self._failures = self._fetching.running, self._fetching.failures
        self.files = FileAccess(store, self._fetches, self._failures)
        self._waiting = Waiting(now)
        self._wishes: dict[str, bool] = {}
        self._lazy: LazyReport | None = None
        self._changed = asyncio.Event()
        self.peer_starts = PeerStarts(
            store,
            swarms,
            self._proving,
            self._fetching,
            self._capacity,
            self._removals,
            is_awaited=self._is_awaited,
            clock=clock,
        )

    async def close(self) -> None:
        """Stop every fetch; what they have is kept."""
        await self._fetching.close()

    # -- sessions

    async def begin(self, hello: Hello, objects: Sequence[ListedObject]) -> Joined:
        """Resolve a listing, note what it proves, and join or start the fetch of its revision.

        Raises what `resolve` raises.
        """
        resolution = await resolve(
            objects,
            self._movers,
            namespace=hello.namespace,
            ca_pem=hello.ca_pem,
            layout=hello.layout,
            expected=hello.expected,
            mirrored=hello.mirrored,
        )
        async with self._removals.kept(resolution.manifest.revision):
            return await self._join(hello, resolution, objects)

    async def _join(
        self, hello: Hello, resolution: Resolution, objects: Sequence[ListedObject]
    ) -> Joined:
        await asyncio.to_thread(self._store.revisions.put_manifest, resolution.manifest)
        await self._proving.note(hello, resolution, objects)
        return Joined(await self._fetching.join(resolution), resolution)

    def _new_fetch(self, resolution: Resolution) -> Fetch:
        return Fetch(
            resolution,
            store=self._store,
            movers=self._movers,
            capacity=self._capacity,
            swarms=self._swarms,
            now=self._now,
            clock=self._clock,
        )

    async def renew(self, hello: Hello, objects: Sequence[ListedObject]) -> str:
        """As `Proving.renew`."""
        revision = await self._proving.renew(hello, objects)
        self._pulse()
        return revision

    async def confirm(self, hello: Hello, joined: Joined, objects: Sequence[ListedObject]) -> None:
        """As `Proving.confirm`, once the revision is complete; at once where it was proved."""
        if joined.resolution.by_claim:
            await self._proving.confirm(hello, joined.resolution, objects)
            self._pulse()

    # -- leases

    async def lease(self, volume_id: str, wish: LeaseRequest) -> LeaseAnswer:
        """Lease a complete revision to a volume, waiting for it up to ``wish.wait_s``."""
        deadline = self._clock() + wish.wait_s
        while True:
            changed = self._changed
            answer = await self._try_lease(volume_id, wish)
            left_s = deadline - self._clock()
            if answer.state is not LeaseState.WAITING or left_s <= 0:
                return answer
            try:
                async with asyncio.timeout(left_s):
                    await changed.wait()
            except TimeoutError:
                return await self._try_lease(volume_id, wish)

    async def _try_lease(self, volume_id: str, wish: LeaseRequest) -> LeaseAnswer:
        proof = self._proving.proof_of(wish)
        refusal = self._proving.refusal(proof) if proof else None
        revision = proof.revision if proof else None
        is_usable = proof is not None and not proof.is_provisional and refusal is None
        if not (revision and is_usable and await self._put_lease(volume_id, wish, revision)):
            if self._waiting.want(volume_id, wish):
                self._pulse()
            return refusal or self._not_yet(revision)
        if wish.lazy and not self._store.is_complete(revision):
            if self._waiting.want(volume_id, wish):
                self._pulse()
            return self._not_yet(revision).model_copy(update={"state": LeaseState.INCOMPLETE})
        if self._waiting.forget(volume_id):
            self._pulse()
        return LeaseAnswer(
            state=LeaseState.READY,
            reason=Reason.READY,
            message="complete",
            revision=revision,
            tree=tree_path(revision),
        )

    async def _put_lease(self, volume_id: str, wish: LeaseRequest, revision: str) -> bool:
        """Write a lease; False where the revision is not there, or not as `wish` needs it."""
        async with self._removals.kept(revision):
            is_here = revision in self._store.revisions.revisions()
            if not is_here or not (wish.lazy or self._store.is_complete(revision)):
                return False
            await asyncio.to_thread(
                self._store.index.put_lease,
                volume_id,
                revision=revision,
                namespace=wish.namespace,
                pod_name=wish.pod_name,
                pod_uid=wish.pod_uid,
                at=self._now(),
            )
            return True

    def _not_yet(self, revision: str | None) -> LeaseAnswer:
        if revision is None or revision not in self._store.revisions.revisions():
            return not_yet(None, self._failures.get(revision or ""))
        fetch = self._fetches.get(revision)
        return not_yet(self._report(revision), bytes_per_s=fetch.bytes_per_s if fetch else 0.0)

    async def release(self, volume_id: str) -> None:
        """Forget a volume: its lease, or that it waits. Idempotent."""
        self._waiting.forget(volume_id)
        await asyncio.to_thread(self._store.index.delete_lease, volume_id, self._now())
        self._pulse()

    async def replace_leases(self, report: LeaseReport) -> None:
        """Take the plugin's word for what is mounted; evictions may begin."""
        await asyncio.to_thread(self._store.index.replace_leases, report.leases, self._now())
        if self._lazy is None or self._lazy.lacks != report.lazy_lacks:
            self._lazy = LazyReport(lacks=report.lazy_lacks, since=self._now())
        self._capacity.allow_evictions()
        self._pulse()

    # -- what people and the operator ask for

    async def follow(self, spec: CacheNodeSpec) -> None:
        """Take the operator's wish: what to keep and to pin, and what other nodes have proved."""
        self._wishes = {model.revision: model.pinned for model in spec.models}
        self.peer_starts.wish(self._wishes)
        await self._proving.take_renewals(
            [(one.namespace, one.revision, one.at.timestamp()) for one in spec.renewals]
        )
        self._pulse()

    async def verify(self, revision: str, *, wait_s: float = 0.0) -> VerifyReport:
        """Read a revision again and drop corrupt chunks; a session's grants bring them back.

        Waits for that up to `wait_s`, and for as long as a fetch with grants is at it.
        """
        self._known(revision)
        found = await asyncio.to_thread(self._store.verify, revision)
        self._pulse()
        if found.corrupt:
            await self._mended(revision, self._clock() + wait_s)
        return VerifyReport(
            revision=revision,
            chunks=found.n_chunks,
            corrupt=sum(found.corrupt.values()),
            repaired=sum(n for key, n in found.corrupt.items() if self._store.blobs.is_sealed(key)),
            state=self._report(revision).state,
        )

    async def _mended(self, revision: str, deadline: float) -> None:
        """Wait until a revision is complete again, or nobody is at it and the time is over."""
        while not self._store.is_complete(revision):
            changed, fetch = self._changed, self._fetches.get(revision)
            left_s = deadline - self._clock()
            if left_s <= 0 and not (fetch and fetch.grants.has_sessions):
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(max(left_s, _LOOK_S)):
                    await changed.wait()

    async def evict(self, revision: str) -> RevisionReport:
        """Remove a revision now.

        Raises:
            InvalidRequestError: unknown, leased, pinned or being fetched.
        """
        report = self._known(revision)
        if report.leases or report.pinned or revision in self._fetches:
            why = "leased" if report.leases else "pinned" if report.pinned else "being fetched"
            raise InvalidRequestError(f"{revision} is {why}; it cannot be evicted")
        if not await self._removals.remove(revision):
            raise InvalidRequestError(f"{revision} has just been asked for; it cannot be evicted")
        self._pulse()
        return report.model_copy(update={"bytes_present": 0, "reason": Reason.EVICTED})

    async def pin(self, revision: str, *, pinned: bool) -> RevisionReport:
        """Keep a revision from eviction, or let it go again."""
        self._known(revision)
        await asyncio.to_thread(self._store.index.set_pinned, revision, pinned=pinned)
        self._pulse()
        return self._report(revision)

    def _known(self, revision: str) -> RevisionReport:
        self._store.revisions.manifest(revision)  # raises for an unknown one
        return self._report(revision)

    # -- reports

    def report(self) -> NodeReport:
        """What this node's agent says of itself. Cheap; touches no disk but for its size."""
        return NodeReport(
            version=self._version,
            boot_id=str(self._store.boot_id),
            store_id=str(self._store.store_id),
            capacity_bytes=self._capacity.capacity_bytes,
            used_bytes=self._capacity.used_bytes,
            reserved_bytes=self._capacity.reserved_bytes,
            leases_reported=self._capacity.evictions_allowed,
            revisions=[self._report(one) for one in self._store.revisions.revisions()],
            proofs=[report_proof(proof) for proof in self._store.index.proofs],
            wanted=self._waiting.report(),
            lazy=self._lazy,
        )

    def metrics(self) -> dict[str, float]:
        """Counters and gauges, by name without prefix."""
        moved = self._movers.stats()
        return {
            "capacity_bytes": self._capacity.capacity_bytes,
            "used_bytes": self._capacity.used_bytes,
            "reserved_bytes": self._capacity.reserved_bytes,
            "leases": len(self._store.index.leases),
            "fetches": len(self._fetches),
            "received_bytes_total": moved.bytes_received,
            "origin_requests_total": self._movers.from_origins.requests,
            "origin_received_bytes_total": self._movers.from_origins.bytes,
            "peer_requests_total": self._movers.from_peers.requests,
            "peer_received_bytes_total": self._movers.from_peers.bytes,
            "ranges_total": moved.ranges,
            "retries_total": moved.retries,
            "throttled_total": moved.throttled,
            "mover_restarts_total": moved.restarts,
            "mover_cpu_seconds_total": moved.cpu_seconds,
        }

    def _report(self, revision: str) -> RevisionReport:
        fetch = self._fetches.get(revision)
        index = self._store.index
        return report_revision(
            Facts(
                self._store.revisions.manifest(revision),
                is_complete=self._store.is_complete(revision),
                bytes_on_disk=0 if fetch else self._store.bytes_present(revision),
                leases=sum(leased == revision for leased in index.leases.values()),
                pinned=self._is_pinned(revision),
                last_used_at=index.last_used.get(revision),
                moved=index.moved.get(revision, (0, 0)),
                tally=fetch.tally if fetch else None,
                is_fed=bool(fetch and fetch.is_fed),
                failure=self._failures.get(revision),
            )
        )

    def _held(self) -> Iterator[Held]:
        """Revisions of this node as evictions see them."""
        leased = set(self._store.index.leases.values())
        for revision in self._store.revisions.revisions():
            blobs = self._store.revisions.manifest(revision).blobs
            yield Held(
                revision,
                {key: self._store.blobs.allocated_bytes(key) for key in blobs},
                self._store.index.last_used.get(revision, 0.0),
                is_wished=revision in self._wishes,
                is_held=revision in leased or self._removals.is_kept(revision),
            )

    def _is_held(self, revision: str) -> bool:
        is_leased = revision in self._store.index.leases.values()
        return is_leased or self._is_pinned(revision) or revision in self._fetches

    def _is_awaited(self, revision: str) -> bool:
        proofs = map(self._proving.proof_of, self._waiting.wishes)
        return any(proof is not None and proof.revision == revision for proof in proofs)

    def _is_pinned(self, revision: str) -> bool:
        return revision in self._store.index.pins or self._wishes.get(revision, False)

    def _pulse(self) -> None:
        """Wake whoever waits for a change."""
        self._changed.set()
        self._changed = asyncio.Event()
