"""The blobs on disk, each under its key.

::

    blobs/<aa>/<key>/data            the bytes; preallocated, 0444 once sealed
    blobs/<aa>/<key>/chunks          the journal
    blobs/<aa>/<key>/repair          only while a sealed blob is mended
    blobs/<aa>/<key>.<provider_id>/  unsealed, of a key that says what the content is: kept apart
                                     per origin until the content was checked, then renamed

``aa`` are the key's first two digits.

Guarantees:
- at most one user writes an unsealed blob;
- nothing is found under a content key before its content was checked;
- deleting is one rename: a crash leaves a blob whole or gone.

Usable from several threads.
"""

import os
import re
import threading
from collections.abc import Container
from pathlib import Path
from uuid import UUID

from modelcache_api.errors import (
    IntegrityMismatchError,
    InvalidRequestError,
    UnavailableError,
)
from modelcache_api.names import blob_hex
from modelcache_node.store import blob_dirs
from modelcache_node.store.blob_dirs import BlobState
from modelcache_node.store.files import Trash, disk_errors, remove_tree, sync_dir
from modelcache_node.store.journal import Journal
from modelcache_node.store.partial_blob import PartialBlob
from modelcache_node.store.repairs import Repair

_NAME = re.compile(r"[0-9a-f]{64}(\.[0-9a-f]{16})?")
_PROVIDER_ID = re.compile(r"[0-9a-f]{16}")
_KEY_DIGITS = 64


