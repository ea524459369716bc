"""A peer's request: its head, read strictly, and what its path names. Pure."""

import re
from typing import NamedTuple

from modelcache_api.units import KIB
from modelcache_node.transfer.http1 import MalformedHeadError, parse_headers

#: Longest head that is read. Ours have 400 bytes; arbitrary, above what a proxy adds.
MAX_HEAD_BYTES = 8 * KIB
#: Longest body. A claim names chunks by number; arbitrary, above a thousand of them.
MAX_BODY_BYTES = 64 * KIB
#: What anybody may ask: facts about this agent, no names of tenants.
PUBLIC_TARGETS = frozenset({"/healthz", "/metrics"})
PEER_PREFIX = "/peer/v1/"

_END = b"\r\n\r\n"
_TARGET = re.compile(r"/[!-~]{0,511}")
_CHUNKS_PREFIX = f"{PEER_PREFIX}chunks/"
_CHUNK = re.compile(_CHUNKS_PREFIX + r"([0-9a-f]{64}(?:\.[0-9a-f]{16})?)/(0|[1-9][0-9]{0,8})")


class PeerRequest(NamedTuple):
    """A whole request. Header names are lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes = b""

    @property
    def keeps_alive(self) -> bool:
        return "close" not in self.headers.get("connection", "").lower()


class ChunkName(NamedTuple):
    """Which chunk a path names: safe to use as parts of a path on disk."""

    blob: str
    number: int


class RequestReader:
    """Collects requests from pieces of any size. Holds one, and what came with its last piece."""

    def __init__(self) -> None:
        self._raw = b""
        self._head: PeerRequest | None = None

    @property
    def has_begun(self) -> bool:
        return bool(self._raw) or self._head is not None

    def feed(self, piece: bytes | memoryview) -> None:
        """Take what came.

        Raises:
            MalformedHeadError: more than a request and the next head take.
        """
        if len(self._raw) + len(piece) > MAX_BODY_BYTES + 2 * MAX_HEAD_BYTES:
            raise MalformedHeadError("more bytes than a request has")
        self._raw += piece

    def next_request(self) -> PeerRequest | None:
        """The next request, if it came whole.

        Raises:
            MalformedHeadError: not a request that is served here.
        """
        if self._head is None:
            self._head = self._next_head()
        if self._head is None:
            return None
        length = int(self._head.headers.get("content-length", "0"))
        if len(self._raw) < length:
            return None
        request = self._head._replace(body=self._raw[:length])
        self._raw, self._head = self._raw[length:], None
        return request

    def _next_head(self) -> PeerRequest | None:
        end = self._raw.find(_END)
        if end > MAX_HEAD_BYTES or (end < 0 and len(self._raw) > MAX_HEAD_BYTES):
            raise MalformedHeadError(f"a request's head has at most {MAX_HEAD_BYTES} bytes")
        if end < 0:
            return None
        raw, self._raw = self._raw[:end], self._raw[end + len(_END) :]
        return _parse(raw)


def chunk_named(target: str) -> ChunkName | None:
    """The chunk that a path names; None for another path.

    Raises:
        MalformedHeadError: it begins like a chunk's, and names none.
    """
    match = _CHUNK.fullmatch(target)
    if match:
        return ChunkName(match[1], int(match[2]))
    if target.startswith(_CHUNKS_PREFIX):
        raise MalformedHeadError("not the name of a chunk")
    return None


def _parse(raw: bytes) -> PeerRequest:
    if b"\0" in raw or b"\n" in raw.replace(b"\r\n", b""):
        raise MalformedHeadError("the request's head holds a NUL or a bare line feed")
    first, *lines = raw.decode("latin-1").split("\r\n")
    method, _, rest = first.partition(" ")
    target, _, version = rest.partition(" ")
    if version != "HTTP/1.1" or not _TARGET.fullmatch(target):
        raise MalformedHeadError("not an HTTP/1.1 request for a plain path")
    if method not in {"GET", "POST"}:
        raise MalformedHeadError("only GET and POST are served here")
    headers = parse_headers(lines)
    length = int(headers.get("content-length", "0"))
    if "transfer-encoding" in headers or length > (MAX_BODY_BYTES if method == "POST" else 0):
        raise MalformedHeadError(f"only POST has a body here, of at most {MAX_BODY_BYTES} bytes")
    return PeerRequest(method, target, headers)
