"""Revisions on disk: a manifest, and a tree of hard links once every blob is sealed.

::

    revisions/<64 hex>/manifest.json   the canonical manifest, 0444
    revisions/<64 hex>/tree/           directories 0555, files 0444: what a pod gets

A tree appears by rename, after every directory of it was synced; a revision goes by one rename
into the trash. Used by one thread at a time per revision.
"""

import hashlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from modelcache_api.errors import InvalidRequestError, ModelCacheError
from modelcache_api.manifest import Manifest
from modelcache_api.names import revision_hex
from modelcache_node.store.files import (
    Trash,
    disk_errors,
    ensure_dir,
    open_dir,
    remove_tree,
    sync_dir,
    write_file,
)

_MANIFEST = "manifest.json"
_TREE = "tree"
_STAGED = "tree.tmp-"
_DIRECTORY_MODE = 0o555


class RevisionStore:
    """See the module's text. `data_path` gives a sealed blob's bytes by key."""

    def __init__(self, root: Path, trash: Trash, data_path: Callable[[str], Path]) -> None:
        self._root = root
        self._trash = trash
        self._data_path = data_path
        self._manifests: dict[str, Manifest] = {}
        self._published: set[str] = set()

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

    def manifest(self, revision: str) -> Manifest:
        """Raises InvalidRequestError: no such revision is here."""
        found = self._manifests.get(revision)
        if found is None:
            raise InvalidRequestError(f"this node has no revision {revision[:80]!r}")
        return found

    def is_published(self, revision: str) -> bool:
        return revision in self._published

    @disk_errors()
    def put_manifest(self, manifest: Manifest) -> str:
        """Keep a manifest, durably; return its revision. Idempotent."""
        revision = manifest.revision
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
        if revision in self._published:
            return tree
        staged = folder / f"{_STAGED}{secrets.token_hex(4)}"
        self._build(staged, self.manifest(revision))
        os.rename(staged, tree)
        sync_dir(folder)
        self._published.add(revision)
        return tree

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
        folders = {staged}
        for file in manifest.files:
            target = staged / file.path
            for parent in reversed(target.relative_to(staged).parents[:-1]):
                if staged / parent not in folders:
                    os.mkdir(staged / parent, 0o755)
                    folders.add(staged / parent)
            os.link(self._data_path(file.blob), target, follow_symlinks=False)
        for folder in sorted(folders, reverse=True):  # children before their parents
            with open_dir(folder) as fd:
                os.fchmod(fd, _DIRECTORY_MODE)
                os.fsync(fd)

    def _folder(self, revision: str) -> Path:
        return self._root / revision_hex(revision)


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
