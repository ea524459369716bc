"""What is asked of movers about a peer's chunk, and how a peer can fail. Plain values."""

import os
from dataclasses import dataclass

from modelcache_api.chunks import chunk_range
from modelcache_api.errors import ModelCacheError

#: How long to leave a busy peer alone that does not say. Arbitrary: some chunks at 1 GB/s.
BUSY_PAUSE_S = 0.2


@dataclass(frozen=True, slots=True)
class PeerRange:
    """One chunk, of one peer.

    Attributes:
        peer: ``host:port``.
        blob: Name of the blob's directory in a store: its key, or key and provider id.
        index: Of the chunk.
        total_bytes: Size of the blob.
        path: File that holds the blob's bytes at their offsets.
        crc32c: What who fetched the chunk from the origin says it has; None where nobody said:
            the peer's own signed word is taken then.
        want_crc64nvme: Compute CRC64/NVME beside CRC32C.
        priority: Lower goes first; equal ones in the order asked.
    """

    peer: str
    blob: str
    index: int
    total_bytes: int
    path: str | os.PathLike[str]
    crc32c: int | None = None
    want_crc64nvme: bool = False
    priority: int = 0

    @property
    def span(self) -> tuple[int, int]:
        """(offset, length) in bytes."""
        return chunk_range(self.index, self.total_bytes)

    @property
    def target(self) -> str:
        return chunk_target(self.blob, self.index)


def chunk_target(blob: str, index: int) -> str:
    """The path under which agents serve a chunk."""
    return f"/peer/v1/chunks/{blob}/{index}"


def blob_validator(blob: str) -> str:
    """The ETag of a blob's chunks: its key. A partial blob may have been sealed meanwhile."""
    return f'"{blob.partition(".")[0]}"'


class PeerError(ModelCacheError):
    """A peer did not give what it was asked for; another provider may. `peer` is its address."""

    retryable = True

    def __init__(self, peer: str, message: str) -> None:
        super().__init__(f"{peer}: {message}")
        self.peer = peer


class PeerBusyError(PeerError):
    """It serves as many as it may. Nobody's fault; ask one of `hints`, or again later."""

    def __init__(self, peer: str, *, retry_after_s: float, hints: tuple[str, ...]) -> None:
        super().__init__(peer, "busy")
        self.retry_after_s = retry_after_s
        self.hints = hints


class PeerLacksError(PeerError):
    """It does not hold the chunk, whatever its have-map said. Ask for its map again."""


class PeerUnavailableError(PeerError):
    """No connection, no answer, or one that broke off. Leave it alone for a while."""


class PeerRefusedError(PeerError):
    """It does not accept our signature: the text says whether by key or by clock."""


class PeerMisbehavedError(PeerError):
    """What it sent is not the chunk, or not from this cluster: its fault. Nothing was kept."""
