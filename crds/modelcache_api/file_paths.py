"""Which object names may become files beneath a tree, and why another may not.

A tree is a directory of hard links. Its names come from whoever can write the source, so
every rule here is a trust boundary: relative, no ``..``, no empty or dot element, no NUL or
control character, elements that every Linux file system takes, no two names that differ
only by case (they would be one file on a case-folding file system), and no name that is
both a file and a directory.
"""

import unicodedata
from collections.abc import Iterable

from modelcache_api.errors import UnsafePathError

#: NAME_MAX of Linux file systems, bytes.
MAX_NAME_BYTES = 255
#: A fifth of PATH_MAX (4096), bytes: leaves room for the directory a tree is mounted at.
MAX_PATH_BYTES = 1024


def check_path(path: str) -> str:
    """`path`, if it may become a file beneath a tree.

    Raises:
        UnsafePathError: says which rule it breaks.
    """
    problem = _problem(path)
    if problem:
        raise UnsafePathError(f"object name {_shown(path)} {problem}; rename or exclude it")
    return path


def check_distinct(paths: Iterable[str]) -> None:
    """All `paths` can be in one tree.

    Raises:
        UnsafePathError: two are equal, equal but for case, or one is a directory of another.
    """
    seen: dict[str, str] = {}
    folders: dict[str, str] = {}
    for path in paths:
        folded = _folded(path)
        if folded in seen:
            raise UnsafePathError(
                f"object names {_shown(seen[folded])} and {_shown(path)} differ at most by case; "
                "rename or exclude one"
            )
        seen[folded] = path
        parts = path.split("/")
        for end in range(1, len(parts)):
            folder = "/".join(parts[:end])
            other = folders.setdefault(_folded(folder), folder)
            if other != folder:
                raise UnsafePathError(
                    f"folders {_shown(other)} and {_shown(folder)} differ only by case; rename one"
                )
    for folded, folder in folders.items():
        if folded in seen:
            raise UnsafePathError(
                f"object name {_shown(seen[folded])} is also a folder of other objects "
                f"({_shown(folder)}/…); rename or exclude it"
            )


def _problem(path: str) -> str | None:
    try:
        raw = path.encode()
    except UnicodeEncodeError:
        return "is not valid Unicode"
    rules = (
        (not path, "is empty"),
        (path.startswith("/"), "is absolute"),
        (len(raw) > MAX_PATH_BYTES, f"is longer than {MAX_PATH_BYTES} bytes"),
        ("\0" in path, "holds a NUL"),
        (any(unicodedata.category(c) == "Cc" for c in path), "holds a control character"),
        ("\\" in path, "holds a backslash"),
    )
    for broken, text in rules:
        if broken:
            return text
    for name in path.split("/"):
        if name in ("", ".", ".."):
            return f"holds the element {name!r}"
        if len(name.encode()) > MAX_NAME_BYTES:
            return f"holds a name longer than {MAX_NAME_BYTES} bytes"
    return None


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", path).casefold()


def _shown(path: str) -> str:
    return repr(path if len(path) <= 120 else path[:117] + "…")
