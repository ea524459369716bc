"""One blob's directory: what is in it, and how it is begun, gone on with and sealed.

It holds ``data`` and ``chunks``. The journal is made after the data has its blocks, so a journal of
the right size says that they were allocated.
"""

import contextlib
import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from modelcache_api.errors import IntegrityMismatchError
from modelcache_node.store.combining import chunk_crcs
from modelcache_node.store.disks import is_memory
from modelcache_node.store.files import ensure_dir, open_file, preallocate, remove_tree
from modelcache_node.store.journal import Journal, read_header

PARTIAL_MODE = 0o644
SEALED_MODE = 0o444
_BLOCK_BYTES = 512  # stat(2): unit of st_blocks, whatever the file system's block is


@dataclass(frozen=True, slots=True)
class BlobState:
    """What a look at the directory shows.

    `allocated_bytes` are blocks of the disk; a sparse file has fewer than its size.
    """

    size_bytes: int
    allocated_bytes: int
    is_sealed: bool


def look(path: Path) -> BlobState:
    """The state of a directory. Data is made read-only last, so read-only data is sealed."""
    try:
        found = os.stat(path / "data", follow_symlinks=False)
    except FileNotFoundError:
        return BlobState(0, 0, is_sealed=False)
    is_sealed = stat.S_IMODE(found.st_mode) == SEALED_MODE
    if not is_sealed:
        header = read_header(path / "chunks")
        is_sealed = bool(header and header.is_sealed and header.size_bytes == found.st_size)
        if is_sealed:
            os.chmod(path / "data", SEALED_MODE)
    return BlobState(found.st_size, found.st_blocks * _BLOCK_BYTES, is_sealed)


def begin(path: Path, size_bytes: int, boot_id: UUID) -> Journal:
    """The journal of a directory to write a blob into, new or gone on with.

    What was written under another boot is compared with its CRC first.

    Raises:
        OSError: ENOSPC among others; a directory that did not exist does not exist now.
    """
    ensure_dir(path.parent)
    journal = _resume(path, size_bytes, boot_id)
    if journal is not None:
        return journal
    remove_tree(path)
    os.mkdir(path, 0o755)
    try:
        _allocate(path / "data", size_bytes)
        return Journal.create(path / "chunks", size_bytes, boot_id)
    except OSError:
        remove_tree(path)
        raise


def is_intact(fd: int, index: int, journal: Journal) -> bool:
    """Whether a chunk's bytes are still those that its CRC32C was recorded of.

    One that cannot be read is not: writing it anew gives the disk a chance to remap it.
    """
    try:
        found, _ = chunk_crcs(fd, index, journal.header.size_bytes)
    except OSError as e:
        if e.errno != errno.EIO:
            raise
        return False
    return found == journal.record(index).crc32c


def verify(path: Path, size_bytes: int, boot_id: UUID) -> list[int]:
    """Chunks of a sealed blob that are not what was sealed. Reads the disk, not its cache.

    Raises:
        FileNotFoundError: the data is gone.
    """
    with (
        open_file(path / "data") as fd,
        contextlib.closing(open_journal(path, size_bytes, boot_id)) as journal,
    ):
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        bad = [
            index
            for index in range(journal.n_chunks)
            if not (journal.is_present(index) and is_intact(fd, index, journal))
        ]
        if not bad and os.fstat(fd).st_size != size_bytes:
            bad = [journal.n_chunks - 1]  # longer than it was: mending cuts it
        return bad


def unseal(path: Path, size_bytes: int, bad: list[int], boot_id: UUID) -> None:
    """Mark chunks of a sealed blob as missing, durably.

    Of the data, no byte changes; a file that was cut short or grew gets its size back.
    """
    with open_file(path / "data") as readable:
        os.fchmod(readable, PARTIAL_MODE)
    with open_file(path / "data", os.O_RDWR) as fd:
        if os.fstat(fd).st_size != size_bytes:
            os.ftruncate(fd, size_bytes)
        os.fsync(fd)
    with contextlib.closing(open_journal(path, size_bytes, boot_id)) as journal:
        for index in bad:
            journal.mark_absent(index)
        journal.unseal()


def present_bytes(path: Path, boot_id: UUID) -> int:
    """Bytes that count as present in an unsealed blob that nobody is at.

    What another boot wrote is not counted before it was checked.
    """
    header = read_header(path / "chunks")
    if header is None or header.boot_id != boot_id:
        return 0
    try:
        with contextlib.closing(Journal.open(path / "chunks", header.size_bytes)) as journal:
            return journal.present_bytes()
    except (FileNotFoundError, IntegrityMismatchError):
        return 0


def open_journal(path: Path, size_bytes: int, boot_id: UUID) -> Journal:
    """The journal; where it cannot be trusted, a new one that says all is absent."""
    try:
        return Journal.open(path / "chunks", size_bytes)
    except (FileNotFoundError, IntegrityMismatchError):
        return Journal.create(path / "chunks", size_bytes, boot_id)


def _resume(path: Path, size_bytes: int, boot_id: UUID) -> Journal | None:
    """The journal of what an earlier run left, after a check of it; None: nothing of use."""
    try:
        with open_file(path / "data") as fd:
            if os.fstat(fd).st_size != size_bytes:
                return None
            journal = Journal.open(path / "chunks", size_bytes)
            try:
                _recheck(fd, journal, boot_id)
            except BaseException:
                journal.close()
                raise
            return journal
    except (FileNotFoundError, IntegrityMismatchError):
        return None


def _recheck(fd: int, journal: Journal, boot_id: UUID) -> None:
    """After another boot, mark what did not reach the disk as absent."""
    if journal.header.boot_id == boot_id:
        return
    for index in journal.present():
        if not is_intact(fd, index, journal):
            journal.mark_absent(index)
    journal.begin_boot(boot_id)


def _allocate(path: Path, size_bytes: int) -> None:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PARTIAL_MODE)
    try:
        if is_memory(path.parent):
            _check_room(fd, size_bytes)
            os.ftruncate(fd, size_bytes)
        else:
            preallocate(fd, size_bytes)
    finally:
        os.close(fd)


def _check_room(fd: int, size_bytes: int) -> None:
    """Raises OSError: ENOSPC."""
    found = os.fstatvfs(fd)
    if size_bytes > found.f_bavail * found.f_frsize:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
