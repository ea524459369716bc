"""One reconcile: read what is known, plan, write the difference.

Level-triggered: a key says where to look, never what happened. What was written is taken into the
snapshot at once, so that the next pass does not act on a state that is already history.
"""

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from modelcache_api.cache_node import MAX_MODELS, CacheNodeSpec, SwarmLists, WantedModel
from modelcache_api.model_cache import ModelCache, ModelCacheStatus
from modelcache_api.reasons import Reason
from modelcache_operator.handlers.explanations import Explanations, Reader
from modelcache_operator.handlers.keeps import Keeps
from modelcache_operator.handlers.notes import Notes, Poster
from modelcache_operator.handlers.renewing import Renewals
from modelcache_operator.handlers.sight import Sight
from modelcache_operator.handlers.snapshot import (
    AccessKey,
    Key,
    ModelCacheKey,
    NodeKey,
    Snapshot,
)
from modelcache_operator.handlers.work_queue import WorkQueue
from modelcache_operator.kube.client import CACHE_NODES, JOBS, MODEL_CACHES, KubeError
from modelcache_operator.planning.explaining import shown
from modelcache_operator.planning.job_arguments import JobSettings, JobWish
from modelcache_operator.planning.jobs import job_manifest
from modelcache_operator.planning.observed import CacheView, NodeView, Observed, Refusal, Said
from modelcache_operator.planning.placement import is_live
from modelcache_operator.planning.reconcile import Plan, plan, plan_gone, spec_of
from modelcache_operator.planning.swarms import Peer, limit_for_one, peers_of, swarms_for

log = logging.getLogger(__name__)

#: Progress in bytes alone is written at most this often per ModelCache, seconds.
_BYTES_PAUSE_S = 10.0
#: Progress in nodes, too: a thousand nodes that finish within a minute are not a thousand writes.
_COUNTS_PAUSE_S = 2.0
#: A Job that the API server refused (a quota, a policy) is tried again after this; the first time
#: sooner, as a policy may not have seen yet what the ModelCache says now.
_REFUSED_PAUSE = timedelta(seconds=30)
_FIRST_REFUSED_PAUSE = timedelta(seconds=2)
#: Between two looks at what a spec would lose, seconds: one from half the plans would have models
#: evicted that the other half wants.
_SECOND_LOOK_S = 1.0
#: A namespace's proofs are looked at so long after one of its ModelCaches was, seconds. Arbitrary.
ACCESS_PAUSE_S = 5.0
#: For how long agents take a proof of access, unless both are told otherwise.
PROOF_MAX_AGE = timedelta(hours=24)


