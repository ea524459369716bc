"""How a range is held to one state of its object: what to ask for, and what the answer must say.

Entity tags are sent as If-Match and compared with the answer's ETag; dates as If-Unmodified-Since;
a generation is in the URL, and the answer must say it. A digest of the content is compared with the
whole file at its seal, and not before. Pure. See `modelcache_api.pins` for their forms.
"""

from modelcache_api.pins import CONTENT, GENERATION, MODIFIED, kind_of
from modelcache_node.transfer.failures import FailureKind, RangeFailedError
from modelcache_node.transfer.http1 import Head, quoted

_SHOWN_CHARS = 80


def condition(pin: str | None) -> tuple[str, str] | None:
    """The request header that asks for this state and no other."""
    if pin is None:
        return None
    kind, value = kind_of(pin)
    if kind is None:  # a weak tag never matches (RFC 9110, 13.1.1); it is compared all the same
        return None if value.startswith("W/") else ("If-Match", quoted(value))
    return ("If-Unmodified-Since", value) if kind == MODIFIED else None


def check_pin(pin: str, head: Head) -> None:
    """Raises RangeFailedError: the answer is of another state, or does not say of which."""
    kind, value = kind_of(pin)
    if kind in CONTENT:
        return
    if kind == GENERATION:
        _compare("generation", value, head.headers.get("x-goog-generation"))
    elif kind == MODIFIED:
        _compare("Last-Modified", value, head.headers.get("last-modified"))
    else:
        etag = head.headers.get("etag")
        _compare("ETag", quoted(value), None if etag is None else quoted(etag))


def is_gone_when_changed(pin: str | None) -> bool:
    """Whether "not found" means that this state was replaced: its URL names the state."""
    return pin is not None and kind_of(pin)[0] == GENERATION


def _compare(what: str, wanted: str, found: str | None) -> None:
    if found is None:
        raise RangeFailedError(
            FailureKind.MISBEHAVED, f"answered without {what}, so the object cannot be pinned"
        )
    if found != wanted:
        raise RangeFailedError(
            FailureKind.CHANGED,
            f"its {what} is {found[:_SHOWN_CHARS]} and was {wanted[:_SHOWN_CHARS]}",
        )
