"""ModelCache: a model that a namespace wants on nodes, and how far that is.

Written by users (spec) and by the operator alone (status).
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from modelcache_api.names import API_VERSION
from modelcache_api.objects import (
    ApiModel,
    Bytes,
    ConditionStatus,
    Count,
    Generation,
    Message,
    ObjectMeta,
    ReasonWord,
    Revision,
    cel,
    listed_by,
)
from modelcache_api.source import Source

KIND = "ModelCache"
PLURAL = "modelcaches"
SHORT_NAMES = ("mc",)

#: Arbitrary; far above any selector in use, and small enough for CEL's cost limit.
MAX_LABELS = 16
#: Earlier revisions that status remembers. Arbitrary.
MAX_PREVIOUS_REVISIONS = 10


class TolerationOperator(StrEnum):
    """How a toleration compares."""

    EXISTS = "Exists"
    EQUAL = "Equal"


class TaintEffect(StrEnum):
    """What a taint does."""

    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    NO_EXECUTE = "NoExecute"


class Toleration(ApiModel):
    """A taint that does not keep the model off a node; as in a pod."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "self.operator == 'Exists' ? !has(self.value) : has(self.key)",
                "operator Exists takes no value, operator Equal needs a key",
            )
        )
    )

    key: Annotated[str, Field(max_length=317)] | None = None
    """Taint key; unset with operator Exists tolerates every taint."""

    operator: TolerationOperator = TolerationOperator.EQUAL
    """Exists, or Equal (the default)."""

    value: Annotated[str, Field(max_length=63)] | None = None
    """Taint value, for Equal."""

    effect: TaintEffect | None = None
    """Taint effect; unset: every effect."""


class Prefetch(StrEnum):
    """When a node gets the model."""

    EAGER = "Eager"
    ON_DEMAND = "OnDemand"


class Placement(ApiModel):
    """Which nodes get the model. Pods on other nodes get it too, when they start."""

    node_selector: Annotated[
        dict[str, Annotated[str, Field(max_length=63)]],
        Field(
            max_length=MAX_LABELS,
            json_schema_extra=cel(
                ("self.all(key, key.size() <= 317)", "a label key has at most 317 characters")
            ),
        ),
    ] = Field(default_factory=dict)
    """Labels that a node must have. Empty: every node that runs a cache."""

    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=MAX_LABELS)] = ()
    """Taints of nodes that get the model all the same. Taints of accelerators (nvidia.com/gpu and
    the like) and of cordoned nodes are always tolerated."""

    max_nodes: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """At most so many nodes. Unset: all that match."""

    prefetch: Prefetch = Prefetch.EAGER
    """Eager: nodes get the model at once, and new nodes as they join. OnDemand: when a pod on
    the node first asks."""


class Layout(StrEnum):
    """How files lie in the volume."""

    PLAIN = "plain"
    HF = "hf"


class Verify(ApiModel):
    """What the source must be; else it is refused before anything is fetched."""

    expected_digest: Revision | None = None
    """The revision that the source must have, sha256:… as status.revision says it."""

    safetensors_only: bool = False
    """Refuse files that can run code when they are loaded, such as .bin, .pt and .pkl."""


class Retention(ApiModel):
    """How long nodes keep the model."""

    pinned: bool = False
    """Never evict the model from the nodes of its placement."""


