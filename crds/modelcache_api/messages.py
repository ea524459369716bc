"""Messages between the parts: the agent's local API and the prefetch session.

Local API (HTTP/1.1 over the node's unix socket, JSON)::

    GET    /v1/status                        -> NodeReport
    GET    /v1/revisions                     -> RevisionList
    POST   /v1/revisions/{revision}/verify   VerifyRequest, or nothing -> VerifyReport
    POST   /v1/revisions/{revision}/evict    -> RevisionReport
    PUT    /v1/revisions/{revision}/pin      -> RevisionReport     DELETE unpins
    PUT    /v1/leases/{volume_id}            LeaseRequest -> LeaseAnswer
    DELETE /v1/leases/{volume_id}            -> 204, also when there is none
    PUT    /v1/leases                        LeaseReport -> 204: all volumes mounted on this node
    GET    /v1/prefetch                      WebSocket: a prefetch session

Job API (HTTPS, bearer token of audience ``names.AGENT_AUDIENCE``): ``GET /v1/prefetch`` alone.
Errors are ``ErrorBody`` under a 4xx or 5xx status.

A prefetch session: one JSON message per WebSocket text frame, ``{"type": …}``. The client says
Hello, Objects (one or many), ListingEnd; the agent answers Progress now and then, GrantsWanted
when grants run out (the client answers Grants), and ends with Done, Proved or Failed.
"""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from pydantic.alias_generators import to_camel

from modelcache_api.layouts import HubLayout
from modelcache_api.listing import (
    MAX_OBJECTS_PER_MESSAGE,
    Integrity,
    ListedObject,
    ObjectGrant,
)
from modelcache_api.reasons import Reason

PROTOCOL_VERSION = 1
#: Patterns of one revision's weights that are there twice: one for each older format.
MAX_DUPLICATES = 8
#: A signed URL with a session token is up to about 3 KiB; MAX_OBJECTS_PER_MESSAGE, with room.
MAX_MESSAGE_BYTES = 4 << 20
#: PEM of a tenant's CA. Arbitrary, tens of certificates.
MAX_CA_PEM_BYTES = 1 << 18
#: Response header that says why an upgrade to a session was refused: it can have no body.
REFUSAL_HEADER = "X-ModelCache-Message"

