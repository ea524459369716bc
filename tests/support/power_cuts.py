"""What a disk may hold after a power cut, from a record of what was done to a directory.

`Recorder` notes every call that changes files beneath a root, while it really happens. From the
notes up to any moment, `image` builds a directory as a power cut there may leave it:

- what was synced is there: a file's bytes (fsync, fdatasync) and mode (fsync), a directory's names
  (fsync; a rename is there when either directory was synced);
- of what was not, any part may be: single writes in any order, a directory's names in theirs.

With `everything`, it is what a killed process leaves: all that was done.
"""

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest


@dataclass(eq=False)
class _Node:
    """A file or a directory; what it holds is in the notes."""

    is_dir: bool


@dataclass(frozen=True, eq=False)
class _Note:
    """One change: of a directory's names, or of one file. `name` None: not a name."""

    kind: str
    nodes: tuple[_Node, ...]
    names: tuple[str, ...] = ()
    subject: _Node | None = None
    offset: int = 0
    data: bytes = b""
    mode: int = 0


@dataclass
class _Shown:
    """A node as an image shows it."""

    names: dict[str, _Node] = field(default_factory=dict)
    content: bytearray = field(default_factory=bytearray)
    mode: int = 0o644


class Recorder:
    """Notes of what happened beneath `root`. Its mutable state: the notes and the names as now."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._top = _Node(is_dir=True)
        self._names: dict[_Node, dict[str, _Node]] = {self._top: {}}
        self._by_fd: dict[int, _Node] = {}
        self._notes: list[_Note] = []
        self.forgets: frozenset[str] = frozenset()

    @property
    def position(self) -> int:
        """Moments that a cut may be at: 0 … position."""
        return len(self._notes)

    def image(self, at: int, to: Path, rng: random.Random, *, everything: bool = False) -> None:
        """Build in the new directory `to` what a cut at `at` may leave."""
        notes = self._notes[:at]
        kept = set(range(at)) if everything else _kept(notes, rng)
        shown: dict[_Node, _Shown] = {}
        for index in sorted(kept):
            _apply(notes[index], shown)
        _build(self._top, to, shown, {})

    # -- what is noted; each is called after the real thing succeeded

    def _node(self, path: Any, dir_fd: int | None = None) -> tuple[_Node, str, _Node | None] | None:
        """(directory, name, what it names) of a path beneath the root; None elsewhere."""
        if dir_fd is not None:
            folder = self._by_fd.get(dir_fd)
            return folder and (folder, os.fspath(path), self._names[folder].get(os.fspath(path)))
        try:
            parts = Path(path).relative_to(self._root).parts
        except ValueError:
            return None
        if not parts:
            return self._top, "", self._top
        folder = self._top
        for part in parts[:-1]:
            folder = self._names[folder][part]
        return folder, parts[-1], self._names[folder].get(parts[-1])

    def _add(self, kind: str, folder: _Node, name: str, node: _Node) -> None:
        self._names[folder][name] = node
        self._notes.append(_Note(kind, (folder,), (name,), node))

    def opened(self, fd: int, path: Any, flags: int, *_: Any, dir_fd: int | None = None) -> None:
        if (found := self._node(path, dir_fd)) is None:
            return
        folder, name, node = found
        if node is None:
            node = _Node(is_dir=False)
            self._add("name", folder, name, node)
        elif flags & os.O_TRUNC:
            self._notes.append(_Note("truncate", (node,)))
        self._by_fd[fd] = node

    def closed(self, _: None, fd: int) -> None:
        self._by_fd.pop(fd, None)

    def made(self, _: None, path: Any, *__: Any, dir_fd: int | None = None) -> None:
        found = self._node(path, dir_fd)
        if found and found[1]:
            node = _Node(is_dir=True)
            self._names[node] = {}
            self._add("name", found[0], found[1], node)

    def linked(
        self, _: None, source: Any, target: Any, *, dst_dir_fd: int | None = None, **__: Any
    ) -> None:
        origin, found = self._node(source), self._node(target, dst_dir_fd)
        if origin and found and origin[2]:
            self._add("name", found[0], found[1], origin[2])

    def renamed(self, _: None, source: Any, target: Any, **__: Any) -> None:
        origin, found = self._node(source), self._node(target)
        if origin and found and origin[2]:
            del self._names[origin[0]][origin[1]]
            self._names[found[0]][found[1]] = origin[2]
            folders, names = (origin[0], found[0]), (origin[1], found[1])
            self._notes.append(_Note("rename", folders, names, origin[2]))

    def removed(self, _: None, path: Any, *__: Any, dir_fd: int | None = None) -> None:
        found = self._node(path, dir_fd)
        if found and self._names[found[0]].pop(found[1], None):
            self._notes.append(_Note("remove", (found[0],), (found[1],)))

    def written(self, n: int, fd: int, data: Any, offset: int, *_: Any) -> None:
        if node := self._by_fd.get(fd):
            raw = bytes(memoryview(data)[:n])
            self._notes.append(_Note("write", (node,), offset=offset, data=raw))

    def cut(self, _: None, fd: int, length: int) -> None:
        if node := self._by_fd.get(fd):
            self._notes.append(_Note("truncate", (node,), offset=length))

    def fchmoded(self, _: None, fd: int, mode: int) -> None:
        if node := self._by_fd.get(fd):
            self._notes.append(_Note("mode", (node,), mode=mode))

    def chmoded(self, _: None, path: Any, mode: int, **__: Any) -> None:
        if (found := self._node(path)) and found[2]:
            self._notes.append(_Note("mode", (found[2],), mode=mode))

    def synced(self, _: None, fd: int) -> None:
        if (node := self._by_fd.get(fd)) and "fsync" not in self.forgets:
            self._notes.append(_Note("sync", (node,)))

    def data_synced(self, _: None, fd: int) -> None:
        if (node := self._by_fd.get(fd)) and "fdatasync" not in self.forgets:
            self._notes.append(_Note("sync-data", (node,)))


_CALLS: dict[str, str] = {
    "open": "opened",
    "close": "closed",
    "mkdir": "made",
    "link": "linked",
    "rename": "renamed",
    "unlink": "removed",
    "rmdir": "removed",
    "pwrite": "written",
    "ftruncate": "cut",
    "fchmod": "fchmoded",
    "chmod": "chmoded",
    "fsync": "synced",
    "fdatasync": "data_synced",
}


@contextmanager
def recording(root: Path, *, forgets: frozenset[str] = frozenset()) -> Iterator[Recorder]:
    """Note what is done beneath `root`, which does not exist yet.

    Preallocation is by ftruncate(2) here. `forgets` leaves out calls, as if nobody made them.
    """
    recorder = Recorder(root)
    recorder.forgets = forgets
    with pytest.MonkeyPatch.context() as patch:
        for name, note in _CALLS.items():
            patch.setattr(os, name, _noting(getattr(os, name), getattr(recorder, note)))
        patch.setattr("modelcache_node.store.blob_dirs.preallocate", os.ftruncate)
        yield recorder


def _noting(call: Callable[..., Any], note: Callable[..., None]) -> Callable[..., Any]:
    def noted(*args: Any, **kwargs: Any) -> Any:
        result = call(*args, **kwargs)
        note(result, *args, **kwargs)
        return result

    return noted


def _kept(notes: list[_Note], rng: random.Random) -> set[int]:
    """Notes that are on the disk: those synced, some others, and what a directory needs of them."""
    likely = rng.choice([0.0, 0.2, 0.5, 0.9])
    kept: set[int] = set()

    def keep(index: int) -> None:
        if index in kept:
            return
        kept.add(index)
        if notes[index].names:
            for earlier in range(index):  # a directory's names change in order
                if notes[earlier].names and set(notes[earlier].nodes) & set(notes[index].nodes):
                    keep(earlier)

    for index, note in enumerate(notes):
        if _is_synced(note, notes[index + 1 :]) or rng.random() < likely:
            keep(index)
    return kept


def _is_synced(note: _Note, later: list[_Note]) -> bool:
    kinds = {"sync"} if note.kind == "mode" or note.names else {"sync", "sync-data"}
    return any(one.kind in kinds and one.nodes[0] in note.nodes for one in later)


def _apply(note: _Note, shown: dict[_Node, _Shown]) -> None:
    states = [shown.setdefault(node, _Shown()) for node in note.nodes]
    state = states[0]
    match note.kind:
        case "name":
            assert note.subject
            state.names[note.names[0]] = note.subject
        case "remove":
            state.names.pop(note.names[0], None)
        case "rename":
            assert note.subject
            state.names.pop(note.names[0], None)
            states[1].names[note.names[1]] = note.subject
        case "write":
            end = note.offset + len(note.data)
            state.content.extend(bytes(max(0, end - len(state.content))))
            state.content[note.offset : end] = note.data
        case "truncate":
            del state.content[note.offset :]
            state.content.extend(bytes(max(0, note.offset - len(state.content))))
        case "mode":
            state.mode = note.mode


def _build(node: _Node, path: Path, shown: dict[_Node, _Shown], built: dict[_Node, Path]) -> None:
    state = shown.get(node, _Shown())
    if node in built:
        path.hardlink_to(built[node])
    elif node.is_dir:
        path.mkdir()
        for name, child in state.names.items():
            _build(child, path / name, shown, built)
    else:
        built[node] = path
        path.write_bytes(state.content)
        path.chmod(state.mode)
