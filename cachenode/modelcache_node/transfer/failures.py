"""How a range can fail, in words that cross from a worker to its parent.

A worker only says what happened; whether to ask again is its parent's decision.
"""

import errno
from collections.abc import Sequence
from enum import StrEnum


class FailureKind(StrEnum):
    """What happened to a range."""

    CHANGED = "changed"  # the object is not the one asked for
    EXPIRED = "expired"  # the grant is past its time
    DENIED = "denied"
    NOT_FOUND = "not-found"
    REFUSED = "refused"  # the origin will not serve this request, now or later
    MISBEHAVED = "misbehaved"  # an answer that does not fit the request
    THROTTLED = "throttled"
    UNAVAILABLE = "unavailable"  # no connection, no answer, or one that broke off
    REDIRECTED = "redirected"  # the bytes are elsewhere
    PEER_BUSY = "peer-busy"
    PEER_LACKS = "peer-lacks"  # it does not hold the chunk
    PEER_REFUSED = "peer-refused"  # it does not accept our signature
    PEER_WRONG = "peer-wrong"  # what it answered is not what this cluster's agents answer
    DISK_FULL = "disk-full"
    DISK_FAILED = "disk-failed"
    FILE_UNUSABLE = "file-unusable"  # our caller's mistake: no such file, not writable


class RangeFailedError(Exception):
    """A range ended without its bytes. Never leaves this package.

    Attributes:
        retry_after: The provider's ``Retry-After``, unparsed.
        location: Where it redirects to, unparsed.
        hints: Addresses of other holders, from a busy peer.
    """

    def __init__(
        self,
        kind: FailureKind,
        message: str,
        retry_after: str | None = None,
        location: str | None = None,
        hints: Sequence[str] = (),
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.retry_after = retry_after
        self.location = location
        self.hints = tuple(hints)


_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_FAILED = frozenset({errno.EIO, errno.EROFS, errno.EUCLEAN, errno.ENODEV, errno.ENXIO})


def disk_failure(error: OSError) -> RangeFailedError:
    """What an error of our own file system means."""
    if error.errno in _FULL:
        kind = FailureKind.DISK_FULL
    elif error.errno in _FAILED:
        kind = FailureKind.DISK_FAILED
    else:
        kind = FailureKind.FILE_UNUSABLE
    return RangeFailedError(kind, str(error))
