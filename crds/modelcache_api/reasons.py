"""Reasons: the closed set of words that say why something is as it is.

They stand in conditions, Events, session messages and exit summaries. Scripts match on
them, so a value is never renamed; what may change is the human-readable message beside it.
"""

from enum import StrEnum


class Reason(StrEnum):
    """Why. Grouped by who must act."""

    # Nothing to do: progress.
    RESOLVED = "Resolved"
    RESOLVING = "Resolving"
    FETCHING = "Fetching"
    READY = "Ready"
    NOT_REQUESTED = "NotRequested"

    # It works, and costs more than it need.
    DUPLICATE_WEIGHTS = "DuplicateWeights"

    # The user must change the source, its access or the request.
    INVALID_REQUEST = "InvalidRequest"
    INVALID_SOURCE = "InvalidSource"
    SOURCE_NOT_FOUND = "SourceNotFound"
    EMPTY_SOURCE = "EmptySource"
    UNSAFE_PATH = "UnsafePath"
    ACCESS_DENIED = "AccessDenied"
    NOT_PROVED = "NotProved"
    PROOF_EXPIRED = "ProofExpired"
    MODEL_CACHE_NOT_FOUND = "ModelCacheNotFound"
    SOURCE_LIES = "SourceLies"
    ENDPOINT_DENIED = "EndpointDenied"

    # The world changed or is away; trying again may help.
    SOURCE_CHANGED = "SourceChanged"
    SOURCE_UNAVAILABLE = "SourceUnavailable"
    GRANT_EXPIRED = "GrantExpired"
    WAITING_FOR_GRANT = "WaitingForGrant"
    INTEGRITY_MISMATCH = "IntegrityMismatch"
    AGENT_UNAVAILABLE = "AgentUnavailable"
    JOB_PENDING = "JobPending"
    JOB_FAILED = "JobFailed"
    NO_NODES = "NoNodes"

    # The node's operator must act.
    INSUFFICIENT_CAPACITY = "InsufficientCapacity"
    DISK_FULL = "DiskFull"
    DISK_FAILED = "DiskFailed"
    EVICTED = "Evicted"
    KERNEL_LACKS_FEATURES = "KernelLacksFeatures"
    INTERNAL = "Internal"
