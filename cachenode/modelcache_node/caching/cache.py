"""One node's cache: which revisions are wanted, fetched, leased, proved and kept.

The store on disk is the truth; this holds what only matters while the agent runs: fetches, the
volumes that wait, and why the last fetch of a revision failed.

Guarantees:
- a lease is on disk before its answer is given, so that a mount never lacks one;
- a volume is told of a revision only with a proof of its own pod's namespace;
- a waiting lease call returns as soon as the last chunk is in the tree.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from modelcache_api.errors import (
    InvalidRequestError,
    ModelCacheError,
    NotProvedError,
    SourceChangedError,
)
from modelcache_api.messages import (
    Hello,
    LeaseAnswer,
    LeaseReport,
    LeaseRequest,
    LeaseState,
    ListedObject,
    NodeReport,
    RevisionReport,
    VerifyReport,
    WantedReport,
)
from modelcache_api.names import tree_path
from modelcache_api.reasons import Reason
from modelcache_node.caching.capacity import Capacity
from modelcache_node.caching.fetches import Fetch
from modelcache_node.caching.reporting import Failure, report_revision
from modelcache_node.caching.resolving import resolve
from modelcache_node.store.store import Store
from modelcache_node.transfer.movers import Movers

_LOG = logging.getLogger(__name__)

#: A volume that waits asks again within the kubelet's back-off of 2 min 2 s plus one call's two
#: minutes; one that has not for this long is gone.
WANTED_S = 600.0
#: Failures remembered for reports. Arbitrary.
MAX_FAILURES = 256


@dataclass(frozen=True, slots=True)
class _Wanted:
    request: LeaseRequest
    since: float
    renewed_at: float


class Cache:
    """See the module's text. Used from one event loop."""

    def __init__(
        self,
        store: Store,
        movers: Movers,
        capacity: Capacity,
        *,
        now: Callable[[], float],
        clock: Callable[[], float],
        version: str,
    ) -> None:
        """`now` is the wall clock, `clock` monotonic; both in seconds."""
        self._store = store
        self._movers = movers
        self._capacity = capacity
        self._now = now
        self._clock = clock
        self._version = version
        self._fetches: dict[str, Fetch] = {}
        self._failures: OrderedDict[str, Failure] = OrderedDict()
        self._wanted: dict[str, _Wanted] = {}
        self._changed = asyncio.Event()

    async def close(self) -> None:
        """Stop every fetch; what they have is kept."""
        for fetch in list(self._fetches.values()):
            await fetch.cancel()

    # -- sessions

    async def begin(self, hello: Hello, objects: Sequence[ListedObject]) -> Fetch:
        """Resolve a listing, record its proof, and join or start the fetch of its revision."""
        resolution = await resolve(
            objects, self._movers, namespace=hello.namespace, ca_pem=hello.ca_pem
        )
        revision = await asyncio.to_thread(self._store.revisions.put_manifest, resolution.manifest)
        await asyncio.to_thread(
            self._store.index.put_proof,
            namespace=hello.namespace,
            model_cache=hello.model_cache,
            model_cache_uid=hello.model_cache_uid,
            request=hello.request,
            revision=revision,
            at=self._now(),
        )
        fetch = self._fetches.get(revision)
        if fetch is None:
            fetch = Fetch(
                resolution,
                store=self._store,
                movers=self._movers,
                capacity=self._capacity,
                now=self._now,
                clock=self._clock,
            )
            self._fetches[revision] = fetch
            self._failures.pop(revision, None)
            fetch.start(self._ended)
        self._pulse()
        return fetch

    def _ended(self, fetch: Fetch, error: ModelCacheError | None) -> None:
        del self._fetches[fetch.revision]
        if error is not None:
            self._failures[fetch.revision] = Failure(error.reason, str(error))
            while len(self._failures) > MAX_FAILURES:
                self._failures.popitem(last=False)
            if isinstance(error, SourceChangedError):
                self._store.abandon(fetch.revision)
        self._pulse()

    # -- leases

    async def lease(self, volume_id: str, wish: LeaseRequest) -> LeaseAnswer:
        """Lease a complete revision to a volume, waiting for it up to ``wish.wait_s``."""
        deadline = self._clock() + wish.wait_s
        while True:
            changed = self._changed
            answer = await self._try_lease(volume_id, wish)
            left_s = deadline - self._clock()
            if answer.state is LeaseState.READY or left_s <= 0:
                return answer
            try:
                async with asyncio.timeout(left_s):
                    await changed.wait()
            except TimeoutError:
                return await self._try_lease(volume_id, wish)

    async def _try_lease(self, volume_id: str, wish: LeaseRequest) -> LeaseAnswer:
        revision = self._proved_revision(wish)
        if revision is None or not self._store.is_complete(revision):
            self._want(volume_id, wish)
            return self._waiting(revision)
        await asyncio.to_thread(
            self._store.index.put_lease,
            volume_id,
            revision=revision,
            namespace=wish.namespace,
            pod_name=wish.pod_name,
            pod_uid=wish.pod_uid,
            at=self._now(),
        )
        if self._wanted.pop(volume_id, None):
            self._pulse()
        return LeaseAnswer(
            state=LeaseState.READY,
            reason=Reason.READY,
            message="complete",
            revision=revision,
            tree=tree_path(revision),
        )

    def _proved_revision(self, wish: LeaseRequest) -> str | None:
        """The revision a wish is for, if its namespace has a proof of it.

        Raises:
            NotProvedError: a revision is named that the namespace holds no proof of.
        """
        proofs = [
            proof
            for proof in self._store.index.proofs()
            if proof.namespace == wish.namespace
            and (
                proof.revision == wish.revision
                if wish.revision
                else proof.model_cache_uid == wish.model_cache_uid
                if wish.model_cache_uid
                else proof.model_cache == wish.model_cache
            )
        ]
        if proofs:
            return max(proofs, key=lambda proof: proof.at).revision
        return None

    def _waiting(self, revision: str | None) -> LeaseAnswer:
        if revision is None:
            return LeaseAnswer(
                state=LeaseState.WAITING,
                reason=Reason.NOT_PROVED,
                message="no prefetch Job of this namespace has reached this node yet",
            )
        report = self._report(revision)
        fetch = self._fetches.get(revision)
        return LeaseAnswer(
            state=LeaseState.WAITING,
            reason=report.reason,
            message=report.message,
            revision=revision,
            bytes_present=report.bytes_present,
            bytes_total=report.bytes_total,
            bytes_per_s=fetch.bytes_per_s if fetch else 0.0,
        )

    def _want(self, volume_id: str, wish: LeaseRequest) -> None:
        now = self._now()
        known = self._wanted.get(volume_id)
        self._wanted[volume_id] = _Wanted(wish, known.since if known else now, now)
        if known is None:
            self._pulse()

    async def release(self, volume_id: str) -> None:
        """Forget a volume: its lease, or that it waits. Idempotent."""
        self._wanted.pop(volume_id, None)
        await asyncio.to_thread(self._store.index.delete_lease, volume_id)
        self._pulse()

    async def replace_leases(self, report: LeaseReport) -> None:
        """Take the plugin's word for what is mounted; evictions may begin."""
        await asyncio.to_thread(self._store.index.replace_leases, report.leases, self._now())
        self._capacity.allow_evictions()
        self._pulse()

    # -- what people and the operator ask for

    async def verify(self, revision: str) -> VerifyReport:
        """Read a revision again; corrupt chunks are dropped, and fetched again where a session
        still grants them.
        """
        self._known(revision)
        n_chunks, corrupt = await asyncio.to_thread(self._store.verify, revision)
        return VerifyReport(
            revision=revision,
            chunks=n_chunks,
            corrupt=corrupt,
            repaired=0,
            state=self._report(revision).state,
        )

    async def evict(self, revision: str) -> RevisionReport:
        """Remove a revision now.

        Raises:
            InvalidRequestError: unknown, leased, pinned or being fetched.
        """
        report = self._known(revision)
        if report.leases or report.pinned or revision in self._fetches:
            why = "leased" if report.leases else "pinned" if report.pinned else "being fetched"
            raise InvalidRequestError(f"{revision} is {why}; it cannot be evicted")
        await asyncio.to_thread(self._store.delete, revision)
        self._pulse()
        return report.model_copy(update={"bytes_present": 0, "reason": Reason.EVICTED})

    async def pin(self, revision: str, *, pinned: bool) -> RevisionReport:
        self._known(revision)
        await asyncio.to_thread(self._store.index.set_pinned, revision, pinned=pinned)
        self._pulse()
        return self._report(revision)

    def _known(self, revision: str) -> RevisionReport:
        if revision not in self._store.revisions.list():
            raise InvalidRequestError(f"this node has no revision {revision[:80]!r}")
        return self._report(revision)

    # -- reports

    def report(self) -> NodeReport: ...

    def _pulse(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
