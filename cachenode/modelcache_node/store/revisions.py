"""Revisions on disk: a manifest, and a tree of hard links once every blob is sealed.

::

    revisions/<64 hex>/manifest.json   the canonical manifest, 0444
    revisions/<64 hex>/tree/           directories 0555, files 0444: what a pod gets

A tree appears by rename, after every directory of it was synced; a revision goes by one rename
into the trash. Manifests may come from several threads; else used by one at a time per revision.
"""

import hashlib
import os
import secrets
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from modelcache_api.errors import DiskFailedError, InvalidRequestError, ModelCacheError
from modelcache_api.manifest import Manifest
from modelcache_api.names import revision_hex
from modelcache_node.store.files import (
    Trash,
    disk_errors,
    ensure_dir,
    open_dir,
    remove_tree,
    sync_dir,
    write_at,
    write_file,
)

_MANIFEST = "manifest.json"
_TREE = "tree"
_STAGED = "tree.tmp-"
_DIRECTORY_MODE = 0o555
_FILE_MODE = 0o444


class RevisionStore:
    """See the module's text. `data_path` gives a sealed blob's bytes by key."""

    def __init__(self, root: Path, trash: Trash, data_path: Callable[[str], Path]) -> None:
        self._root = root
        self._trash = trash
        self._data_path = data_path
        self._manifests: dict[str, Manifest] = {}
        self._published: set[str] = set()
        self._putting = threading.Lock()

    @disk_errors()
    def scan(self) -> None:
        """Read every manifest; remove trees that a crash left half built."""
        for name in os.listdir(self._root):
            folder = self._root / name
            for entry in os.listdir(folder):
                if entry.startswith(_STAGED):
                    remove_tree(folder / entry)
            manifest = _read_manifest(folder)
            if manifest is None:
                remove_tree(self._trash.take(folder))
                continue
            self._manifests[manifest.revision] = manifest
            if (folder / _TREE).is_dir():
                self._published.add(manifest.revision)

    def revisions(self) -> list[str]:
        """Every revision whose manifest is here."""
        return list(self._manifests)

    def find(self, revision: str) -> Manifest | None:
        return self._manifests.get(revision)

    def manifest(self, revision: str) -> Manifest:
        """Raises InvalidRequestError: no such revision is here."""
        found = self.find(revision)
        if found is None:
            raise InvalidRequestError(f"this node has no revision {revision[:80]!r}")
        return found

    def is_published(self, revision: str) -> bool:
        return revision in self._published

    @disk_errors()
    def put_manifest(self, manifest: Manifest) -> str:
        """Keep a manifest, durably; return its revision. Idempotent."""
        revision = manifest.revision
        with self._putting:
            if revision not in self._manifests:
                folder = self._folder(revision)
                ensure_dir(folder)
                write_file(folder / _MANIFEST, manifest.canonical(), 0o444)
                self._manifests[revision] = manifest
        return revision

    @disk_errors()
    def publish(self, revision: str) -> Path:
        """Build the tree of a revision whose blobs are all sealed; return its path. Idempotent."""
        folder = self._folder(revision)
        tree = folder / _TREE
        if revision in self._published or tree.is_dir():  # withdrawn, and then not deleted
            self._published.add(revision)
            return tree
        staged = folder / f"{_STAGED}{secrets.token_hex(4)}"
        self._build(staged, self.manifest(revision))
        os.rename(staged, tree)
        sync_dir(folder)
        self._published.add(revision)
        return tree

    def withdraw(self, revision: str) -> None:
        """From now on nobody is given the revision's tree; `delete` it next. Touches no disk."""
        self._published.discard(revision)

    @disk_errors()
    def delete(self, revision: str) -> Path | None:
        """Take a revision out; what is returned is left to remove. Idempotent."""
        self._published.discard(revision)
        if self._manifests.pop(revision, None) is None:
            return None
        return self._trash.take(self._folder(revision))

    def references(self) -> set[str]:
        """Keys of every blob that some manifest names."""
        return {file.blob for manifest in self._manifests.values() for file in manifest.files}

    def _build(self, staged: Path, manifest: Manifest) -> None:
        os.mkdir(staged, 0o755)
        with open_dir(staged) as fd:
            self._fill(fd, _nested(manifest))

    def _fill(self, fd: int, entries: "_Folder") -> None:
        """Put entries into the directory `fd`, element by element: nothing leads out of it."""
        for name, entry in entries.items():
            if isinstance(entry, str):
                self._link(entry, name, fd)
                continue
            if isinstance(entry, bytes):
                _write_new(entry, name, fd)
                continue
            os.mkdir(name, 0o755, dir_fd=fd)
            with open_dir(name, fd) as below:
                self._fill(below, entry)
        os.fchmod(fd, _DIRECTORY_MODE)
        os.fsync(fd)

    def _link(self, blob: str, name: str, fd: int) -> None:
        os.link(self._data_path(blob), name, dst_dir_fd=fd, follow_symlinks=False)
        found = os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode
        if not stat.S_ISREG(found) or stat.S_IMODE(found) != _FILE_MODE:
            raise DiskFailedError(
                f"blob {blob} is no plain file of mode {_FILE_MODE:o}: somebody changed the store"
            )

    def _folder(self, revision: str) -> Path:
        return self._root / revision_hex(revision)


#: What a folder holds, by name: the blob of a file, a file's bytes, or another folder.
_Folder: TypeAlias = "dict[str, str | bytes | _Folder]"


def _nested(manifest: Manifest) -> _Folder:
    """A manifest's paths as folders; they were checked when it was made."""
    root: _Folder = {}
    for path, content in manifest.tree():
        *parents, name = path.split("/")
        folder = root
        for parent in parents:
            below = folder.setdefault(parent, {})
            assert isinstance(below, dict)  # no name is a file and a folder
            folder = below
        folder[name] = content if isinstance(content, bytes) else content.blob
    return root


def _write_new(content: bytes, name: str, dir_fd: int) -> None:
    """A file that is the layout's own, not the source's."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(name, flags, _FILE_MODE, dir_fd=dir_fd)
    try:
        write_at(fd, content, 0)
        os.fchmod(fd, _FILE_MODE)
        os.fsync(fd)
    finally:
        os.close(fd)


def _read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a folder named by its digest; None where it is not that."""
    try:
        raw = (folder / _MANIFEST).read_bytes()
    except FileNotFoundError:
        return None
    if hashlib.sha256(raw).hexdigest() != folder.name:
        return None
    try:
        return Manifest.parse(raw)
    except ModelCacheError:  # whatever is wrong with it, an agent must start
        return None
