"""CacheNode: one node's cache; the operator's wish (spec) and the agent's truth (status).

Created by the operator, owned by its Node, of the same name. The status is what the agent
reports (`messages.NodeReport`), cut to the bounds below; it is written on transitions,
otherwise at most once a minute, and counts for nothing once its heartbeat is old.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from modelcache_api.listing import Integrity
from modelcache_api.messages import (
    MAX_DUPLICATES,
    RevisionState,
)
from modelcache_api.names import API_VERSION
from modelcache_api.objects import (
    MAX_INT64,
    ApiModel,
    Bytes,
    ConditionStatus,
    Count,
    Generation,
    Message,
    Namespace,
    ObjectMeta,
    ObjectName,
    ReasonWord,
    Revision,
    Uid,
    listed_by,
)
from modelcache_api.swarm_bounds import MAX_NEIGHBOURS, MAX_ORIGIN_GROUP, MAX_SWARMS

KIND = "CacheNode"
PLURAL = "cachenodes"
SHORT_NAMES = ("cn",)

#: Bounds of one object's lists: together below etcd's 1.5 MB per object.
MAX_MODELS = 1000
MAX_PROOFS = 1000
MAX_WANTED = 500
MAX_RENEWALS = 1000
#: At least so often an agent writes its status, seconds.
HEARTBEAT_S = 60.0

Address = Annotated[str, Field(max_length=256)]


class WantedModel(ApiModel):
    """A revision that the node should keep."""

    revision: Revision
    """Digest of the revision."""

    pinned: bool = False
    """Never evict it."""


class Renewal(ApiModel):
    """Another node's agent proved a namespace's access to a revision again."""

    namespace: Namespace
    """Namespace whose access it is."""

    revision: Revision
    """Digest of the revision."""

    at: datetime
    """When it was proved."""


class SwarmMember(ApiModel):
    """A node that fetches or keeps a revision."""

    name: ObjectName
    """Name of the node."""

    address: Address
    """host:port at which its agent serves others."""

    far: bool = False
    """It is in another zone: others are asked first."""


class SwarmLists(ApiModel):
    """Whom a node shares one revision with."""

    revision: Revision
    """Digest of the revision."""

    epoch: Generation
    """Grows with every change of these lists; older ones are not taken."""

    neighbours: Annotated[tuple[SwarmMember, ...], Field(max_length=MAX_NEIGHBOURS)] = ()
    """Nodes to fetch chunks from."""

    origin_group: Annotated[tuple[SwarmMember, ...], Field(max_length=MAX_ORIGIN_GROUP)] = ()
    """Nodes that read the source, each chunk once among them; the same list on every node."""

    origin_bytes_per_second: Annotated[int, Field(ge=1, le=MAX_INT64)] | None = None
    """What this node may read from the revision's source: its share of the cluster's limit."""


class CacheNodeSpec(ApiModel):
    """The operator's wish."""

    models: Annotated[
        tuple[WantedModel, ...],
        Field(
            max_length=MAX_MODELS,
            json_schema_extra=listed_by("revision"),
        ),
    ] = ()
    """Revisions that the node should keep. What is not listed is evicted first."""

    renewals: Annotated[tuple[Renewal, ...], Field(max_length=MAX_RENEWALS)] = ()
    """Proofs of this node that others renewed. They renew proofs, and never make one."""

    swarms: Annotated[
        tuple[SwarmLists, ...],
        Field(
            max_length=MAX_SWARMS,
            json_schema_extra=listed_by("revision"),
        ),
    ] = ()
    """Whom it shares revisions with. As of when it last lacked one; then the lists stay."""


class HeldModel(ApiModel):
    """A revision on this node."""

    revision: Revision
    """Digest of the revision."""

    state: RevisionState
    """Fetching, Ready, WaitingForGrant or Failed."""

    reason: ReasonWord = ""
    """Why it is in this state."""

    message: Message = ""
    """Why, for people."""

    bytes_present: Bytes = 0
    """Bytes on disk and checked."""

    bytes_total: Bytes = 0
    """Size of the revision, bytes."""

    bytes_from_origin: Bytes = 0
    """Bytes that this node fetched from the source."""

    bytes_from_peers: Bytes = 0
    """Bytes that this node fetched from other nodes."""

    files: Count = 0
    """Files of the revision."""

    duplicates: Annotated[
        tuple[Annotated[str, Field(max_length=16)], ...], Field(max_length=MAX_DUPLICATES)
    ] = ()
    """Patterns of files that seem to hold its safetensors' weights again."""

    integrity: Integrity | None = None
    """What vouches for its bytes; set once it is complete."""

    leases: Count = 0
    """Mounted volumes that use it."""

    pinned: bool = False
    """Never evicted."""

    last_used_at: datetime | None = None
    """When a volume last used it."""


