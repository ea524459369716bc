"""Errors that cross a boundary between parts.

Every class says two things a caller must know: whether a retry can help (``retryable``),
and whose fault it is (its ``reason``). Adapters at the edges (gRPC, HTTP, exit codes)
translate these classes once; nothing inside a part looks at a transport's codes.

Standard-library errors (`OSError`, `TimeoutError`) are not wrapped on the way up; they are
translated at the edge, and chained with ``from`` when they are.
"""

from typing import ClassVar

from modelcache_api.reasons import Reason


class ModelCacheError(Exception):
    """Base of all errors this project raises on purpose. Its text is for people."""

    reason: ClassVar[Reason] = Reason.INTERNAL
    retryable: ClassVar[bool] = False


class InvalidRequestError(ModelCacheError):
    """The caller's input can never succeed as it stands. Do not retry."""

    reason = Reason.INVALID_REQUEST


class InvalidSourceError(ModelCacheError):
    """The source cannot be used as named: scheme, URI, options. The user must change it."""

    reason = Reason.INVALID_SOURCE


class SourceNotFoundError(InvalidSourceError):
    """No such bucket, prefix or object. The user must change the source or create it."""

    reason = Reason.SOURCE_NOT_FOUND


class EmptySourceError(InvalidSourceError):
    """The source exists and holds no file, or the filters exclude every one."""

    reason = Reason.EMPTY_SOURCE


class UnsafePathError(InvalidSourceError):
    """An object's name cannot become a file beneath a tree. The user must rename it."""

    reason = Reason.UNSAFE_PATH


class AccessDeniedError(InvalidSourceError):
    """The credentials may not read the source. The user must change them or its policy."""

    reason = Reason.ACCESS_DENIED


class EndpointDeniedError(InvalidSourceError):
    """The administrator does not let this cluster's nodes go where the source leads."""

    reason = Reason.ENDPOINT_DENIED


class SourceLiesError(InvalidSourceError):
    """What was said of an object is not what its origin answers. Nothing of it is kept."""

    reason = Reason.SOURCE_LIES


class NotProvedError(ModelCacheError):
    """The namespace has no proof for the revision on this node. A Job may bring one."""

    reason = Reason.NOT_PROVED
    retryable = True


class ModelCacheNotFoundError(ModelCacheError):
    """The pod's namespace holds no such ModelCache. Creating it helps."""

    reason = Reason.MODEL_CACHE_NOT_FOUND
    retryable = True


class SourceChangedError(ModelCacheError):
    """An object is no longer what was listed. Abandon that revision; resolve anew."""

    reason = Reason.SOURCE_CHANGED
    retryable = True


class GrantExpiredError(ModelCacheError):
    """A grant is past its time. Get a new one and ask again."""

    reason = Reason.GRANT_EXPIRED
    retryable = True


class UnavailableError(ModelCacheError):
    """The same call may succeed later.

    Attributes:
        retry_after_s: Seconds the other side asked to wait; None when it did not say.
    """

    reason = Reason.AGENT_UNAVAILABLE
    retryable = True

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class SourceUnavailableError(UnavailableError):
    """The origin does not answer, throttles, or breaks off. Try again later."""

    reason = Reason.SOURCE_UNAVAILABLE


class IntegrityMismatchError(ModelCacheError):
    """Bytes do not match their checksum. Drop and fetch again; never serve them."""

    reason = Reason.INTEGRITY_MISMATCH
    retryable = True


class InsufficientCapacityError(ModelCacheError):
    """The store cannot hold the model, even after evicting all it may. More disk helps."""

    reason = Reason.INSUFFICIENT_CAPACITY
    retryable = True


class DiskFullError(ModelCacheError):
    """The file system is full although space was reserved. Fetches pause, readers go on."""

    reason = Reason.DISK_FULL
    retryable = True


class DiskFailedError(ModelCacheError):
    """The disk answers with I/O errors. The node is taken out, never a pod's data."""

    reason = Reason.DISK_FAILED
    retryable = True


def _all_kinds(base: type[ModelCacheError]) -> list[type[ModelCacheError]]:
    return [base, *(kind for sub in base.__subclasses__() for kind in _all_kinds(sub))]


def error_of(reason: Reason, message: str) -> ModelCacheError:
    """The error that a peer's (reason, message) stands for."""
    kinds = {kind.reason: kind for kind in reversed(_all_kinds(ModelCacheError))}
    return kinds.get(reason, ModelCacheError)(message)
