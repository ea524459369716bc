"""One node's store: opened by one process at a time, checked, and cleared of leftovers.

::

    VERSION    "1"
    store_id   a UUID, made with the store: tells an emptied disk from a kept one
    lock       held by the process that has the store open
    blobs/  revisions/  state.db    see blobs.py, revisions.py, index.py
    trash/     what is being deleted
"""

import fcntl
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from uuid import UUID, uuid4

from modelcache_api.chunks import chunk_count
from modelcache_api.errors import IntegrityMismatchError, InvalidRequestError
from modelcache_node.store.blobs import BlobStore
from modelcache_node.store.disks import check_disk
from modelcache_node.store.files import Trash, disk_errors, ensure_dir, remove_tree, write_file
from modelcache_node.store.index import Index
from modelcache_node.store.revisions import RevisionStore

VERSION = "1"
#: What a new file system, or a store whose making was cut short, holds.
_BEGINNINGS = {"lock", "store_id", ".store_id.new", ".VERSION.new", "lost+found"}


def read_boot_id() -> UUID:
    """The kernel's name for this boot."""
    return UUID(Path("/proc/sys/kernel/random/boot_id").read_text().strip())


@dataclass(frozen=True, slots=True)
class Verified:
    """What reading a revision again found: `n_chunks` read, and how many corrupt by blob key."""

    n_chunks: int
    corrupt: dict[str, int]


class Store:
    """See the module's text; make it with `open`. Its parts may be used from several threads."""

    def __init__(self, root: Path, lock_fd: int, store_id: UUID, boot_id: UUID) -> None:
        """For `open`."""
        self.root = root
        self.store_id = store_id
        self.boot_id = boot_id
        self._lock_fd = lock_fd
        trash = Trash(root / "trash")
        trash.empty()
        self.blobs = BlobStore(root / "blobs", trash, boot_id)
        self.blobs.scan()
        self.revisions = RevisionStore(root / "revisions", trash, self.blobs.data_path)
        self.revisions.scan()
        self.collect()  # what a crash left between a revision's end and its blobs'
        self.index = Index.open(root / "state.db")

    @classmethod
    @disk_errors()
    def open(
        cls,
        root: Path,
        *,
        allow_any_disk: bool = False,
        boot_id: Callable[[], UUID] = read_boot_id,
    ) -> Self:
        """Open the store in `root`, or begin one in an empty or missing directory. Blocks.

        Raises:
            InvalidRequestError: not a store, of another version, in use, or on a disk that a
                store should not be on; the text says what to do.
        """
        root.mkdir(parents=True, exist_ok=True)
        if not allow_any_disk:
            check_disk(root)
        lock_fd = _lock(root)
        try:
            store_id = _identify(root)
            for name in ("blobs", "revisions", "trash"):
                ensure_dir(root / name)
            return cls(root, lock_fd, store_id, boot_id())
        except BaseException:
            os.close(lock_fd)
            raise

    def close(self) -> None:
        self.index.close()
        os.close(self._lock_fd)

    def is_complete(self, revision: str) -> bool:
        """Whether a pod may be given the revision's tree: published, and nothing found damaged."""
        if not self.revisions.is_published(revision):
            return False
        return self.revisions.manifest(revision).blobs.keys().isdisjoint(self.blobs.unsealed)

    def bytes_present(self, revision: str) -> int:
        """Bytes of a revision's distinct blobs that are here and checked."""
        return sum(map(self.blobs.present_bytes, self.revisions.manifest(revision).blobs))

    def verify(self, revision: str) -> Verified:
        """Read a revision's sealed blobs again. Blocks long.

        Corrupt chunks are dropped, and the revision is incomplete until they are fetched again.

        Raises:
            IntegrityMismatchError: a file's bytes are gone altogether.
        """
        n_chunks = 0
        corrupt: dict[str, int] = {}
        for key, file in self.revisions.manifest(revision).blobs.items():
            if not self.blobs.is_sealed(key):
                continue
            try:
                bad = self.blobs.verify(key, file.size_bytes)
            except IntegrityMismatchError as e:
                raise IntegrityMismatchError(
                    f"{file.path}: {e}; evict the revision and prefetch it again"
                ) from e
            if bad:
                self.blobs.unseal_chunks(key, file.size_bytes, bad)
                corrupt[key] = len(bad)
            n_chunks += chunk_count(file.size_bytes)
        return Verified(n_chunks, corrupt)

    def is_sealed(self, revision: str) -> bool:
        """Whether every blob of a revision is complete and checked, so that it can be published."""
        return all(map(self.blobs.is_sealed, self.revisions.manifest(revision).blobs))

    def delete(self, revision: str) -> None:
        """Remove a revision and the blobs that no other names. Blocks. Idempotent."""
        grave = self.revisions.delete(revision)
        self.index.forget(revision)
        self._remove([grave] if grave else [])
        self.collect()

    def abandon(self, revision: str) -> None:
        """Remove what came of a revision that is no more at its source. One that was published
        stays, as pods may use it. Blocks. Idempotent.
        """
        if not self.revisions.is_published(revision):
            self.delete(revision)

    def collect(self) -> None:
        """Remove blobs that no manifest names and nobody is at. Blocks."""
        self._remove(self.blobs.discard(self.blobs.keys() - self.revisions.references()))

    def _remove(self, graves: Iterable[Path]) -> None:
        for grave in graves:
            remove_tree(grave)


def _lock(root: Path) -> int:
    fd = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(fd)
        raise InvalidRequestError(
            f"{root} is in use by process {holder}; stop it, or use another directory"
        ) from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


def _identify(root: Path) -> UUID:
    """The store's id; a new one for a directory that holds nothing yet."""
    version = root / "VERSION"
    if not version.exists():
        strangers = sorted(set(os.listdir(root)) - _BEGINNINGS)
        if strangers:
            raise InvalidRequestError(
                f"{root} is no store and holds {strangers[0]!r}; use an empty directory"
            )
        write_file(root / "store_id", f"{uuid4()}\n".encode())
        write_file(version, f"{VERSION}\n".encode())  # last: a store is whole or not one
    found = version.read_text().strip()
    if found != VERSION:
        raise InvalidRequestError(
            f"{root} is a store of version {found[:20]!r}, this is for {VERSION}; empty it, or run"
            " the release that made it"
        )
    return UUID((root / "store_id").read_text().strip())
