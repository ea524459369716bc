"""What of an agent's report goes into its CacheNode, and when it is worth a write. Pure.

An object has bounds that an agent has not: of the models the leased and most recently used are
told, of the proofs the newest, of the wanted the longest waiting.
"""

from datetime import UTC, datetime
from typing import Any

from modelcache_api.cache_node import (
    MAX_MODELS,
    MAX_PROOFS,
    MAX_WANTED,
    CacheNodeStatus,
    HeldModel,
    NodeCondition,
    NodeConditionType,
    Proof,
    Wanted,
)
from modelcache_api.messages import (
    LazyReport,
    NodeReport,
    ProofReport,
    RevisionReport,
    WantedReport,
)
from modelcache_api.objects import ConditionStatus
from modelcache_api.reasons import Reason

#: Of a message, characters; the schema's bound.
_MAX_MESSAGE = 1024

#: What changes all the time and that nobody acts on: told with the next heartbeat.
_QUIET_FIELDS = {"heartbeat_at", "used_bytes", "reserved_bytes"}
_QUIET_MODEL_FIELDS = {
    "bytes_present",
    "bytes_from_origin",
    "bytes_from_peers",
    "last_used_at",
    "message",
}


def status_of(report: NodeReport, *, address: str, heartbeat_at: datetime) -> CacheNodeStatus:
    """`report` as a CacheNode's status, cut to its bounds."""
    models = sorted(report.revisions, key=_importance, reverse=True)[:MAX_MODELS]
    proofs = sorted(report.proofs, key=lambda proof: proof.at, reverse=True)[:MAX_PROOFS]
    wanted = sorted(report.wanted, key=lambda pod: pod.since)[:MAX_WANTED]
    return CacheNodeStatus(
        version=report.version,
        address=address,
        boot_id=report.boot_id,
        store_id=report.store_id,
        heartbeat_at=heartbeat_at,
        capacity_bytes=report.capacity_bytes,
        used_bytes=report.used_bytes,
        reserved_bytes=report.reserved_bytes,
        disk_healthy=report.disk_healthy,
        models=tuple(map(_held, sorted(models, key=lambda model: model.revision))),
        proofs=tuple(map(_proof, sorted(proofs, key=_proof_order))),
        wanted=tuple(map(_wanted, wanted)),
        conditions=() if report.lazy is None else (_lazy_mounts(report.lazy),),
    )


def is_transition(before: CacheNodeStatus | None, after: CacheNodeStatus) -> bool:
    """Whether `after` says something that somebody acts on and that `before` did not."""
    return before is None or _loud(before) != _loud(after)


def _loud(status: CacheNodeStatus) -> dict[str, Any]:
    return status.model_dump(
        exclude={
            **dict.fromkeys(_QUIET_FIELDS, True),
            "models": {"__all__": _QUIET_MODEL_FIELDS},
        }
    )


def _importance(model: RevisionReport) -> tuple[bool, float]:
    return model.leases > 0 or model.pinned, model.last_used_at or 0.0


def _proof_order(proof: ProofReport) -> tuple[str, str, str, float]:
    return proof.namespace, proof.model_cache, proof.revision, proof.at


def _time(epoch_s: float) -> datetime:
    return datetime.fromtimestamp(epoch_s, UTC)


def _held(model: RevisionReport) -> HeldModel:
    last_used_at = None if model.last_used_at is None else _time(model.last_used_at)
    fields = model.model_dump(exclude={"message", "last_used_at", "reason"})
    return HeldModel(
        **fields,
        reason=model.reason.value,
        message=model.message[:_MAX_MESSAGE],
        last_used_at=last_used_at,
    )


def _proof(proof: ProofReport) -> Proof:
    renewed_at = _time(proof.renewed_at) if proof.renewed_at else None
    fields = proof.model_dump(exclude={"at", "renewed_at"})
    return Proof(**fields, at=_time(proof.at), renewed_at=renewed_at)


def _lazy_mounts(lazy: LazyReport) -> NodeCondition:
    if not lazy.lacks:
        status, reason, message = ConditionStatus.FALSE, Reason.READY, "nothing is lacking"
    elif "fuse" in lazy.lacks:
        status, reason = ConditionStatus.TRUE, Reason.KERNEL_LACKS_FEATURES
        message = "this node's kernel makes no lazy mounts; the plugin's log says why"
    else:
        status, reason = ConditionStatus.TRUE, Reason.KERNEL_LACKS_FEATURES
        message = (
            f"lazy mounts do without {', '.join(lazy.lacks)} here, which the kernel lacks or was"
            " told not to use: reads are right, and go through a process of ours"
        )
    return NodeCondition(
        type=NodeConditionType.LAZY_MOUNTS_LIMITED,
        status=status,
        reason=reason.value,
        message=message,
        last_transition_time=_time(lazy.since),
    )


def _wanted(pod: WantedReport) -> Wanted:
    return Wanted(**pod.model_dump(exclude={"since"}), since=_time(pod.since))
