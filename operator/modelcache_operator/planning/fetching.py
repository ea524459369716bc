"""Which Jobs to create and delete.

While the source is not resolved, one Job at a time lists it; once it is, every other node gets
its own. The same work is tried again after a pause that grows, never at once.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from modelcache_api.reasons import Reason
from modelcache_operator.planning.assessing import PENDING_AFTER, NodeStanding, Standing
from modelcache_operator.planning.job_arguments import JobWish
from modelcache_operator.planning.jobs import next_try_at
from modelcache_operator.planning.observed import JobState, JobView, Observed
from modelcache_operator.planning.placement import is_live

#: Jobs created in one pass; the next pass follows at once. Keeps a burst off the API server.
MAX_CREATED_AT_ONCE = 50
#: How long the first Job may stay without a running pod before another node is tried as well.
_RESOLVER_PATIENCE = timedelta(minutes=2)
#: So many nodes at most have a Job that waits to list the source: where a quota refuses one, it
#: refuses all. Arbitrary.
_MAX_RESOLVERS = 3
#: A Job that did its work is deleted after this: long enough to be looked at.
_KEPT_AFTER_SUCCESS = timedelta(minutes=5)
#: A Job that nobody needs any more is left this long: a waiting pod asks again within 2 min 2 s.
_KEPT_WITHOUT_NEED = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class JobPlan:
    """What to do about Jobs now; `again_at` is when to look again if nothing happens."""

    create: tuple[JobWish, ...] = ()
    delete: tuple[JobView, ...] = ()
    again_at: datetime | None = None


def plan_resolving(
    seen: Observed,
    request: str,
    candidates: Sequence[str],
    jobs: Sequence[JobView],
    *,
    is_wanted: bool,
) -> JobPlan:
    """One Job that lists the source.

    Args:
        seen: The cluster.
        request: What to list.
        candidates: Nodes that may run it, most preferred first.
        jobs: All Jobs of `request`.
        is_wanted: A pod waits for it, on any node.
    """
    active = [job for job in jobs if job.is_active]
    started = [job for job in active if not _is_stuck(job, seen.now)]
    if started:
        return JobPlan(again_at=_first_look(started, seen.now))
    if len(active) >= _MAX_RESOLVERS:
        return JobPlan()
    finished = [job for job in jobs if not job.is_active]
    last = max(finished, key=lambda job: (job.attempt, job.created_at), default=None)
    not_before = _not_before(seen, None, last, is_wanted=is_wanted)
    if not_before and seen.now < not_before:
        return JobPlan(again_at=not_before)
    busy = {job.node for job in active}
    free = [
        node
        for node in candidates
        if node not in busy and is_live(seen.nodes.get(node), seen.caches.get(node), seen.now)
    ]
    if not free:
        return JobPlan()
    tried = {node: sum(job.node == node for job in jobs) for node in free}
    node = min(free, key=lambda name: tried[name])
    attempt = max((job.attempt for job in jobs), default=0) + 1
    return JobPlan(create=(JobWish(node, request, attempt),), again_at=seen.now + PENDING_AFTER)


def plan_fetching(
    seen: Observed, request: str, standings: Iterable[NodeStanding], wanted: Collection[str]
) -> JobPlan:
    """A Job for every node that needs one now; `wanted` are the nodes where a pod waits."""
    create: list[JobWish] = []
    looks: list[datetime] = []
    for standing in standings:
        last = standing.last
        if standing.standing is Standing.READY or standing.standing is Standing.SILENT:
            continue
        if last and last.is_active:
            looks += filter(None, [_first_look([last], seen.now)])
            continue
        not_before = _not_before(seen, standing.node, last, is_wanted=standing.node in wanted)
        if not_before and seen.now < not_before:
            looks.append(not_before)
        elif standing.node in wanted or not _is_blocked(standing):
            create.append(JobWish(standing.node, request, last.attempt + 1 if last else 1))
            looks.append(seen.now + PENDING_AFTER)
    if len(create) > MAX_CREATED_AT_ONCE:
        create, looks = create[:MAX_CREATED_AT_ONCE], [seen.now]
    return JobPlan(create=tuple(create), again_at=min(looks, default=None))


def plan_tidying(
    jobs: Iterable[JobView],
    now: datetime,
    *,
    is_outdated: Callable[[JobView], bool],
    needed: Collection[str],
    done: Collection[str],
) -> JobPlan:
    """Jobs to delete.

    Args:
        jobs: All Jobs of one name.
        now: The time.
        is_outdated: Whether a Job works for what is no longer asked.
        needed: Nodes whose active Job is still needed.
        done: Nodes on which all is done.
    """
    delete: list[JobView] = []
    looks: list[datetime] = []
    for job in jobs:
        if job.is_deleted:
            continue
        if job.is_active and is_outdated(job):
            delete.append(job)
            continue
        until = _kept_until(job, needed, done)
        if until is not None and until <= now:
            delete.append(job)
        elif until is not None:
            looks.append(until)
    return JobPlan(delete=tuple(delete), again_at=min(looks, default=None))


def _not_before(
    seen: Observed, node: str | None, last: JobView | None, *, is_wanted: bool
) -> datetime | None:
    """When the next Job may be made: after the pause, and not while the API server refuses it.

    `node` None: any node's refusal counts, for one namespace's quota refuses all.
    """
    times = [
        refusal.until for name, refusal in seen.refused.items() if node is None or name == node
    ]
    if last:
        times.append(next_try_at(last, is_wanted=is_wanted))
    return max(times, default=None)


def _is_blocked(standing: NodeStanding) -> bool:
    """A Job would come to nothing: only where a pod waits may the agent evict others' models."""
    has_failed_job = standing.last is not None and standing.last.state is JobState.FAILED
    return (
        standing.standing is Standing.FAILED
        and standing.reason in {Reason.INSUFFICIENT_CAPACITY, Reason.DISK_FAILED}
        and not has_failed_job  # one that did fail is tried again after its pause
    )


def _kept_until(job: JobView, needed: Collection[str], done: Collection[str]) -> datetime | None:
    """When to delete `job`; None: leave it, its time to live takes it."""
    if job.is_active:
        return None if job.node in needed else job.created_at + _KEPT_WITHOUT_NEED
    is_done = job.state is JobState.SUCCEEDED and job.node in done
    return (job.finished_at or job.created_at) + _KEPT_AFTER_SUCCESS if is_done else None


def _is_stuck(job: JobView, now: datetime) -> bool:
    return job.state is JobState.PENDING and now - job.created_at >= _RESOLVER_PATIENCE


def _first_look(active: Sequence[JobView], now: datetime) -> datetime | None:
    """When one of `active` will have been pending for too long."""
    looks = [
        job.created_at + patience
        for job in active
        if job.state is JobState.PENDING
        for patience in (PENDING_AFTER, _RESOLVER_PATIENCE)
    ]
    return min((look for look in looks if look > now), default=None)
