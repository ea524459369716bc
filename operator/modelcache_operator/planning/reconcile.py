"""The whole decision about one ModelCache: from what was read to what to write."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from modelcache_api.cache_node import CacheNodeSpec, Proof, Renewal, Wanted, WantedModel
from modelcache_api.model_cache import (
    ConditionType,
    ModelCache,
    ModelCacheStatus,
    Prefetch,
)
from modelcache_api.objects import ConditionStatus
from modelcache_operator.planning.assessing import NodeStanding, Standing, assess
from modelcache_operator.planning.fetching import (
    JobPlan,
    plan_fetching,
    plan_resolving,
    plan_tidying,
)
from modelcache_operator.planning.job_arguments import JobWish
from modelcache_operator.planning.observed import CacheView, JobView, Observed
from modelcache_operator.planning.placement import by_rendezvous, placed_nodes
from modelcache_operator.planning.requests import is_proved, request_of, resolution_of
from modelcache_operator.planning.status import status_of


@dataclass(frozen=True, slots=True)
class Note:
    """An Event to post, once. `pod` None: about the ModelCache itself."""

    reason: str
    message: str
    is_warning: bool
    pod: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What to write, and when to look again if nothing happens.

    Attributes:
        create: Jobs that should exist and do not.
        delete: Jobs that should not.
        status: The ModelCache's status; None when it is gone.
        keep: Per node, the revisions that it should keep for this ModelCache: on nodes of the
            placement, and where a pod waits.
        notes: Events.
        again_at: The next time at which the plan may change by itself.
    """

    create: tuple[JobWish, ...] = ()
    delete: tuple[JobView, ...] = ()
    status: ModelCacheStatus | None = None
    keep: Mapping[str, frozenset[WantedModel]] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()
    again_at: datetime | None = None


def plan(seen: Observed) -> Plan:
    """The plan for a ModelCache that exists."""
    model_cache = seen.model_cache
    request = request_of(model_cache)
    resolution = resolution_of(model_cache, request, seen.caches.values())
    revision = resolution.revision if resolution else model_cache.status.revision
    wanted = wanted_on(model_cache, seen.caches)
    placed = _placed(seen, revision, wanted)
    jobs = _current_jobs(seen, request)
    standings = _assess_all(seen, {*placed, *wanted}, revision, jobs)
    status = status_of(
        seen,
        request=request,
        resolution=resolution,
        standings=[standings[node] for node in placed],
        jobs=jobs,
    )
    steps = (
        _plan_jobs(seen, request, resolution, standings, wanted, jobs),
        plan_tidying(
            seen.jobs,
            seen.now,
            is_outdated=lambda job: _is_outdated(seen, job, request, resolution),
            needed=standings,
            done=[name for name, found in standings.items() if found.standing is Standing.READY],
        ),
    )
    return Plan(
        create=steps[0].create,
        delete=steps[1].delete,
        status=status,
        keep=_keep(seen, {*placed, *wanted}, resolution, standings),
        notes=(*_transitions(model_cache, status), *_pod_notes(status, standings, wanted)),
        again_at=min(filter(None, (step.again_at for step in steps)), default=None),
    )


def plan_gone(
    key: tuple[str, str],
    jobs: Sequence[JobView],
    caches: Mapping[str, CacheView],
    now: datetime,
) -> Plan:
    """The plan for a ModelCache that is gone: its Jobs outlive it while a pod waits for them."""
    needed = {name for name, cache in caches.items() if cache.wanted.get(key)}
    step = plan_tidying(jobs, now, is_outdated=lambda _: False, needed=needed, done=())
    return Plan(delete=step.delete, again_at=step.again_at)


def spec_of(
    node: str,
    keeps: Iterable[Mapping[str, frozenset[WantedModel]]],
    *,
    limit: int,
    renewals: tuple[Renewal, ...] = (),
) -> CacheNodeSpec:
    """A CacheNode's spec from all plans; pinned where any asks for it."""
    pinned: dict[str, bool] = {}
    for keep in keeps:
        for model in keep.get(node, ()):
            pinned[model.revision] = pinned.get(model.revision, False) or model.pinned
    models = [
        WantedModel(revision=revision, pinned=pinned[revision]) for revision in sorted(pinned)
    ]
    models.sort(key=lambda model: not model.pinned)  # a stable cut loses what is not pinned
    return CacheNodeSpec(models=tuple(models[:limit]), renewals=renewals)


def wanted_on(
    model_cache: ModelCache, caches: Mapping[str, CacheView]
) -> dict[str, tuple[Wanted, ...]]:
    """Per node, the volumes that wait for `model_cache`."""
    meta = model_cache.metadata
    found: dict[str, tuple[Wanted, ...]] = {}
    for name, cache in caches.items():
        waiting = cache.wanted.get((meta.namespace, meta.name), ())
        ours = tuple(pod for pod in waiting if pod.model_cache_uid in {"", meta.uid})
        if ours:
            found[name] = ours
    return found


