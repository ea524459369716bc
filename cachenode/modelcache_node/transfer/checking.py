"""Does an answer fit its request? Pure decisions over an answer's head.

Every range is checked: status, Content-Range, total size and pin. Nothing of an answer that fails
is written. A store that ignores ``If-Match`` is caught by the tag it answers with.
"""

from typing import NamedTuple

from modelcache_api.store_codes import shown
from modelcache_api.units import KIB
from modelcache_node.transfer.failures import FailureKind, RangeFailedError
from modelcache_node.transfer.http1 import Head
from modelcache_node.transfer.pins import check_pin, is_gone_when_changed

#: How much of an error's body is looked at. S3's take 300-600 bytes; arbitrary, well above.
MAX_ERROR_BODY_BYTES = 8 * KIB

#: What stores write into a 403 (or 400, 401) when the grant, not the right to read, has ended.
_EXPIRED_MARKS = (
    b"ExpiredToken",
    b"Request has expired",
    b"TokenRefreshRequired",
    b"AuthorizationExpired",
    b"Signature not valid in the specified time frame",  # Azure
)


class Expected(NamedTuple):
    """What an answer must be; see `RangeRequest`."""

    offset: int
    length: int
    validator: str | None
    total_bytes: int | None


class Accepted(NamedTuple):
    """An answer that fits; its body is the range."""

    validator: str | None
    total_bytes: int


def check_head(expected: Expected, head: Head) -> Accepted | None:
    """Judge the head of an answer; None means an error whose body should be read first.

    Raises:
        RangeFailedError: the answer does not fit; its body must not be used.
    """
    if head.status == 206:
        return _check_part(expected, head)
    if head.status == 200:
        return _check_whole(expected, head)
    return None


def judge_error(expected: Expected, head: Head, body: bytes) -> RangeFailedError:
    """What an error answer means, from its status and the beginning of its body."""
    status = head.status
    retry_after = head.headers.get("retry-after")
    said = f"HTTP {status}{_excerpt(body)}"
    if status in {429, 503}:
        return RangeFailedError(FailureKind.THROTTLED, said, retry_after)
    if status == 412:
        return _changed("it was replaced (HTTP 412)")
    if status == 416:
        return _changed(
            f"it has no bytes {expected.offset}-{expected.offset + expected.length - 1}"
        )
    if status in {400, 401, 403}:
        return _judge_refusal(status, body, said)
    if status in {404, 410}:
        is_replaced = is_gone_when_changed(expected.validator)
        return RangeFailedError(FailureKind.CHANGED if is_replaced else FailureKind.NOT_FOUND, said)
    if status in {408, 425} or status >= 500:
        return RangeFailedError(FailureKind.UNAVAILABLE, said, retry_after)
    if 300 <= status < 400:
        location = head.headers.get("location")
        return RangeFailedError(FailureKind.REDIRECTED, f"redirected: {said}", None, location)
    return RangeFailedError(FailureKind.REFUSED, said)


def _judge_refusal(status: int, body: bytes, said: str) -> RangeFailedError:
    if any(mark in body for mark in _EXPIRED_MARKS):
        return RangeFailedError(FailureKind.EXPIRED, said)
    if b"RequestTimeout" in body:  # S3 answers 400 when a connection idled
        return RangeFailedError(FailureKind.UNAVAILABLE, said)
    if status == 401:  # a token that no longer counts; who never had the right was told so before
        return RangeFailedError(FailureKind.EXPIRED, said)
    if b"Server Side Encryption" in body:
        said += "; objects under customers' keys (SSE-C) cannot be read: use SSE-S3 or SSE-KMS"
    kind = FailureKind.REFUSED if status == 400 else FailureKind.DENIED
    return RangeFailedError(kind, said)


def _check_part(expected: Expected, head: Head) -> Accepted:
    first, last, total = _content_range(head)
    _check_state(expected, head, total)
    if expected.length == 0:
        raise _changed(f"it has {total} bytes and was listed as empty")
    wanted_last = expected.offset + expected.length - 1
    if (first, last) != (expected.offset, wanted_last):
        raise _misbehaved(f"asked for bytes {expected.offset}-{wanted_last}, got {first}-{last}")
    _check_body(head, expected.length)
    return Accepted(head.headers.get("etag"), total)


def _check_whole(expected: Expected, head: Head) -> Accepted:
    length = head.content_length
    if length is None:
        raise _misbehaved("answered a range with HTTP 200 and no length")
    _check_state(expected, head, length)
    if (expected.offset, expected.length) != (0, length):
        if expected.length == 0:
            raise _changed(f"it has {length} bytes and was listed as empty")
        raise _misbehaved("ignored the range: answered with the whole object (HTTP 200)")
    _check_body(head, length)
    return Accepted(head.headers.get("etag"), length)


def _check_state(expected: Expected, head: Head, total: int) -> None:
    """Is this still the object that was asked for?"""
    if expected.validator is not None:
        check_pin(expected.validator, head)
    if expected.total_bytes is not None and total != expected.total_bytes:
        raise _changed(f"it has {total} bytes and had {expected.total_bytes}")


def _check_body(head: Head, length: int) -> None:
    if head.is_chunked or head.content_length != length:
        stated = "chunked" if head.is_chunked else head.content_length
        raise _misbehaved(f"a body of {length} bytes was due, its length is stated as {stated}")
    if head.headers.get("content-encoding", "identity").lower() != "identity":
        raise _misbehaved("answered with a coded body although none was allowed")


def _content_range(head: Head) -> tuple[int, int, int]:
    text = head.headers.get("content-range", "")
    unit, _, rest = text.partition(" ")
    span, _, total = rest.partition("/")
    first, _, last = span.partition("-")
    if unit.lower() != "bytes" or not all(_is_number(part) for part in (first, last, total)):
        raise _misbehaved(f"HTTP 206 with Content-Range {text[:60]!r}")
    return int(first), int(last), int(total)


def _is_number(text: str) -> bool:
    return 0 < len(text) <= 19 and text.isascii() and text.isdigit()


def _changed(message: str) -> RangeFailedError:
    return RangeFailedError(FailureKind.CHANGED, message)


def _misbehaved(message: str) -> RangeFailedError:
    return RangeFailedError(FailureKind.MISBEHAVED, message)


def _excerpt(body: bytes) -> str:
    """The store's own code out of its XML."""
    _, _, rest = body.partition(b"<Code>")
    code, closed, _ = rest.partition(b"</Code>")
    found = shown(code.decode("latin-1")) if closed else ""
    return f" ({found})" if found else ""
