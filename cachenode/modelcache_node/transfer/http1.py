"""HTTP/1.1 as movers speak it: one request's bytes, and the head of its answer. Pure.

Strict where leniency would let two parties read an answer differently: no folded headers, no bare
line feeds, no two lengths, no length beside a transfer coding (RFC 9112, sections 5 and 6).
"""

from collections.abc import Sequence
from typing import NamedTuple

from modelcache_api.units import KIB

#: Longest head of an answer. Object stores send 1-2 KiB; arbitrary, above common servers' own 8.
MAX_HEAD_BYTES = 32 * KIB
MAX_HEADERS = 100  # arbitrary; object stores send about 15
#: Longest head of a request: a URL signed with a long session token takes 2-4 KiB.
MAX_REQUEST_BYTES = 16 * KIB

_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_OURS = frozenset({
    "host", "range", "if-match", "if-unmodified-since", "connection", "content-length",
    "transfer-encoding", "accept-encoding", "expect", "upgrade", "te", "trailer",
})  # fmt: skip
_END = b"\r\n\r\n"


class MalformedHeadError(Exception):
    """These bytes are not the head of an HTTP/1.1 answer, or a larger one than we take."""


class Head(NamedTuple):
    """The head of an answer. Header names are lower case; repeated ones are joined by commas."""

    status: int
    headers: dict[str, str]
    is_http_1_0: bool

    @property
    def content_length(self) -> int | None:
        text = self.headers.get("content-length")
        return None if text is None else int(text)

    @property
    def is_chunked(self) -> bool:
        return "transfer-encoding" in self.headers

    @property
    def keeps_alive(self) -> bool:
        tokens = {token.strip() for token in self.headers.get("connection", "").lower().split(",")}
        return "keep-alive" in tokens if self.is_http_1_0 else "close" not in tokens


def build_request(
    target: str,
    host: str,
    headers: tuple[tuple[str, str], ...] = (),
    *,
    span: tuple[int, int] | None,
    condition: tuple[str, str] | None,
    is_asked_whole: bool = False,
) -> bytes:
    """The bytes of one GET.

    Args:
        target: Path and query, as signed: it is sent unchanged.
        host: Value of ``Host``.
        headers: A grant's own headers.
        span: First and last byte wanted; None asks for the whole object.
        condition: The header that pins the object's state, see `pins`.
        is_asked_whole: Ask for the whole http URL, as proxies want it.

    Raises:
        ValueError: something in it could end a line or stand for two requests.
    """
    if not target.startswith("/") or not _is_printable(target):
        raise ValueError("the URL's path holds characters that must be percent-encoded")
    if not host or not _is_printable(host):
        raise ValueError("the URL's host is malformed")
    asked = f"http://{host}{target}" if is_asked_whole else target
    lines = [f"GET {asked} HTTP/1.1", f"Host: {host}", "Accept-Encoding: identity"]
    if span is not None:
        lines.append(f"Range: bytes={span[0]}-{span[1]}")
    if condition is not None:
        lines.append(f"{condition[0]}: {_checked_value(condition[1])}")
    for name, value in headers:
        if not name or not set(name) <= _TOKEN or name.lower() in _OURS:
            raise ValueError(f"a grant may not set the header {name[:60]!r}")
        lines.append(f"{name}: {_checked_value(value)}")
    raw = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
    if len(raw) > MAX_REQUEST_BYTES:
        raise ValueError(f"a request of {len(raw)} bytes is longer than {MAX_REQUEST_BYTES}")
    return raw


def quoted(validator: str) -> str:
    """An entity tag with its quotes; some stores list it without them."""
    if validator.startswith(('"', "W/")):
        return validator
    return f'"{validator}"'


def _is_printable(text: str) -> bool:
    return text.isascii() and text.isprintable() and " " not in text


def _checked_value(value: str) -> str:
    if not all(" " <= char <= "~" or char == "\t" for char in value):
        raise ValueError("a header's value holds characters that HTTP forbids")
    return value


class HeadReader:
    """Collects an answer's head from pieces of any size."""

    def __init__(self) -> None:
        self._raw = b""

    @property
    def has_begun(self) -> bool:
        return bool(self._raw)

    def feed(self, piece: bytes | memoryview) -> tuple[Head, int] | None:
        """Take what came; None while the head is not complete.

        Returns:
            The head, and how many bytes at the end of `piece` belong to the body.

        Raises:
            MalformedHeadError: see there.
        """
        before = len(self._raw)
        self._raw += bytes(piece[: MAX_HEAD_BYTES + len(_END)])
        taken = len(self._raw) - before
        end = self._raw.find(_END, max(0, before - len(_END)))
        if end > MAX_HEAD_BYTES or (end < 0 and len(self._raw) > MAX_HEAD_BYTES):
            raise MalformedHeadError(f"the answer's head is longer than {MAX_HEAD_BYTES} bytes")
        if end < 0:
            return None
        head = parse_head(self._raw[:end])
        rest = len(self._raw) - end - len(_END) + (len(piece) - taken)
        if 100 <= head.status < 200:  # interim: the real one follows
            body = bytes(piece[len(piece) - rest :])
            self._raw = b""
            return self.feed(body) if body else None
        return head, rest


def parse_head(raw: bytes) -> Head:
    """Parse a head without its empty line.

    Raises:
        MalformedHeadError: see there.
    """
    if b"\0" in raw or b"\n" in raw.replace(b"\r\n", b""):
        raise MalformedHeadError("the answer's head holds a NUL or a bare line feed")
    first, *lines = raw.decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    code = rest[:3]
    if (
        version not in {"HTTP/1.1", "HTTP/1.0"}
        or not _is_digits(code)
        or rest[3:4] not in {"", " "}
    ):
        raise MalformedHeadError(f"not the start of an HTTP/1.1 answer: {first[:60]!r}")
    headers = parse_headers(lines)
    return Head(int(code), headers, version == "HTTP/1.0")


def parse_headers(lines: Sequence[str]) -> dict[str, str]:
    """Headers by lower-case name; repeated ones are joined by commas.

    Raises:
        MalformedHeadError: see there.
    """
    if len(lines) > MAX_HEADERS:
        raise MalformedHeadError(f"more than {MAX_HEADERS} headers")
    headers: dict[str, str] = {}
    for line in lines:
        name, value = _parse_header(line)
        if name in headers:
            value = _joined(name, headers[name], value)
        headers[name] = value
    length = headers.get("content-length")
    if length is not None and (not _is_digits(length) or "transfer-encoding" in headers):
        raise MalformedHeadError("a length stated in two ways, or not as a number")
    return headers


def _parse_header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon or not name or not set(name) <= _TOKEN:  # a folded line begins with a space
        raise MalformedHeadError(f"malformed header: {line[:60]!r}")
    return name.lower(), value.strip(" \t")


def _joined(name: str, earlier: str, value: str) -> str:
    if name in {"content-length", "content-range", "etag", "transfer-encoding"}:
        if earlier != value:
            raise MalformedHeadError(f"the answer states {name} twice, and differently")
        return value
    return f"{earlier}, {value}"


def _is_digits(text: str) -> bool:
    return 0 < len(text) <= 19 and text.isascii() and text.isdigit()