class BlobStore:
    """See the module's text."""

    def __init__(self, root: Path, trash: Trash, boot_id: UUID) -> None:
        self._root = root
        self._trash = trash
        self._boot_id = boot_id
        self._lock = threading.RLock()
        #: By directory name; replaced, never changed, so that any thread may iterate.
        self._states: dict[str, dict[str, BlobState]] = {}
        self._open: dict[str, PartialBlob | None] = {}
        self._present_bytes: dict[str, int] = {}
        self.unsealed: frozenset[str] = frozenset()

    # -- what is there

    @disk_errors()
    def scan(self) -> None:
        """Look at every blob: one `stat` each; journals are read only of what is unsealed."""
        for shard in os.scandir(self._root):
            if shard.is_dir(follow_symlinks=False):
                for name in os.listdir(shard.path):
                    if _NAME.fullmatch(name) and name[:2] == shard.name:
                        self._note(name, blob_dirs.look(self._path(name)))

    def is_sealed(self, key: str) -> bool:
        """Complete, checked and durable."""
        state = self._states.get(key, {}).get(key)
        return state is not None and state.is_sealed

    def data_path(self, key: str) -> Path:
        """Where the bytes of a sealed blob are."""
        return self._path(blob_hex(key)) / "data"

    def paths(self, key: str, provider_id: str | None) -> tuple[Path, Path] | None:
        """Data and journal of a blob: sealed, or of what is there from a provider.

        Without `provider_id` only what bears the plain key. The journal says what may be shown.
        """
        states = self._states.get(blob_hex(key), {})
        for name in (key, f"{key}.{provider_id}"):
            if name in states:
                return self._path(name) / "data", self._path(name) / "chunks"
        return None

    @disk_errors()
    def checksums(self, key: str, size_bytes: int) -> list[tuple[int, int]]:
        """(CRC32C, CRC64/NVME or 0) of each chunk of a sealed blob. Blocks; reads its journal.

        Raises:
            FileNotFoundError, IntegrityMismatchError: it is not there any more.
        """
        journal = Journal.open(self._path(blob_hex(key)) / "chunks", size_bytes)
        try:
            records = map(journal.record, range(journal.n_chunks))
            return [(record.crc32c, record.crc64nvme) for record in records]
        finally:
            journal.close()

    def present_bytes(self, key: str) -> int:
        """Bytes of a blob that count as present, at the provider with most of them."""
        states = self._states.get(key, {})
        if self.is_sealed(key):
            return states[key].size_bytes
        return max((self._present_in(name) for name in states), default=0)

    def allocated_bytes(self, key: str) -> int:
        """Bytes of disk that a blob takes, at all providers together."""
        return sum(state.allocated_bytes for state in self._states.get(key, {}).values())

    def keys(self) -> frozenset[str]:
        """Every key of which anything is on disk."""
        return frozenset(self._states)

    def usage(self) -> tuple[int, int]:
        """(bytes of disk taken, bytes that the blobs have or will have)."""
        for name in tuple(self._open):
            self._refresh(name)
        states = [state for by_name in tuple(self._states.values()) for state in by_name.values()]
        return sum(s.allocated_bytes for s in states), sum(s.size_bytes for s in states)

    # -- making blobs

    @disk_errors()
    def open_partial(self, key: str, size_bytes: int, provider_id: str | None) -> PartialBlob:
        """Begin a blob, go on with one, or mend a damaged one. Blocks; `close` what it returns.

        A new blob's whole size is allocated. After another boot, what is present is read and
        checked first. A blob that somebody sealed meanwhile comes with nothing missing.

        Args:
            key: Of the blob.
            size_bytes: Of the blob.
            provider_id: Where its chunks come from, if `key` is that of a content; else None.

        Raises:
            DiskFullError: nothing new was left behind.
            UnavailableError: somebody else is at it; wait until that one has closed it.
        """
        blob_hex(key)
        if provider_id is not None and not _PROVIDER_ID.fullmatch(provider_id):
            raise InvalidRequestError(f"not a provider id: {provider_id[:40]!r}")
        is_known = key in self._states.get(key, {})
        name = key if provider_id is None or is_known else f"{key}.{provider_id}"
        with self._lock:
            if name in self._open:
                raise UnavailableError(f"blob {key[:12]}… is being fetched already")
            self._open[name] = None
        try:
            blob = self._open_blob(name, size_bytes, is_content=provider_id is not None)
        except BaseException:
            with self._lock:
                del self._open[name]
            self._refresh(name)
            raise
        self._open[name] = blob
        self._refresh(name)
        return blob

    def is_open(self, key: str) -> bool:
        """Whether somebody is at the blob, from any provider."""
        return any(name[:_KEY_DIGITS] == key for name in tuple(self._open))

    # -- checking and removing

    @disk_errors()
    def verify(self, key: str, size_bytes: int) -> list[int]:
        """Chunks of a sealed blob that are not what was sealed. Reads all of it; blocks.

        Raises:
            IntegrityMismatchError: the data is gone; the blob counts as absent from now on.
        """
        try:
            return blob_dirs.verify(self._path(key), size_bytes, self._boot_id)
        except FileNotFoundError as e:
            self._refresh(key)
            raise IntegrityMismatchError(f"the data of blob {key[:12]}… is gone") from e

    @disk_errors()
    def unseal_chunks(self, key: str, size_bytes: int, bad: list[int]) -> None:
        """Have chunks of a sealed blob fetched again: `open_partial` comes with these missing.

        Pods may have the blob mapped: no byte changes before the right ones are here and checked
        (see `repairs`). The blob is unsealed until then.
        """
        blob_dirs.unseal(self._path(key), size_bytes, bad, self._boot_id)
        self._refresh(key)

    @disk_errors()
    def discard(self, keys: Container[str]) -> list[Path]:
        """Take blobs out of the store, but for those somebody is at.

        Returns:
            What is left to remove from the trash: call `files.remove_tree` on each, in any thread.
        """
        graves = []
        for key, by_name in tuple(self._states.items()):
            doomed = by_name if key in keys else self._superseded(key)
            for name in doomed:
                with self._lock:
                    if name in self._open:
                        continue
                    graves.append(self._trash.take(self._path(name)))
                self._refresh(name)
        return graves

    def _superseded(self, key: str) -> list[str]:
        """Unsealed copies of a blob that is sealed."""
        return [name for name in self._states[key] if name != key] if self.is_sealed(key) else []

    # -- inside

    def _open_blob(self, name: str, size_bytes: int, *, is_content: bool) -> PartialBlob:
        path = self._path(name)
        state = blob_dirs.look(path)
        if state.is_sealed and state.size_bytes == size_bytes:
            if len(name) > _KEY_DIGITS:  # a crash came between its seal and its final name
                path = self._name_finally(path)
            return self._partial(path, Journal.open(path / "chunks", size_bytes))
        is_whole = state.size_bytes == size_bytes and (path / "data").exists()
        was_sealed = is_content and len(name) == _KEY_DIGITS
        if is_whole and (was_sealed or (path / "data").stat().st_nlink > 1):
            return self._repair(path, blob_dirs.open_journal(path, size_bytes, self._boot_id))
        return self._partial(path, blob_dirs.begin(path, size_bytes, self._boot_id))

    def _partial(self, path: Path, journal: Journal) -> PartialBlob:
        return PartialBlob(path, journal, on_sealed=self._on_sealed, on_closed=self._on_closed)

    def _repair(self, path: Path, journal: Journal) -> Repair:
        repair = Repair(path, journal, on_sealed=self._on_sealed, on_closed=self._on_closed)
        try:
            repair.begin()
        except BaseException:
            journal.close()
            raise
        return repair

    def _on_sealed(self, blob: PartialBlob) -> Path:
        return self._name_finally(blob.directory)

    def _name_finally(self, directory: Path) -> Path:
        """Give a sealed blob its final name, or drop it where there is one by that name already."""
        name = directory.name
        key = name[:_KEY_DIGITS]
        final = self._path(key)
        sync_dir(directory)
        with self._lock:
            if name != key and self.is_sealed(key):
                remove_tree(self._trash.take(directory))
            elif name != key:
                os.rename(directory, final)
            sync_dir(final.parent)
            self._refresh(name)
            self._refresh(key)
        return final

    def _on_closed(self, blob: PartialBlob) -> None:
        with self._lock:
            for name in [name for name, one in self._open.items() if one is blob]:
                del self._open[name]
                self._refresh(name)

    def _refresh(self, name: str) -> None:
        """Look at a directory again."""
        path = self._path(name)
        with self._lock:
            self._present_bytes.pop(name, None)
            self._note(name, blob_dirs.look(path) if path.is_dir() else None)

    def _note(self, name: str, state: BlobState | None) -> None:
        key = name[:_KEY_DIGITS]
        states = {other: s for other, s in self._states.get(key, {}).items() if other != name}
        if state is not None:
            states[name] = state
        if states:
            self._states[key] = states
        else:
            self._states.pop(key, None)
        sealed = name == key and state is not None and state.is_sealed
        if name == key and sealed == (key in self.unsealed):
            self.unsealed = self.unsealed ^ {key}

    def _present_in(self, name: str) -> int:
        blob = self._open.get(name)
        if blob is not None:
            return blob.present_bytes()
        if name not in self._present_bytes:
            self._present_bytes[name] = blob_dirs.present_bytes(self._path(name), self._boot_id)
        return self._present_bytes[name]

    def _path(self, name: str) -> Path:
        return self._root / name[:2] / name
