"""Pins: by what a listing names one state of an object.

::

    "5d41402a"  W/"…"  5d41402a   an entity tag, as a server states it
    generation:1700000000000000   Google's
    modified:Wed, 21 Oct 2026 …   a date, where there is no tag
    sha256:…   gitsha1:…          the content's own digest
"""

import re

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


def kind_of(pin: str) -> tuple[str | None, str]:
    """Kind and value; the kind of an entity tag is None."""
    name, colon, value = pin.partition(":")
    shape = _KINDS.get(name)
    if colon and shape and shape.fullmatch(value):
        return name, value
    return None, pin
