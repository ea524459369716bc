"""What an origin can do wrong, as values; `FaultOrigin` acts them out, one per request."""

import threading
from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """Base: an answer that is right."""


@dataclass(frozen=True)
class Held(Fault):
    """Answer rightly, with what is true then, once the test opens the gate."""

    gate: threading.Event


@dataclass(frozen=True)
class Status(Fault):
    """Answer with a status and a body instead of the object."""

    code: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    is_chunked: bool = False


@dataclass(frozen=True)
class Truncated(Fault):
    """Announce the whole range, close after some bytes of it."""

    after_bytes: int = 1000


@dataclass(frozen=True)
class Reset(Fault):
    """Send a TCP RST after some bytes of the body."""

    after_bytes: int = 1000


@dataclass(frozen=True)
class Stalled(Fault):
    """Send nothing more after some bytes, and keep the connection open."""

    after_bytes: int = 1000


@dataclass(frozen=True)
class Trickling(Fault):
    """Send the body in tiny pieces, each after a pause, for ever."""

    piece_bytes: int = 1
    pause_s: float = 0.05


@dataclass(frozen=True)
class Corrupted(Fault):
    """Flip a bit of one byte in flight."""

    at_byte: int = 0


@dataclass(frozen=True)
class WrongRange(Fault):
    """Answer another range than was asked for, and say so."""

    shift_bytes: int = 1


@dataclass(frozen=True)
class IgnoredRange(Fault):
    """Answer a range with the whole object and status 200."""


@dataclass(frozen=True)
class Head(Fault):
    """Send these bytes as an answer's head, as they are, then the range."""

    raw: bytes


@dataclass(frozen=True)
class StalledHead(Fault):
    """Send the beginning of a head, and nothing more."""

    raw: bytes = b"HTTP/1.1 206 Partial Content\r\nContent-Ra"


@dataclass(frozen=True)
class Unanswered(Fault):
    """Read the request and close."""


@dataclass(frozen=True)
class ChunkedBody(Fault):
    """Send the range in the chunked coding, without a length."""


@dataclass(frozen=True)
class Overlong(Fault):
    """Send more bytes than were announced."""

    extra_bytes: int = 10


OVERSIZED_HEAD = Head(b"HTTP/1.1 206 Partial Content\r\nX-Filler: " + b"x" * 40_000 + b"\r\n\r\n")


def slow_down(retry_after: str | None = None, *, code: int = 503) -> Status:
    """S3's way to throttle."""
    headers = () if retry_after is None else (("Retry-After", retry_after),)
    return Status(code, error_xml("SlowDown", "Please reduce your request rate."), headers)


def expired(code: str = "ExpiredToken") -> Status:
    """A grant past its time: a session token, or a signed URL."""
    text = "Request has expired" if code == "AccessDenied" else "The provided token has expired."
    return Status(403, error_xml(code, text))


def denied() -> Status:
    return Status(403, error_xml("AccessDenied", "Access Denied"))


def redirect(location: str) -> Status:
    return Status(307, headers=(("Location", location),))


def error_xml(code: str, message: str) -> bytes:
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    ).encode()