class Proof(ApiModel):
    """A namespace's grants could read every object of a revision."""

    namespace: Namespace
    """Namespace of the ModelCache."""

    model_cache: Annotated[str, Field(max_length=253)]
    """Name of the ModelCache."""

    model_cache_uid: Uid
    """Its uid."""

    request: Annotated[str, Field(max_length=64)]
    """The operator's hash of the source that was listed."""

    revision: Revision
    """What it listed."""

    at: datetime
    """When the agent checked."""

    renewed_at: datetime | None = None
    """When access was last proved again, here or on another node."""

    is_provisional: bool = False
    """It says what the source is, and lets nobody use it yet: only a digest was compared."""

    @property
    def checked_at(self) -> datetime:
        return self.at if self.renewed_at is None else max(self.at, self.renewed_at)


class Wanted(ApiModel):
    """A volume on this node waits for a ModelCache."""

    namespace: Namespace
    """Namespace of the pod and of the ModelCache."""

    model_cache: Annotated[str, Field(max_length=253)]
    """Name of the ModelCache."""

    model_cache_uid: Uid = ""
    """Its uid, where known."""

    pod_name: Annotated[str, Field(max_length=253)] = ""
    """The pod that waits."""

    since: datetime
    """Since when."""


class NodeConditionType(StrEnum):
    """What is said of a node."""

    LAZY_MOUNTS_LIMITED = "LazyMountsLimited"


class NodeCondition(ApiModel):
    """One aspect of a node; as metav1.Condition."""

    type: NodeConditionType
    """LazyMountsLimited: the node's kernel lacks what lazy mounts are fastest with, or was told to
    do without."""

    status: ConditionStatus
    """True, False or Unknown."""

    reason: ReasonWord
    """Why, as one word that never changes its meaning."""

    message: Message = ""
    """Why, for people."""

    last_transition_time: datetime
    """Since when the node's agent, as it runs now, says so."""


class CacheNodeStatus(ApiModel):
    """The agent's truth."""

    version: Annotated[str, Field(max_length=64)] = ""
    """Version of the agent."""

    address: Address = ""
    """host:port at which other nodes reach the agent."""

    boot_id: Annotated[str, Field(max_length=64)] = ""
    """Boot id of the node when this was written."""

    store_id: Annotated[str, Field(max_length=64)] = ""
    """Identity of the store; another one means another, or a wiped, disk."""

    heartbeat_at: datetime | None = None
    """When the agent last wrote this."""

    capacity_bytes: Bytes = 0
    """What the store may use."""

    used_bytes: Bytes = 0
    """What it uses."""

    reserved_bytes: Bytes = 0
    """What fetches under way will still use."""

    disk_healthy: bool = True
    """False: the disk answers with errors; the node takes no new models."""

    models: Annotated[tuple[HeldModel, ...], Field(max_length=MAX_MODELS)] = ()
    """Revisions on this node, complete or not."""

    proofs: Annotated[tuple[Proof, ...], Field(max_length=MAX_PROOFS)] = ()
    """Which namespaces may use which revision here."""

    wanted: Annotated[tuple[Wanted, ...], Field(max_length=MAX_WANTED)] = ()
    """Volumes that wait on this node."""

    conditions: Annotated[
        tuple[NodeCondition, ...],
        Field(
            max_length=8,
            json_schema_extra=listed_by("type"),
        ),
    ] = ()
    """LazyMountsLimited, once the node's plugin has reported."""


class CacheNode(ApiModel):
    """One node's cache: what the operator wishes, and what the agent reports."""

    api_version: str = API_VERSION
    kind: str = KIND
    metadata: ObjectMeta
    spec: CacheNodeSpec = CacheNodeSpec()
    """The operator's wish."""

    status: CacheNodeStatus = CacheNodeStatus()
    """The agent's truth."""
