"""How a revision's files lie in its tree: as in the source, or as Hugging Face's cache keeps them.

The hub's layout, of a repository at one commit::

    models--org--name/refs/main                    the commit, so that offline "main" is found
    models--org--name/snapshots/<commit>/<path>    every file
    models--org--name/blobs/<digest>               the same files by the hub's name of their content

Hard links, no symbolic ones: huggingface_hub reads snapshots as they are, and nothing in a tree may
lead elsewhere. Pure.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from modelcache_api.errors import InvalidRequestError
from modelcache_api.file_paths import check_path
from modelcache_api.pins import CONTENT

PLAIN, HUB = "plain", "hf"
LAYOUTS = (PLAIN, HUB)
MAX_REFS = 4  # main, and what the user named; arbitrary, above
_KINDS = ("models", "datasets")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_COMMIT = re.compile(r"[0-9a-f]{40}")


class HasPath(Protocol):
    """A file of a manifest."""

    @property
    def path(self) -> str: ...
    @property
    def checksum(self) -> Any: ...


F = TypeVar("F", bound=HasPath)


@dataclass(frozen=True)
class HubLayout:
    """A repository at a commit, and the names by which that commit is to be found.

    Attributes:
        kind: ``models`` or ``datasets``.
        repository: ``org/name``.
        commit: 40 hexadecimal digits.
        refs: Branches and tags, ``main`` among them.
    """

    kind: str
    repository: str
    commit: str
    refs: tuple[str, ...]

    def check(self) -> None:
        """Raises InvalidRequestError, UnsafePathError: it names no place in a tree."""
        if (
            self.kind not in _KINDS
            or not _NAME.fullmatch(self.repository)
            or not _COMMIT.fullmatch(self.commit)
            or not 1 <= len(self.refs) <= MAX_REFS
            or len(set(self.refs)) != len(self.refs)
        ):
            raise InvalidRequestError("not a hub's repository, commit and refs")
        for ref in self.refs:
            check_path(ref)

    @property
    def folder(self) -> str:
        return "--".join((self.kind, *self.repository.split("/")))

    def as_json(self) -> dict[str, Any]:
        return {
            "commit": self.commit,
            "kind": self.kind,
            "refs": list(self.refs),
            "repository": self.repository,
        }

    @classmethod
    def parse(cls, document: Any) -> "HubLayout":
        """Raises KeyError, TypeError: not the form that `as_json` makes."""
        refs = tuple(document["refs"])
        found = cls(document["kind"], document["repository"], document["commit"], refs)
        if not all(
            isinstance(one, str) for one in (found.kind, found.repository, found.commit, *refs)
        ):
            raise TypeError("a layout's fields are texts")
        return found


def presented(files: Iterable[F], layout: HubLayout | None) -> Iterator[tuple[str, F | bytes]]:
    """Every path of the tree once, with the file that is there, or the bytes.

    Raises:
        InvalidRequestError: a file that no hub names by its content.
    """
    if layout is None:
        for file in files:
            yield file.path, file
        return
    names: set[str] = set()
    for file in files:
        if file.checksum is None or file.checksum.algorithm not in CONTENT:
            raise InvalidRequestError(f"{file.path!r} has no digest by which a hub names it")
        yield f"{layout.folder}/snapshots/{layout.commit}/{file.path}", file
        if file.checksum.value not in names:
            names.add(file.checksum.value)
            yield f"{layout.folder}/blobs/{file.checksum.value}", file
    for ref in layout.refs:
        yield f"{layout.folder}/refs/{ref}", layout.commit.encode()