class ModelCacheSpec(ApiModel):
    """What the user wants."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "!has(self.layout) || self.layout != 'hf' || self.source.uri.startsWith('hf://')",
                "the layout hf is of hf:// sources alone",
            )
        )
    )

    source: Source
    """What to cache."""

    placement: Placement = Placement()
    """Where to cache it."""

    retention: Retention = Retention()
    """How long to keep it."""

    layout: Layout = Layout.PLAIN
    """plain: as in the source. hf: as Hugging Face's cache, models--org--name/snapshots/…, for
    programs that are given org/name and HF_HUB_CACHE set to the mount."""

    verify: Verify = Verify()
    """What the source must be."""


class NodeCounts(ApiModel):
    """Nodes of the placement; with prefetch OnDemand, nodes where a pod asked."""

    desired: Count = 0
    """Nodes that should hold the model."""

    ready: Count = 0
    """Nodes that hold all of it, checked, and whose agent was heard from."""

    fetching: Count = 0
    """Nodes that are fetching it."""

    failed: Count = 0
    """Nodes that cannot get it now; see the conditions."""


class ByteCounts(ApiModel):
    """Bytes, added up over the desired nodes."""

    wanted: Bytes = 0
    """Size of the model times the desired nodes."""

    present: Bytes = 0
    """Of these, bytes on the nodes' disks and checked."""

    from_origin: Bytes = 0
    """Bytes that the nodes fetched from the source."""

    from_peers: Bytes = 0
    """Bytes that the nodes fetched from each other."""


class ConditionType(StrEnum):
    """What is said of a ModelCache. All five are always there."""

    RESOLVED = "Resolved"
    READY = "Ready"
    PROGRESSING = "Progressing"
    DEGRADED = "Degraded"
    REDUNDANT = "Redundant"


class Condition(ApiModel):
    """One aspect of the state; as metav1.Condition."""

    type: ConditionType
    """Resolved: the source was listed and its revision is known. Ready: every desired node
    holds it. Progressing: nodes are fetching. Degraded: a node, or the source, needs help.
    Redundant: the source seems to hold its weights twice, and exclude may leave some out."""

    status: ConditionStatus
    """True, False or Unknown."""

    reason: ReasonWord
    """Why, as one word that never changes its meaning."""

    message: Message = ""
    """Why, for people."""

    observed_generation: Generation = 0
    """The metadata.generation that this was said of."""

    last_transition_time: datetime
    """When the status last changed."""


class PreviousRevision(ApiModel):
    """A revision that the source had before."""

    revision: Revision
    """Its digest."""

    replaced_at: datetime
    """When the next one took its place."""


class ModelCacheStatus(ApiModel):
    """How far it is: counts, never a list of nodes. `kubectl get cachenodes` has the nodes."""

    observed_generation: Generation = 0
    """The metadata.generation that this status speaks of."""

    request: Annotated[str, Field(max_length=64)] = ""
    """Hash of the source as it was last resolved; changes with spec.source and with the
    refresh annotation."""

    revision: Revision | None = None
    """Digest of the source's files as last resolved."""

    previous_revisions: Annotated[
        tuple[PreviousRevision, ...], Field(max_length=MAX_PREVIOUS_REVISIONS)
    ] = ()
    """Revisions that the source had before, newest first."""

    size_bytes: Bytes | None = None
    """Size of the revision, bytes."""

    files: Count | None = None
    """Files of the revision."""

    nodes: NodeCounts = NodeCounts()
    """How many nodes hold it."""

    bytes: ByteCounts = ByteCounts()
    """How many bytes they hold, and where these came from."""

    integrity: Annotated[str, Field(max_length=32)] | None = None
    """What vouches for the bytes, the weakest over all nodes: Sha256, StoreChecksum or
    TransportOnly."""

    conditions: Annotated[
        tuple[Condition, ...],
        Field(
            max_length=8,
            json_schema_extra=listed_by("type"),
        ),
    ] = ()
    """Resolved, Ready, Progressing, Degraded and Redundant."""

    def condition(self, kind: ConditionType) -> Condition | None:
        return next((found for found in self.conditions if found.type is kind), None)


class ModelCache(ApiModel):
    """A model that this namespace wants on the nodes' own disks.

    Pods of this namespace mount it by a CSI volume of driver csi.modelcache.io with the
    attribute modelCache set to its name. The annotation modelcache.io/refresh, set to any new
    value, asks for the source to be listed again.
    """

    api_version: str = API_VERSION
    kind: str = KIND
    metadata: ObjectMeta
    spec: ModelCacheSpec
    """What the user wants."""

    status: ModelCacheStatus = ModelCacheStatus()
    """How far it is; written by the operator."""
