"""What planning sees of the cluster: frozen views, parsed once from the API server's objects.

Everything here is a fact as some object states it; what follows from the facts stands in the
modules beside. Times are aware datetimes.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

from modelcache_api.cache_node import CacheNode, CacheNodeSpec, HeldModel, Proof, Wanted
from modelcache_api.model_cache import ModelCache
from modelcache_api.names import (
    ANNOTATION_MODEL_CACHE,
    ANNOTATION_NODE,
    ANNOTATION_REQUEST,
    GROUP,
    LABEL_MODEL_CACHE_UID,
)
from modelcache_api.reasons import Reason

#: How often the same work was tried on the same node, counted from 1.
ANNOTATION_ATTEMPT = f"{GROUP}/attempt"


@dataclass(frozen=True, slots=True)
class Taint:
    """A taint of a node."""

    key: str
    value: str
    effect: str


@dataclass(frozen=True, slots=True)
class NodeView:
    """A Node, as far as placement cares.

    `not_ready_since` is None while the node is ready. `hosts` are its own addresses and names,
    `pod_ranges` where its pods get theirs.
    """

    name: str
    uid: str
    labels: Mapping[str, str]
    taints: tuple[Taint, ...]
    boot_id: str
    is_linux: bool
    not_ready_since: datetime | None
    hosts: frozenset[str] = frozenset()
    pod_ranges: tuple[IPv4Network | IPv6Network, ...] = ()


@dataclass(frozen=True, slots=True)
class CacheView:
    """A CacheNode, its lists indexed. `heartbeat_at` None: its agent has never reported.

    `address` is where its agent serves others; empty: it does not.
    """

    name: str
    owner_uid: str
    boot_id: str
    store_id: str
    heartbeat_at: datetime | None
    capacity_bytes: int
    used_bytes: int
    reserved_bytes: int
    is_disk_healthy: bool
    spec: CacheNodeSpec
    held: Mapping[str, HeldModel]
    proofs: Mapping[str, tuple[Proof, ...]]
    wanted: Mapping[tuple[str, str], tuple[Wanted, ...]]
    address: str = ""


class JobState(StrEnum):
    """Where a Job stands."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


@dataclass(frozen=True, slots=True)
class Said:
    """Why a Job failed or does not start, in the words of its pod or its events.

    A tenant can forge these words: they are for display, never for decisions.
    """

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class JobView:
    """A prefetch Job of ours.

    `is_bad_source`: the Job controller says that the pod ended with the exit code for a source
    that its user must change.
    """

    namespace: str
    name: str
    uid: str
    model_cache: str
    model_cache_uid: str
    node: str
    request: str
    attempt: int
    state: JobState
    created_at: datetime
    finished_at: datetime | None = None
    is_bad_source: bool = False
    is_deleted: bool = False
    said: Said | None = None

    @property
    def is_active(self) -> bool:
        return self.state in {JobState.PENDING, JobState.RUNNING}


@dataclass(frozen=True, slots=True)
class Refusal:
    """The API server would not have a Job: a quota, a policy. Not to be tried before `until`."""

    said: Said
    until: datetime


@dataclass(frozen=True, slots=True)
class Observed:
    """All that one ModelCache's plan follows from.

    `jobs` are those made for its name; `refused` are the nodes whose Job was refused;
    `proof_max_age` is for how long agents take a proof.
    """

    model_cache: ModelCache
    nodes: Mapping[str, NodeView]
    caches: Mapping[str, CacheView]
    jobs: Sequence[JobView]
    now: datetime
    refused: Mapping[str, Refusal] = field(default_factory=dict)
    proof_max_age: timedelta = timedelta.max


def parse_node(body: Mapping[str, Any]) -> NodeView:
    meta, spec, status = body["metadata"], body.get("spec") or {}, body.get("status") or {}
    labels = dict(meta.get("labels") or {})
    ready = _condition(status, "Ready")
    is_ready = ready.get("status") == "True"
    since = ready.get("lastTransitionTime") or meta.get("creationTimestamp")
    info = status.get("nodeInfo") or {}
    system = info.get("operatingSystem") or labels.get("kubernetes.io/os") or "linux"
    return NodeView(
        name=meta["name"],
        uid=meta["uid"],
        labels=labels,
        taints=tuple(
            Taint(taint["key"], taint.get("value") or "", taint["effect"])
            for taint in spec.get("taints") or ()
        ),
        boot_id=info.get("bootID") or "",
        is_linux=system == "linux",
        not_ready_since=None if is_ready else parse_time(since),
        hosts=frozenset(entry["address"] for entry in status.get("addresses") or ()),
        pod_ranges=tuple(ip_network(one, strict=False) for one in spec.get("podCIDRs") or ()),
    )


def parse_cache_node(body: Mapping[str, Any]) -> CacheView:
    """Raises pydantic.ValidationError: not an object that its schema would admit."""
    node = CacheNode.model_validate(body)
    status = node.status
    proofs: dict[str, list[Proof]] = defaultdict(list)
    for proof in status.proofs:
        proofs[proof.model_cache_uid].append(proof)
    wanted: dict[tuple[str, str], list[Wanted]] = defaultdict(list)
    for pod in status.wanted:
        wanted[pod.namespace, pod.model_cache].append(pod)
    owners = body["metadata"].get("ownerReferences") or ()
    return CacheView(
        name=node.metadata.name,
        owner_uid=next((owner["uid"] for owner in owners if owner["kind"] == "Node"), ""),
        boot_id=status.boot_id,
        store_id=status.store_id,
        heartbeat_at=status.heartbeat_at,
        capacity_bytes=status.capacity_bytes,
        used_bytes=status.used_bytes,
        reserved_bytes=status.reserved_bytes,
        is_disk_healthy=status.disk_healthy,
        spec=node.spec,
        held={model.revision: model for model in status.models},
        proofs={uid: tuple(found) for uid, found in proofs.items()},
        wanted={key: tuple(found) for key, found in wanted.items()},
        address=status.address,
    )


def parse_job(body: Mapping[str, Any]) -> JobView:
    """Raises KeyError or ValueError: it carries our label and is not of our making."""
    meta, status = body["metadata"], body.get("status") or {}
    annotations = meta["annotations"]
    complete, failed = _condition(status, "Complete"), _condition(status, "Failed")
    if complete.get("status") == "True":
        state, finished_at = JobState.SUCCEEDED, complete.get("lastTransitionTime")
    elif failed.get("status") == "True":
        state, finished_at = JobState.FAILED, failed.get("lastTransitionTime")
    else:
        state = JobState.RUNNING if status.get("ready") else JobState.PENDING
        finished_at = None
    return JobView(
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta["uid"],
        model_cache=annotations[ANNOTATION_MODEL_CACHE],
        model_cache_uid=meta["labels"][LABEL_MODEL_CACHE_UID],
        node=annotations[ANNOTATION_NODE],
        request=annotations[ANNOTATION_REQUEST],
        attempt=int(annotations[ANNOTATION_ATTEMPT]),
        state=state,
        created_at=parse_time(meta["creationTimestamp"]),
        finished_at=None if finished_at is None else parse_time(finished_at),
        is_bad_source=state is JobState.FAILED and failed.get("reason") == "PodFailurePolicy",
        is_deleted=bool(meta.get("deletionTimestamp")),
    )


def parse_time(text: str) -> datetime:
    """RFC 3339, as Kubernetes writes it."""
    return datetime.fromisoformat(text)


def _condition(status: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    found = status.get("conditions") or ()
    return next((condition for condition in found if condition["type"] == kind), {})
