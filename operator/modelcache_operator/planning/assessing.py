"""Where one ModelCache stands on one node."""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from modelcache_api.cache_node import HeldModel
from modelcache_api.messages import RevisionState
from modelcache_api.reasons import Reason
from modelcache_operator.planning.observed import CacheView, JobState, JobView, Observed, Said
from modelcache_operator.planning.placement import is_live
from modelcache_operator.planning.requests import is_proved

#: A Job without a running pod for this long has a problem that its user should hear of: an
#: image is on the node already, and a scheduler takes seconds.
PENDING_AFTER = timedelta(seconds=30)


class Standing(StrEnum):
    """Where a node stands, the worst first."""

    FAILED = "Failed"
    PENDING = "Pending"
    SILENT = "Silent"
    WAITING = "Waiting"
    FETCHING = "Fetching"
    READY = "Ready"


SEVERITY = tuple(Standing)


@dataclass(frozen=True, slots=True)
class NodeStanding:
    """One node's standing; `last` is its newest Job of the current request."""

    node: str
    standing: Standing
    reason: Reason
    message: str
    held: HeldModel | None
    last: JobView | None


def assess(
    seen: Observed, node: str, revision: str | None, jobs: list[JobView], size_bytes: int | None
) -> NodeStanding:
    """The standing of `node`, whose Jobs of the current request are `jobs`."""
    cache = seen.caches.get(node)
    held = cache.held.get(revision) if cache and revision else None
    last = max(jobs, key=lambda job: job.attempt, default=None)
    active = last if last and last.is_active else None
    if cache is None or not is_live(seen.nodes.get(node), cache, seen.now):
        reason, message = Reason.AGENT_UNAVAILABLE, "no recent word from its agent"
        return NodeStanding(node, Standing.SILENT, reason, message, held, last)
    if _is_ready(seen, cache, held):
        return NodeStanding(node, Standing.READY, Reason.READY, "", held, last)
    standing, (reason, message) = (
        (_of_active_job(active, seen) if active else _of_refusal(seen, node))
        or _of_failure(cache, held, last)
        or _of_room(cache, revision, size_bytes)
        or (Standing.WAITING, (Reason.FETCHING, "waits for a Job"))
    )
    return NodeStanding(node, standing, reason, message, held, last)


def lack_of_room(cache: CacheView, revision: str, size_bytes: int) -> str | None:
    """Why a node cannot take `revision` without evicting what others still want; None: it can.

    What no ModelCache places there, and no volume uses, is free to be evicted.
    """
    wished = {model.revision for model in cache.spec.models}
    evictable_bytes = sum(
        model.bytes_present
        for model in cache.held.values()
        if model.revision not in wished | {revision} and not model.leases and not model.pinned
    )
    held = cache.held.get(revision)
    wanted_bytes = size_bytes - (held.bytes_present if held else 0)
    taken_bytes = cache.used_bytes + cache.reserved_bytes - evictable_bytes
    free_bytes = max(0, cache.capacity_bytes - taken_bytes)
    if wanted_bytes <= free_bytes:
        return None
    return f"needs {wanted_bytes} bytes more, and {free_bytes} can be made free"


def _is_ready(seen: Observed, cache: CacheView, held: HeldModel | None) -> bool:
    if held is None or held.state is not RevisionState.READY:
        return False
    since = None if seen.proof_max_age == timedelta.max else seen.now - seen.proof_max_age
    return is_proved(seen.model_cache, held.revision, cache, since=since)


_Found = tuple[Standing, tuple[Reason, str]]


def _of_active_job(job: JobView, seen: Observed) -> _Found:
    is_late = job.state is JobState.PENDING and seen.now - job.created_at >= PENDING_AFTER
    if is_late and job.said:
        return Standing.PENDING, (job.said.reason, job.said.message)
    return Standing.FETCHING, (Reason.FETCHING, "fetching")


def _of_refusal(seen: Observed, node: str) -> _Found | None:
    refusal = seen.refused.get(node)
    return (Standing.PENDING, (refusal.said.reason, refusal.said.message)) if refusal else None


def _of_failure(cache: CacheView, held: HeldModel | None, last: JobView | None) -> _Found | None:
    if not cache.is_disk_healthy:
        return Standing.FAILED, (Reason.DISK_FAILED, "its disk answers with errors")
    if last and last.state is JobState.FAILED:
        said = last.said or Said(Reason.JOB_FAILED, "its Job failed")
        return Standing.FAILED, (said.reason, said.message)
    if held and held.state is RevisionState.FAILED:
        return Standing.FAILED, (_reason(held.reason), held.message)
    return None


def _of_room(cache: CacheView, revision: str | None, size_bytes: int | None) -> _Found | None:
    if revision is None or size_bytes is None:
        return None
    message = lack_of_room(cache, revision, size_bytes)
    return (Standing.FAILED, (Reason.INSUFFICIENT_CAPACITY, message)) if message else None


def _reason(word: str) -> Reason:
    try:
        return Reason(word)
    except ValueError:  # a newer agent's
        return Reason.INTERNAL
