"""One signed request of a mover to a peer, and what its answer must be.

Nothing of an answer is written before its head was found to be signed by this cluster, for this
very request. Whatever does not fit is the peer's fault and never says that the source changed.
"""

from modelcache_api.peer_auth import (
    HEADER,
    Answered,
    Asked,
    ClusterKeys,
    UntrustedError,
    crc32c_text,
    sha256_text,
    sign_request,
    verify_answer,
)
from modelcache_node.transfer.checking import Accepted, Expected, check_head
from modelcache_node.transfer.failures import FailureKind, RangeFailedError
from modelcache_node.transfer.http1 import Head
from modelcache_node.transfer.wire import Assignment

#: Other holders taken from one answer; as many as a node has neighbours.
MAX_HINTS = 32
_MESSAGE_CHARS = 300


class PeerExchange:
    """See the module.

    Attributes:
        request: The bytes to send, signature included.
    """

    def __init__(
        self, assignment: Assignment, keys: ClusterKeys, *, asker: str, nonce: str, now: float
    ) -> None:
        """`nonce` is new, `now` the wall clock in seconds."""
        self._keys = keys
        self._nonce = nonce
        self._crc32c = assignment.crc32c
        self._checksum = ""
        method, target, _ = assignment.request.split(" ", 2)
        last = assignment.offset + assignment.length - 1
        asked = Asked(method, target, f"bytes={assignment.offset}-{last}")
        signature = sign_request(keys, asked, asker=asker, nonce=nonce, now=now)
        head = assignment.request.removesuffix("\r\n")
        self.request = f"{head}{HEADER}: {signature}\r\n\r\n".encode("latin-1")

    def check_head(self, expected: Expected, head: Head) -> Accepted | None:
        """As `checking.check_head`.

        Raises:
            RangeFailedError: PEER_WRONG; the body must not be used.
        """
        if head.status not in {200, 206}:
            return None
        self._checksum = self._verify(head, head.content_length).checksum
        if self._crc32c is not None and self._checksum != crc32c_text(self._crc32c):
            raise _wrong(f"it has {self._checksum}, and {crc32c_text(self._crc32c)} was fetched")
        try:
            return check_head(expected, head)
        except RangeFailedError as e:
            raise _wrong(e.message) from e

    def check_body(self, crc32c: int) -> None:
        """Compare the whole body's CRC32C with what the answer announced.

        Raises:
            RangeFailedError: PEER_WRONG; the chunk must be dropped.
        """
        if crc32c_text(crc32c) != self._checksum:
            raise _wrong(f"its bytes have {crc32c_text(crc32c)}, not {self._checksum}")

    def judge_error(self, head: Head, body: bytes) -> RangeFailedError:
        """What an error answer means, from its status and its body."""
        if head.status == 401:  # a node with another key cannot sign for us
            return RangeFailedError(FailureKind.PEER_REFUSED, _excerpt(body))
        try:
            answered = self._verify(head, len(body))
        except RangeFailedError as e:
            return e
        if answered.checksum != sha256_text(body):
            return _wrong(f"the body of HTTP {head.status} is not the one that was signed")
        if head.status == 503:
            hints = tuple(filter(None, body.decode("latin-1").split("\n")))[:MAX_HINTS]
            retry_after = head.headers.get("retry-after")
            return RangeFailedError(FailureKind.PEER_BUSY, "busy", retry_after, hints=hints)
        if head.status == 404:
            return RangeFailedError(FailureKind.PEER_LACKS, "it does not hold the chunk")
        said = f"HTTP {head.status}: {_excerpt(body)}"
        if head.status >= 500:
            return RangeFailedError(FailureKind.UNAVAILABLE, said)
        return _wrong(said)

    def _verify(self, head: Head, length: int | None) -> Answered:
        try:
            return verify_answer(
                self._keys,
                head.headers.get(HEADER.lower()),
                nonce=self._nonce,
                status=head.status,
                length=-1 if length is None else length,
            )
        except UntrustedError as e:
            raise _wrong(f"HTTP {head.status}: {e}") from e


def _wrong(message: str) -> RangeFailedError:
    return RangeFailedError(FailureKind.PEER_WRONG, message)


def _excerpt(body: bytes) -> str:
    text = body.decode("utf-8", "replace")[:_MESSAGE_CHARS].strip()
    return "".join(char if char.isprintable() else " " for char in text)
