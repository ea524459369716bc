"""How a range is held to one state of its object: what to ask for, and what the answer must say.

A pin is what an origin lists an object under. Its kinds, by how it is written::

    "5d41402a"  W/"…"  5d41402a   an entity tag: sent as If-Match, compared with the answer's ETag
    generation:1700000000000000   Google's: the URL names it; the answer must say it
    modified:Wed, 21 Oct 2026 …   where there is no tag: sent as If-Unmodified-Since, compared
    sha256:…   gitsha1:…          the content's own digest, compared with the whole file at its seal

Pure.
"""

import re

from modelcache_node.transfer.failures import FailureKind, RangeFailedError
from modelcache_node.transfer.http1 import Head, quoted

GENERATION = "generation"
MODIFIED = "modified"
#: Pins by content: no answer states them, so nothing is compared before the file is whole.
CONTENT = ("sha256", "gitsha1")

_KINDS = {
    GENERATION: re.compile(r"[0-9]{1,19}"),
    MODIFIED: re.compile(r"[A-Za-z]{3}, [0-9]{2} [A-Za-z]{3} [0-9]{4} [0-9:]{8} GMT"),
    "sha256": re.compile(r"[0-9a-f]{64}"),
    "gitsha1": re.compile(r"[0-9a-f]{40}"),
}
_SHOWN_CHARS = 80


def kind_of(pin: str) -> tuple[str | None, str]:
    """Kind and value; the kind of an entity tag is None."""
    name, colon, value = pin.partition(":")
    shape = _KINDS.get(name)
    if colon and shape and shape.fullmatch(value):
        return name, value
    return None, pin


def condition(pin: str | None) -> tuple[str, str] | None:
    """The request header that asks for this state and no other."""
    if pin is None:
        return None
    kind, value = kind_of(pin)
    if kind is None:
        return "If-Match", quoted(value)
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