class Kube(Reader, Poster, Protocol):
    """What a reconcile asks of the API server; see `kube.client.KubeClient`."""

    async def create_job(self, manifest: dict[str, Any]) -> dict[str, Any] | None: ...
    async def delete_job(self, namespace: str, name: str, uid: str) -> None: ...
    async def write_model_cache_status(
        self, namespace: str, name: str, status: Mapping[str, Any]
    ) -> dict[str, Any] | None: ...
    async def create_cache_node(self, name: str, node_uid: str) -> dict[str, Any] | None: ...
    async def write_cache_node_spec(
        self, name: str, spec: Mapping[str, Any]
    ) -> dict[str, Any] | None: ...


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the administrator bounds.

    Attributes:
        proof_max_age: For how long agents take a proof of access.
        origin_bytes_per_s: What all agents may read from sources together; None: no limit.
    """

    proof_max_age: timedelta = PROOF_MAX_AGE
    origin_bytes_per_s: int | None = None


class Reconciler:
    """Brings what one key names to where it should be; never two at a time for one key."""

    def __init__(
        self,
        snapshot: Snapshot,
        queue: WorkQueue[Key],
        kube: Kube,
        *,
        sight: Sight,
        settings: Callable[[], JobSettings],
        now: Callable[[], datetime],
        clock: Callable[[], float],
        bounds: Bounds | None = None,
    ) -> None:
        self._bounds = bounds or Bounds()
        self._limit_for_one: int | None = None
        self._snapshot = snapshot
        self._queue = queue
        self._kube = kube
        self._sight = sight
        self._explanations = Explanations(kube)
        self._notes = Notes(kube, now=now)
        self._settings = settings
        self._now = now
        self._clock = clock
        self._keeps = Keeps()
        self._refused: dict[ModelCacheKey, dict[str, Refusal]] = {}
        self._written_at: dict[ModelCacheKey, float] = {}
        self._dropping: dict[NodeKey, frozenset[WantedModel]] = {}
        self._renewals = Renewals(
            snapshot, queue, kube, settings=settings, max_age=self._bounds.proof_max_age
        )

    async def reconcile(self, key: Key) -> None:
        """Raises KubeError: the API server is away; the same key again later."""
        if isinstance(key, NodeKey):
            await self._reconcile_node(key)
        elif isinstance(key, AccessKey):
            await self._renewals.reconcile(key, self._now())
        elif (model_cache := self._snapshot.model_caches.get((key.namespace, key.name))) is None:
            await self._reconcile_gone(key)
        else:
            await self._reconcile_model_cache(key, model_cache)

    # -- ModelCache

    async def _reconcile_model_cache(self, key: ModelCacheKey, model_cache: ModelCache) -> None:
        jobs = await self._explanations.explain(self._snapshot.jobs_of(key), self._now())
        now = self._now()
        seen = Observed(
            model_cache=model_cache,
            nodes=self._snapshot.nodes,
            caches=self._sight.fair(self._snapshot.caches, now),
            jobs=jobs,
            refused=self._refused.get(key, {}),
            now=now,
            proof_max_age=self._bounds.proof_max_age,
        )
        planned = plan(seen)
        self._look_at_nodes(self._keeps.put(key, planned.keep))
        await self._delete_jobs(planned)
        await self._create_jobs(key, model_cache, planned)
        await self._write_status(key, model_cache, planned)
        await self._notes.post(model_cache, planned.notes)
        self._look_again(key, planned)
        self._queue.add_later(AccessKey(key.namespace), ACCESS_PAUSE_S)

    async def _reconcile_gone(self, key: ModelCacheKey) -> None:
        self._look_at_nodes(self._keeps.drop(key))
        self._refused.pop(key, None)
        self._written_at.pop(key, None)
        planned = plan_gone(
            (key.namespace, key.name),
            self._snapshot.jobs_of(key),
            self._snapshot.caches,
            self._now(),
        )
        await self._delete_jobs(planned)
        self._look_again(key, planned)

    async def _delete_jobs(self, planned: Plan) -> None:
        for job in planned.delete:
            log.info("deleting Job %s/%s (node %s)", job.namespace, job.name, job.node)
            await self._kube.delete_job(job.namespace, job.name, job.uid)

    async def _create_jobs(
        self, key: ModelCacheKey, model_cache: ModelCache, planned: Plan
    ) -> None:
        refused = self._refused.setdefault(key, {})
        settings = self._settings() if planned.create else None
        for wish in planned.create:
            assert settings is not None
            node = self._snapshot.nodes[wish.node]
            manifest = job_manifest(model_cache, wish, node, settings)
            try:
                created = await self._kube.create_job(manifest)
            except KubeError as e:
                if not e.is_refusal:
                    raise
                self._note_refusal(key, wish, e)
                continue
            refused.pop(wish.node, None)
            log.info("created Job %s for node %s", manifest["metadata"]["name"], wish.node)
            if created:
                self._snapshot.put(JOBS, created)
            self._queue.add(key)  # the status should say what has just begun
        if not refused:
            self._refused.pop(key, None)

    def _note_refusal(self, key: ModelCacheKey, wish: JobWish, error: KubeError) -> None:
        said = Said(Reason.JOB_PENDING, shown(f"the Job was refused: {error.words}"))
        log.warning("%s: node %s: %s", key, wish.node, said.message)
        refused = self._refused[key]
        pause = _REFUSED_PAUSE if wish.node in refused else _FIRST_REFUSED_PAUSE
        refused[wish.node] = Refusal(said, self._now() + pause)
        self._queue.add(key)  # the status should say so

    async def _write_status(
        self, key: ModelCacheKey, model_cache: ModelCache, planned: Plan
    ) -> None:
        status = planned.status
        if status is None or status == model_cache.status:
            return
        since_s = self._clock() - self._written_at.get(key, float("-inf"))
        pause_s = _pause_before(model_cache.status, status)
        if since_s < pause_s:
            self._queue.add_later(key, pause_s - since_s)
            return
        written = await self._kube.write_model_cache_status(
            key.namespace, key.name, _replacing(model_cache.status, status)
        )
        self._written_at[key] = self._clock()
        if written:
            self._snapshot.put(MODEL_CACHES, written)

    def _look_at_nodes(self, names: Collection[str]) -> None:
        for name in names:
            self._queue.add(NodeKey(name))

    def _look_again(self, key: ModelCacheKey, planned: Plan) -> None:
        if planned.again_at is not None:
            delay_s = (planned.again_at - self._now()).total_seconds()
            self._queue.add_later(key, delay_s)

    # -- CacheNode

    async def _reconcile_node(self, key: NodeKey) -> None:
        node = self._snapshot.nodes.get(key.name)
        cache = self._snapshot.caches.get(key.name)
        if node is None or not node.is_linux:
            return  # the garbage collector takes the CacheNode of a Node that is gone
        if cache is None:
            created = await self._kube.create_cache_node(node.name, node.uid)
            if created:
                log.info("created CacheNode %s", node.name)
                concerned = self._snapshot.put(CACHE_NODES, created)
                for other in concerned:
                    self._queue.add(other)
            return
        spec = self._spec_for(key, cache)
        if spec != cache.spec and self._is_heard(node, cache):
            written = await self._kube.write_cache_node_spec(node.name, spec.wire())
            if written:
                self._snapshot.put(CACHE_NODES, written)

    def _spec_for(self, key: NodeKey, cache: CacheView) -> CacheNodeSpec:
        """What a node should keep, and with whom it shares that.

        An agent may evict at once what is not listed: a model leaves the list at the second look
        without it, and not before every ModelCache has been planned. What is new waits for neither.
        """
        renewals = self._renewals.renewals_for(cache)
        spec = spec_of(key.name, self._keeps.values(), limit=MAX_MODELS, renewals=renewals)
        lost = frozenset(cache.spec.models).difference(spec.models)
        is_certain = all(
            ModelCacheKey(*name) in self._keeps for name in self._snapshot.model_caches
        )
        doubtful = lost - self._dropping.get(key, frozenset()) if is_certain else lost
        self._dropping[key] = lost if is_certain else frozenset()
        if doubtful:
            self._queue.add_later(key, _SECOND_LOOK_S)
            keeps = [*self._keeps.values(), {key.name: doubtful}]
            spec = spec_of(key.name, keeps, limit=MAX_MODELS, renewals=renewals)
        return spec.model_copy(update={"swarms": self._swarms_of(cache, spec)})

    def _swarms_of(self, cache: CacheView, spec: CacheNodeSpec) -> tuple[SwarmLists, ...]:
        """Whom a node shares with what `spec` has it keep."""
        now = self._now()
        caches = self._sight.fair(self._snapshot.caches, now)

        def peers(revision: str) -> tuple[Peer, ...]:
            keepers = self._keeps.keepers(revision)
            return peers_of(revision, keepers, self._snapshot.nodes, caches, now)

        revisions = [model.revision for model in spec.models]
        limit = self._limit_of_a_revision()
        return swarms_for(cache, revisions, peers, now, origin_bytes_per_s=limit)

    def _limit_of_a_revision(self) -> int | None:
        """Of the sources' limit; where it is another now, all who lack something are to be told."""
        if self._bounds.origin_bytes_per_s is None:
            return None
        active = {
            one.status.revision
            for one in self._snapshot.model_caches.values()
            if one.status.nodes.ready < one.status.nodes.desired
        }
        limit = limit_for_one(self._bounds.origin_bytes_per_s, len(active))
        if limit != self._limit_for_one:
            self._limit_for_one = limit
            self._look_at_nodes(self._snapshot.nodes)
        return limit

    def _is_heard(self, node: NodeView, cache: CacheView) -> bool:
        """Whether an agent reads its spec: the plans think little of a silent one's node."""
        fair = self._sight.fair({node.name: cache}, self._now())
        return is_live(node, fair[node.name], self._now())


def _pause_before(before: ModelCacheStatus, after: ModelCacheStatus) -> float:
    """How long after the last write `after` may have to wait: transitions never do, seconds."""
    if before.model_copy(update={"bytes": after.bytes}) == after:
        return _BYTES_PAUSE_S
    if _transitions(before) != _transitions(after) or before.revision != after.revision:
        return 0.0
    return _COUNTS_PAUSE_S


def _transitions(status: ModelCacheStatus) -> list[tuple[str, ...]]:
    return [
        (condition.type, condition.status, condition.reason, str(condition.observed_generation))
        for condition in status.conditions
    ]


def _replacing(before: ModelCacheStatus, after: ModelCacheStatus) -> dict[str, Any]:
    """`after` as a merge patch: what it has no more becomes null."""
    wire = after.wire()
    return {key: None for key in before.wire() if key not in wire} | wire
