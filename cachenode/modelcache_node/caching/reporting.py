"""What a node says of one revision, from what is known of it. Pure."""

from dataclasses import dataclass

from modelcache_api.manifest import Manifest
from modelcache_api.messages import ProofReport, RevisionReport, RevisionState
from modelcache_api.reasons import Reason
from modelcache_node.caching.duplicates import duplicate_patterns
from modelcache_node.caching.integrity import integrity_of
from modelcache_node.caching.tallies import Tally
from modelcache_node.store.index import Proof


@dataclass(frozen=True, slots=True)
class Failure:
    """Why the last fetch of a revision ended without it."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one revision on this node.

    Attributes:
        tally: Of the running fetch; None where none runs.
        is_fed: Whether somebody's grants, or peers, feed that fetch.
        failure: Of the last fetch, where it failed and none runs since.
        bytes_on_disk: Of distinct blobs, present and checked; asked for only without a fetch.
        moved: Bytes from origins and from peers, by fetches that ended.
    """

    manifest: Manifest
    is_complete: bool
    bytes_on_disk: int
    leases: int
    pinned: bool
    last_used_at: float | None
    moved: tuple[int, int] = (0, 0)
    tally: Tally | None = None
    is_fed: bool = False
    failure: Failure | None = None


def report_revision(facts: Facts) -> RevisionReport:
    """The revision's report; its first matching line decides the state."""
    state, reason, message = _state(facts)
    manifest, tally = facts.manifest, facts.tally
    return RevisionReport(
        revision=manifest.revision,
        state=state,
        reason=reason,
        message=message,
        bytes_present=tally.bytes_present if tally else facts.bytes_on_disk,
        bytes_total=sum(file.size_bytes for file in manifest.blobs.values()),
        files=len(manifest.files),
        duplicates=duplicate_patterns(manifest.files),
        integrity=integrity_of(manifest) if facts.is_complete else None,
        leases=facts.leases,
        pinned=facts.pinned,
        last_used_at=facts.last_used_at,
        bytes_from_origin=facts.moved[0] + (tally.bytes_from_origin if tally else 0),
        bytes_from_peers=facts.moved[1] + (tally.bytes_from_peers if tally else 0),
    )


def _state(facts: Facts) -> tuple[RevisionState, Reason, str]:
    if facts.is_complete:
        return RevisionState.READY, Reason.READY, "complete"
    if facts.tally and facts.is_fed:
        return RevisionState.FETCHING, Reason.FETCHING, facts.tally.note or "fetching"
    if facts.failure:
        return RevisionState.FAILED, facts.failure.reason, facts.failure.message
    return (
        RevisionState.WAITING_FOR_GRANT,
        Reason.WAITING_FOR_GRANT,
        "waiting for a prefetch Job's grants",
    )


def report_proof(proof: Proof) -> ProofReport:
    return ProofReport(
        namespace=proof.namespace,
        model_cache=proof.model_cache,
        model_cache_uid=proof.model_cache_uid,
        request=proof.request,
        revision=proof.revision,
        at=proof.at,
        renewed_at=proof.renewed_at,
        is_provisional=bool(proof.is_provisional),
    )
