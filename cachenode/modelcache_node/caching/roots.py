"""The place that a revision was read at, in a word: proofs of access are compared by it. Pure."""

import re
from collections.abc import Iterable
from urllib.parse import unquote

from modelcache_api.blob_key import Place

#: A commit in a path names a state of the source, not the source.
_COMMIT = re.compile(r"(?<=/)[0-9a-f]{40}(?=/)")


def root_of(found: Iterable[tuple[str, Place]]) -> str:
    """What all objects' places have in common beside their paths; empty: nothing, it is no tree.

    `found` are paths and the places they were read at.
    """
    roots = {_root(path, place) for path, place in found}
    return roots.pop() if len(roots) == 1 else ""


def _root(path: str, place: Place) -> str:
    target = unquote(place.target.partition("?")[0])
    if not target.endswith(path):
        return ""
    prefix = _COMMIT.sub("*", target.removesuffix(path))
    whose = f" {place.namespace}" if place.namespace is not None else ""
    return f"{place.scheme}://{place.host}:{place.port}{prefix}{whose}"