def _placed(seen: Observed, revision: str | None, wanted: Mapping[str, object]) -> tuple[str, ...]:
    """The nodes that count: of the placement, or, on demand, where a pod asked."""
    model_cache = seen.model_cache
    placement = model_cache.spec.placement
    placed = placed_nodes(model_cache.metadata.uid, placement, seen.nodes, seen.caches, seen.now)
    if placement.prefetch is Prefetch.EAGER:
        return placed
    holding = {
        name
        for name, cache in seen.caches.items()
        if revision and revision in cache.held and is_proved(model_cache, revision, cache)
    }
    asked = {*wanted, *holding} & set(seen.nodes)
    return tuple(by_rendezvous(model_cache.metadata.uid, asked))


def _current_jobs(seen: Observed, request: str) -> list[JobView]:
    uid = seen.model_cache.metadata.uid
    return [
        job
        for job in seen.jobs
        if job.request == request and job.model_cache_uid == uid and not job.is_deleted
    ]


def _assess_all(
    seen: Observed, nodes: Iterable[str], revision: str | None, jobs: Sequence[JobView]
) -> dict[str, NodeStanding]:
    by_node: dict[str, list[JobView]] = defaultdict(list)
    for job in jobs:
        by_node[job.node].append(job)
    size_bytes = _size_bytes(seen, revision)
    return {node: assess(seen, node, revision, by_node[node], size_bytes) for node in sorted(nodes)}


def _size_bytes(seen: Observed, revision: str | None) -> int | None:
    """What the nodes say; where none has it, for one may have evicted it, what was known before."""
    if revision is None:
        return None
    before = seen.model_cache.status
    sizes = [
        cache.held[revision].bytes_total for cache in seen.caches.values() if revision in cache.held
    ]
    return max(sizes, default=before.size_bytes if before.revision == revision else None)


def _plan_jobs(
    seen: Observed,
    request: str,
    resolution: Proof | None,
    standings: Mapping[str, NodeStanding],
    wanted: Mapping[str, object],
    jobs: Sequence[JobView],
) -> JobPlan:
    if resolution:
        return plan_fetching(seen, request, standings.values(), wanted)
    ordered = by_rendezvous(seen.model_cache.metadata.uid, standings)
    candidates = sorted(ordered, key=lambda name: name not in wanted)  # stable: wanted first
    return plan_resolving(seen, request, candidates, jobs, is_wanted=bool(wanted))


def _is_outdated(seen: Observed, job: JobView, request: str, resolution: Proof | None) -> bool:
    """Of a ModelCache that had this name before, or of a source that has been replaced.

    Until the new request is resolved, the old one's Jobs go on: most often nothing changed.
    """
    if job.model_cache_uid != seen.model_cache.metadata.uid:
        return True
    return resolution is not None and job.request != request


def _keep(
    seen: Observed,
    concerned: Iterable[str],
    resolution: Proof | None,
    standings: Mapping[str, NodeStanding],
) -> dict[str, frozenset[WantedModel]]:
    """What nodes of the placement, and those where a pod waits, should keep.

    A node keeps what it held until it holds what comes next.
    """
    before = seen.model_cache.status
    pinned = seen.model_cache.spec.retention.pinned
    current = resolution.revision if resolution else before.revision
    former = before.revision
    if former == current and before.previous_revisions:
        former = before.previous_revisions[0].revision
    keep: dict[str, frozenset[WantedModel]] = {}
    for node in concerned:
        revisions = {current}
        cache = seen.caches.get(node)
        if standings[node].standing is not Standing.READY and cache and former in cache.held:
            revisions.add(former)
        keep[node] = frozenset(
            WantedModel(revision=revision, pinned=pinned) for revision in revisions if revision
        )
    return keep


def _transitions(model_cache: ModelCache, status: ModelCacheStatus) -> list[Note]:
    notes: list[Note] = []
    for after in status.conditions:
        before = model_cache.status.condition(after.type)
        if before and (before.status, before.reason) == (after.status, after.reason):
            continue
        is_warning = after.type in {ConditionType.DEGRADED, ConditionType.REDUNDANT}
        if after.status is ConditionStatus.TRUE and after.type is not ConditionType.PROGRESSING:
            notes.append(Note(after.reason, after.message, is_warning=is_warning))
    return notes


def _pod_notes(
    status: ModelCacheStatus,
    standings: Mapping[str, NodeStanding],
    wanted: Mapping[str, tuple[Wanted, ...]],
) -> list[Note]:
    """What keeps a waiting pod, said to the pod."""
    resolved = status.condition(ConditionType.RESOLVED)
    notes: list[Note] = []
    for node, pods in wanted.items():
        standing = standings[node]
        if standing.standing in {Standing.PENDING, Standing.FAILED}:
            reason, message = standing.reason.value, standing.message
        elif resolved and resolved.status is ConditionStatus.FALSE:
            reason, message = resolved.reason, resolved.message
        else:
            continue
        notes += [
            Note(reason, message, is_warning=True, pod=pod.pod_name) for pod in pods if pod.pod_name
        ]
    return notes
