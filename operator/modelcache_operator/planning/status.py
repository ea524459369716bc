"""What a ModelCache's status says: counts, and five conditions that are always there.

A condition's time changes only with its status. Messages name no byte counts: what changes all
the time would be a write all the time.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from modelcache_api.cache_node import HeldModel, Proof
from modelcache_api.listing import Integrity
from modelcache_api.model_cache import (
    MAX_PREVIOUS_REVISIONS,
    ByteCounts,
    Condition,
    ConditionType,
    ModelCacheStatus,
    NodeCounts,
    Prefetch,
    PreviousRevision,
)
from modelcache_api.objects import ConditionStatus
from modelcache_api.reasons import Reason
from modelcache_operator.planning.assessing import SEVERITY, NodeStanding, Standing
from modelcache_operator.planning.observed import JobState, JobView, Observed, Said

#: The weakest first.
_INTEGRITY_ORDER = (Integrity.TRANSPORT_ONLY, Integrity.STORE_CHECKSUM, Integrity.SHA256)
_MAX_MESSAGE = 1024


@dataclass(frozen=True, slots=True)
class Fact:
    """What a condition will say."""

    status: ConditionStatus
    reason: Reason
    message: str


def status_of(
    seen: Observed,
    *,
    request: str,
    resolution: Proof | None,
    standings: Sequence[NodeStanding],
    jobs: Sequence[JobView],
) -> ModelCacheStatus:
    """The status as it should be.

    Args:
        seen: The cluster.
        request: What is asked of the source now.
        resolution: What it turned out to be, if it is known.
        standings: The nodes that should hold it.
        jobs: All Jobs of `request`.
    """
    before = seen.model_cache.status
    now = seen.now.replace(microsecond=0)
    revision = resolution.revision if resolution else before.revision
    is_same = revision == before.revision
    helds = [standing.held for standing in standings if standing.held]
    known = _best_known(seen, revision)
    size_bytes = known.bytes_total if known else before.size_bytes if is_same else None
    resolved = _resolved(seen, resolution, jobs, standings)
    facts = {ConditionType.RESOLVED: resolved} | _node_facts(seen, resolved, standings)
    facts[ConditionType.REDUNDANT] = _redundant(resolved, known)
    return ModelCacheStatus(
        observed_generation=seen.model_cache.metadata.generation,
        request=request if resolution else before.request,
        revision=revision,
        previous_revisions=_previous(before, revision, now),
        size_bytes=size_bytes,
        files=known.files if known else before.files if is_same else None,
        nodes=_node_counts(standings),
        bytes=_byte_counts(standings, helds, size_bytes or 0),
        integrity=_weakest(held.integrity for held in helds),
        conditions=tuple(
            _condition(kind, fact, before, seen.model_cache.metadata.generation, now)
            for kind, fact in facts.items()
        ),
    )


def _resolved(
    seen: Observed,
    resolution: Proof | None,
    jobs: Sequence[JobView],
    standings: Sequence[NodeStanding],
) -> Fact:
    if resolution:
        message = f"the source is {resolution.revision}"
        return Fact(ConditionStatus.TRUE, Reason.RESOLVED, message)
    failed = [job for job in jobs if job.state is JobState.FAILED]
    if failed:
        last = max(failed, key=lambda job: (job.finished_at or job.created_at, job.attempt))
        words = last.said or Said(Reason.JOB_FAILED, f"Job {last.name} failed")
        return Fact(ConditionStatus.FALSE, words.reason, words.message)
    is_listing = any(job.state is JobState.RUNNING for job in jobs)
    pending = [standing for standing in standings if standing.standing is Standing.PENDING]
    if pending and not is_listing:
        message = f"{pending[0].node}: {pending[0].message}"
        return Fact(ConditionStatus.UNKNOWN, pending[0].reason, message)
    if any(job.is_active for job in jobs):
        return Fact(ConditionStatus.UNKNOWN, Reason.RESOLVING, "a Job lists the source")
    reason, message = _nobody(seen, standings)
    return Fact(ConditionStatus.UNKNOWN, reason, message)


def _nobody(seen: Observed, standings: Sequence[NodeStanding]) -> tuple[Reason, str]:
    if not standings:
        if seen.model_cache.spec.placement.prefetch is Prefetch.ON_DEMAND:
            return Reason.NOT_REQUESTED, "no pod has asked for it yet"
        return Reason.NO_NODES, "no node with a cache matches the placement"
    if all(standing.standing is Standing.SILENT for standing in standings):
        return Reason.AGENT_UNAVAILABLE, "no agent of these nodes was heard from lately"
    return Reason.RESOLVING, "a Job will list the source"


def _node_facts(
    seen: Observed, resolved: Fact, standings: Sequence[NodeStanding]
) -> dict[ConditionType, Fact]:
    n_ready = sum(standing.standing is Standing.READY for standing in standings)
    by_severity = sorted(standings, key=lambda standing: SEVERITY.index(standing.standing))
    open_ = [standing for standing in by_severity if standing.standing is not Standing.READY]
    busy = [s for s in open_ if s.standing in {Standing.FETCHING, Standing.WAITING}]
    troubled = [s for s in open_ if s not in busy]
    count = f"{n_ready} of {len(standings)} nodes hold it"
    if resolved.status is not ConditionStatus.TRUE:
        ready = Fact(ConditionStatus.FALSE, resolved.reason, resolved.message)
    elif not standings:
        ready = Fact(ConditionStatus.FALSE, *_nobody(seen, standings))
    elif open_:
        ready = Fact(ConditionStatus.FALSE, open_[0].reason, f"{count}; {_listed(open_)}")
    else:
        ready = Fact(ConditionStatus.TRUE, Reason.READY, count)
    return {
        ConditionType.READY: ready,
        ConditionType.PROGRESSING: _progressing(resolved, ready, busy, count),
        ConditionType.DEGRADED: _degraded(resolved, troubled, ready),
    }


def _progressing(resolved: Fact, ready: Fact, busy: Sequence[NodeStanding], count: str) -> Fact:
    if resolved.status is ConditionStatus.TRUE and busy:
        return Fact(ConditionStatus.TRUE, Reason.FETCHING, count)
    if resolved.reason is Reason.RESOLVING:
        return Fact(ConditionStatus.TRUE, Reason.RESOLVING, resolved.message)
    return Fact(ConditionStatus.FALSE, ready.reason, ready.message)


def _degraded(resolved: Fact, troubled: Sequence[NodeStanding], ready: Fact) -> Fact:
    if resolved.status is ConditionStatus.FALSE:
        return Fact(ConditionStatus.TRUE, resolved.reason, resolved.message)
    if troubled:
        return Fact(ConditionStatus.TRUE, troubled[0].reason, _listed(troubled))
    return Fact(ConditionStatus.FALSE, ready.reason, "nothing needs help")


def _redundant(resolved: Fact, known: HeldModel | None) -> Fact:
    if known is None:
        return Fact(ConditionStatus.UNKNOWN, resolved.reason, "no node says what files it has")
    if not known.duplicates:
        return Fact(ConditionStatus.FALSE, Reason.RESOLVED, "no weights seem to be there twice")
    patterns = ", ".join(f'"{pattern}"' for pattern in known.duplicates)
    return Fact(
        ConditionStatus.TRUE,
        Reason.DUPLICATE_WEIGHTS,
        f"the source seems to hold its safetensors' weights again, in files {patterns}: if so, "
        f"spec.source.exclude: [{patterns}] spares every node their fetch and their space",
    )


def _listed(standings: Sequence[NodeStanding]) -> str:
    """The first by name, the rest as a number: a thousand nodes are no message."""
    first, rest = standings[0], len(standings) - 1
    return f"{first.node}: {first.message}" + (f"; and {rest} more" if rest else "")


def _condition(
    kind: ConditionType, fact: Fact, before: ModelCacheStatus, generation: int, now: datetime
) -> Condition:
    old = before.condition(kind)
    is_same = old is not None and old.status is fact.status
    return Condition(
        type=kind,
        status=fact.status,
        reason=fact.reason.value,
        message=fact.message[:_MAX_MESSAGE],
        observed_generation=generation,
        last_transition_time=old.last_transition_time if old and is_same else now,
    )


def _previous(
    before: ModelCacheStatus, revision: str | None, now: datetime
) -> tuple[PreviousRevision, ...]:
    if before.revision is None or before.revision == revision:
        return before.previous_revisions
    replaced = PreviousRevision(revision=before.revision, replaced_at=now)
    gone = {before.revision, revision}
    older = [old for old in before.previous_revisions if old.revision not in gone]
    return (replaced, *older)[:MAX_PREVIOUS_REVISIONS]


def _best_known(seen: Observed, revision: str | None) -> HeldModel | None:
    """Any node's word on the size; one that is fetching may not know all files yet."""
    if revision is None:
        return None
    found = (cache.held.get(revision) for cache in seen.caches.values())
    return max(filter(None, found), key=lambda held: (held.bytes_total, held.files), default=None)


def _node_counts(standings: Sequence[NodeStanding]) -> NodeCounts:
    kinds = [standing.standing for standing in standings]
    return NodeCounts(
        desired=len(kinds),
        ready=kinds.count(Standing.READY),
        fetching=kinds.count(Standing.FETCHING),
        failed=kinds.count(Standing.FAILED) + kinds.count(Standing.PENDING),
    )


def _byte_counts(
    standings: Sequence[NodeStanding], helds: Sequence[HeldModel], size_bytes: int
) -> ByteCounts:
    return ByteCounts(
        wanted=size_bytes * len(standings),
        present=sum(held.bytes_present for held in helds),
        from_origin=sum(held.bytes_from_origin for held in helds),
        from_peers=sum(held.bytes_from_peers for held in helds),
    )


def _weakest(found: Iterable[Integrity | None]) -> str | None:
    known = [kind for kind in found if kind is not None]
    return min(known, key=_INTEGRITY_ORDER.index).value if known else None