Name = Annotated[str, Field(min_length=1, max_length=253)]
Namespace = Annotated[str, Field(max_length=63, pattern=r"^$|^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
Uid = Annotated[str, Field(max_length=64)]
Revision = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
Bytes = Annotated[int, Field(ge=0)]
LazyFeature = Annotated[str, Field(pattern=r"^[a-z]{1,32}$")]


class Message(BaseModel):
    """Base: camelCase on the wire, nothing unknown, immutable once parsed."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
    )

    def wire(self) -> str:
        return self.model_dump_json(by_alias=True, exclude_none=True)


class ErrorBody(Message):
    """Why a request failed; the message is for people."""

    reason: Reason
    message: str


# -- prefetch session


class Hello(Message):
    """Opens a session: for whom, and under which CA.

    `namespace` is honoured on the unix socket only; a Job's is that of its token. `request` is
    the operator's name for what it asked, echoed in the proof. With `renews` nothing is fetched:
    the session ends with Proved once the namespace's access to that revision is proved again.
    `layout` is how the tree shall look, None: as the source; a revision other than `expected` is
    refused. `mirrored` is the source's name where it has mirrors: objects of which a checksum is
    stated are then known by it, wherever they are read, and to this namespace alone.
    """

    type: Literal["Hello"] = "Hello"
    protocol: int = PROTOCOL_VERSION
    namespace: Namespace = ""
    model_cache: str = Field(default="", max_length=253)
    model_cache_uid: Uid = ""
    request: str = Field(default="", max_length=64)
    ca_pem: str | None = Field(default=None, max_length=MAX_CA_PEM_BYTES)
    renews: Revision | None = None
    layout: HubLayout | None = None
    expected: Revision | None = None
    mirrored: str | None = Field(default=None, max_length=2048)


class RenewalWish(Message):
    """A source to prove access to, and for which revision: what ``modelcache prove`` is told."""

    uri: str = Field(max_length=2048)
    endpoint: str | None = Field(default=None, max_length=2048)
    region: str | None = Field(default=None, max_length=64)
    include: list[str] = Field(default=[], max_length=64)
    exclude: list[str] = Field(default=[], max_length=64)
    model_cache: Name
    model_cache_uid: Uid = ""
    request: str = Field(default="", max_length=64)
    renews: Revision


class Objects(Message):
    """Part of the listing, in any order."""

    type: Literal["Objects"] = "Objects"
    objects: list[ListedObject] = Field(max_length=MAX_OBJECTS_PER_MESSAGE)


class ListingEnd(Message):
    """`n_objects` in all were sent."""

    type: Literal["ListingEnd"] = "ListingEnd"
    n_objects: int = Field(ge=1)


class Grants(Message):
    """New grants, by path."""

    type: Literal["Grants"] = "Grants"
    grants: dict[str, ObjectGrant] = Field(max_length=MAX_OBJECTS_PER_MESSAGE)


class GrantsWanted(Message):
    """Grants of these paths ran out, or soon will."""

    type: Literal["GrantsWanted"] = "GrantsWanted"
    paths: list[str] = Field(max_length=MAX_OBJECTS_PER_MESSAGE)


class Progress(Message):
    """Where a fetch stands. `note` says what it waits for, if it does."""

    type: Literal["Progress"] = "Progress"
    revision: str | None = None
    bytes_present: Bytes = 0
    bytes_total: Bytes = 0
    bytes_from_origin: Bytes = 0
    bytes_from_peers: Bytes = 0
    retries: int = 0
    note: str | None = None


class Done(Message):
    """The revision is complete on this node."""

    type: Literal["Done"] = "Done"
    revision: Revision
    bytes: Bytes
    bytes_from_origin: Bytes
    bytes_from_peers: Bytes
    seconds: float
    retries: int = 0
    integrity: Integrity


class Proved(Message):
    """Access to the revision that Hello names is proved anew; nothing was fetched."""

    type: Literal["Proved"] = "Proved"
    revision: Revision


class Failed(Message):
    """The session is over without the revision. `retryable`: the same call may succeed later."""

    type: Literal["Failed"] = "Failed"
    reason: Reason
    message: str
    retryable: bool


FromClient = Annotated[Hello | Objects | ListingEnd | Grants, Field(discriminator="type")]
FromAgent = Annotated[Progress | GrantsWanted | Done | Proved | Failed, Field(discriminator="type")]
from_client: TypeAdapter[Hello | Objects | ListingEnd | Grants] = TypeAdapter(FromClient)
from_agent: TypeAdapter[Progress | GrantsWanted | Done | Proved | Failed] = TypeAdapter(FromAgent)


# -- leases


class LeaseState(StrEnum):
    """READY: leased and complete, mount it. WAITING: not yet; `reason` and bytes say how far.

    INCOMPLETE: leased, and on its way; only to who asked for it `lazy`.
    """

    READY = "Ready"
    INCOMPLETE = "Incomplete"
    WAITING = "Waiting"


class LeaseRequest(Message):
    """A volume wants a revision.

    `revision` None: the newest that the agent holds a proof of, for this ModelCache. The call
    waits up to `wait_s` for the last chunk. `model_cache_uid` is empty when the API server could
    not be asked; then the name decides. `lazy`: an incomplete revision is as good as a complete
    one.
    """

    namespace: Namespace
    model_cache: Name
    model_cache_uid: Uid = ""
    revision: Revision | None = None
    pod_name: str = Field(default="", max_length=253)
    pod_uid: Uid = ""
    wait_s: float = Field(default=0.0, ge=0, le=120)
    lazy: bool = False


class LeaseAnswer(Message):
    """`tree` (relative to the node's data directory) is set when READY."""

    state: LeaseState
    reason: Reason
    message: str
    revision: str | None = None
    tree: str | None = None
    bytes_present: Bytes = 0
    bytes_total: Bytes = 0
    bytes_per_s: float = 0.0


class LeaseReport(Message):
    """All volumes of ours in this node's mount table: volume id to revision.

    `lazy_lacks`: what lazy mounts of this node do without (``passthrough``, ``resend``); ``fuse``:
    none can be made.
    """

    leases: dict[str, Revision] = Field(max_length=10_000)
    lazy_lacks: tuple[LazyFeature, ...] = Field(default=(), max_length=8)


# -- what an agent says of itself


class RevisionState(StrEnum):
    """Where a revision stands on one node."""

    FETCHING = "Fetching"
    READY = "Ready"
    WAITING_FOR_GRANT = "WaitingForGrant"
    FAILED = "Failed"


class RevisionReport(Message):
    """One revision on one node. `last_used_at` is in seconds of the Unix epoch.

    `duplicates`: patterns of files that seem to hold its safetensors' weights again.
    """

    revision: Revision
    state: RevisionState
    reason: Reason
    message: str = ""
    bytes_present: Bytes
    bytes_total: Bytes
    files: int
    duplicates: list[str] = Field(default=[], max_length=MAX_DUPLICATES)
    integrity: Integrity | None = None
    leases: int = 0
    pinned: bool = False
    last_used_at: float | None = None
    bytes_from_origin: Bytes = 0
    bytes_from_peers: Bytes = 0


class RevisionList(Message):
    """What this node holds or fetches."""

    revisions: list[RevisionReport]


class VerifyRequest(Message):
    """Read a revision again, and wait up to `wait_s` for what is corrupt to be fetched again."""

    wait_s: float = Field(default=0.0, ge=0, le=3600)


class VerifyReport(Message):
    """`corrupt`: chunks found so, and dropped; `repaired`: those of them that are back."""

    revision: Revision
    chunks: int
    corrupt: int
    repaired: int
    state: RevisionState


class ProofReport(Message):
    """A namespace's grants could read every object of a revision, at that Unix time.

    `renewed_at`: when that was last proved again, here or on another node; 0 if never.
    `is_provisional`: it says what the source is, and lets nobody use it yet.
    """

    namespace: Namespace
    model_cache: str
    model_cache_uid: Uid
    request: str
    revision: Revision
    at: float
    renewed_at: float = 0.0
    is_provisional: bool = False


class WantedReport(Message):
    """A volume on this node waits for a ModelCache."""

    namespace: Namespace
    model_cache: str
    model_cache_uid: Uid
    pod_name: str = ""
    since: float


class LazyReport(Message):
    """What lazy mounts of this node do without, as the plugin said first at `since`.

    `since` is in seconds of the Unix epoch.
    """

    lacks: tuple[LazyFeature, ...]
    since: float


class NodeReport(Message):
    """The agent's truth. Times are seconds of the Unix epoch.

    `lazy` is None as long as no plugin has reported to this agent.
    """

    version: str
    boot_id: str
    store_id: str
    capacity_bytes: Bytes
    used_bytes: Bytes
    reserved_bytes: Bytes
    disk_healthy: bool = True
    leases_reported: bool
    revisions: list[RevisionReport]
    proofs: list[ProofReport]
    wanted: list[WantedReport]
    lazy: LazyReport | None = None
