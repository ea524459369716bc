"""What is asked of movers, and what they answer. Plain values.

A range is one HTTP request for part of one object, written to its place in a file. It is pinned:
`validator` goes out as ``If-Match`` and is compared with the answer, as are range and total size.
"""

import os
from dataclasses import dataclass, field
from typing import Self

from modelcache_node.transfer.wire import Done

#: Somebody waits for this range and nothing else, a reader for instance.
URGENT_PRIORITY = -2


@dataclass(frozen=True, slots=True)
class Grant:
    """What lets one object be read for a while. Never logged, never written to disk."""

    url: str = field(repr=False)
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    #: Seconds of the Unix epoch; None when it does not end. For its holder: movers do not look.
    expires_at: float | None = None


@dataclass(frozen=True, slots=True)
class RangeRequest:
    """One range of one object.

    Attributes:
        path: File that holds the object's bytes at their offsets; None drops them (a probe).
            It exists and is as long as the object.
        offset: First byte.
        length: Bytes; 0 only for an object that is expected to be empty.
        validator: ETag the answer must carry, with its quotes; None to be told it.
        total_bytes: Size the object must have; None to be told it.
        ca_pem: Authorities to trust instead of the system's, as PEM text.
        want_crc64nvme: Compute CRC64/NVME beside CRC32C.
        priority: Lower goes first; equal ones in the order asked. From `URGENT_PRIORITY` down: at
            once, whatever is under way, which is held up for so long.
    """

    path: str | os.PathLike[str] | None
    offset: int
    length: int
    grant: Grant
    validator: str | None = None
    total_bytes: int | None = None
    ca_pem: str | None = field(default=None, repr=False)
    want_crc64nvme: bool = False
    priority: int = 0

    def __post_init__(self) -> None:
        if self.offset < 0 or self.length < 0:
            raise ValueError("a range begins at 0 or later and has no negative length")
        if self.total_bytes is not None and self.offset + self.length > self.total_bytes:
            raise ValueError("a range ends within its object")


@dataclass(frozen=True, slots=True)
class PeerTls:
    """How a peer's certificate is checked: who signed it, and the one name in all of them."""

    ca_pem: str = field(repr=False)
    server_name: str


@dataclass(frozen=True, slots=True)
class RangeResult:
    """A range that was received whole, checked against its answer's head, and written.

    Attributes:
        crc32c: Of these bytes.
        crc64nvme: Of these bytes, if it was wanted.
        bytes: As many as were asked for.
        validator: The answer's ETag; None where the origin states none.
        total_bytes: The object's size according to the answer.
        seconds: From sending the request that succeeded to its last byte.
    """

    crc32c: int
    crc64nvme: int | None
    bytes: int
    validator: str | None
    total_bytes: int
    seconds: float

    @classmethod
    def of(cls, done: Done, n_bytes: int) -> Self:
        """What a worker said of a range of so many bytes."""
        return cls(
            done.crc32c,
            done.crc64nvme,
            n_bytes,
            done.validator,
            done.total_bytes,
            done.seconds,
        )


@dataclass(slots=True)
class Traffic:
    """What was asked of one kind of provider since the start, and the bytes of what came whole."""

    requests: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class MoverStats:
    """Totals since the start, of all movers together.

    Attributes:
        bytes_received: Body bytes, also of ranges that failed later.
        ranges: Ranges that succeeded.
        retries: Ranges asked for again after a failure.
        throttled: Answers that asked us to slow down (429, 503).
        restarts: Movers that died and were replaced.
        cpu_seconds: User and system time of movers, those that ended included.
    """

    bytes_received: int = 0
    ranges: int = 0
    retries: int = 0
    throttled: int = 0
    restarts: int = 0
    cpu_seconds: float = 0.0
