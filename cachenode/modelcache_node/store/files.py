"""Durable files and directories: the few steps that every part of the store is made of.

Everything goes through `os`, one call per step, so that a test can end the process at any of them.
Names below the store are never followed through symbolic links.
"""

import contextlib
import ctypes
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from modelcache_api.errors import DiskFailedError, DiskFullError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
#: A file system that the kernel has shut down or made read-only answers these.
_FAILED = frozenset(
    {
        errno.EIO,
        errno.EROFS,
        errno.ENXIO,
        errno.ENODEV,
        errno.EUCLEAN,
        errno.ESTALE,
        errno.ENOMEDIUM,
    }
)
_OPEN_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextlib.contextmanager
def disk_errors() -> Iterator[None]:
    """Tell what an `OSError` means for the node. Also a decorator.

    Raises:
        DiskFullError: make room and try again.
        DiskFailedError: the disk is broken; take the node out.
    """
    try:
        yield
    except OSError as e:
        if e.errno in _FULL:
            raise DiskFullError(f"the disk is full: {e.strerror}") from e
        if e.errno in _FAILED:
            raise DiskFailedError(f"the disk fails: {e.strerror} ({e.filename or 'store'})") from e
        raise


@contextlib.contextmanager
def open_dir(path: str | Path, dir_fd: int | None = None) -> Iterator[int]:
    """A descriptor of a directory, not reached through a link in its last element."""
    fd = os.open(path, _OPEN_DIR, dir_fd=dir_fd)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def open_file(path: Path, flags: int = os.O_RDONLY) -> Iterator[int]:
    """A descriptor of an existing file, not reached through a link in its last element."""
    fd = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def sync_dir(path: Path) -> None:
    """Make the entries of a directory durable."""
    with open_dir(path) as fd:
        os.fsync(fd)


def ensure_dir(path: Path, mode: int = 0o755) -> None:
    """A directory, durable in its parent. Idempotent."""
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        return
    sync_dir(path.parent)


def write_file(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Put a whole file in place, durably: afterwards there is the old content or the new."""
    staged = path.with_name(f".{path.name}.new")
    fd = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        write_at(fd, content, 0)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(staged, path)
    sync_dir(path.parent)


def write_at(fd: int, content: bytes | bytearray | memoryview, offset: int) -> None:
    """`pwrite` of all of it."""
    view = memoryview(content)
    while view:
        n_written = os.pwrite(fd, view, offset)
        view, offset = view[n_written:], offset + n_written


def preallocate(fd: int, size_bytes: int) -> None:
    """Give a new file its size and, where the file system can, its blocks.

    fallocate(2) itself, not posix_fallocate(3): glibc emulates that one by writing to every block.

    Raises:
        OSError: ENOSPC among others; blocks may have been taken.
    """
    if size_bytes == 0:
        return
    fallocate = ctypes.CDLL(None, use_errno=True).fallocate
    fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    if fallocate(fd, 0, 0, size_bytes) == 0:
        return
    code = ctypes.get_errno()
    if code not in (errno.EOPNOTSUPP, errno.ENOSYS):
        raise OSError(code, os.strerror(code))
    os.ftruncate(fd, size_bytes)


class Trash:
    """Where what is to be deleted goes first, so that a crash never leaves half of it in place."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def take(self, path: Path) -> Path:
        """Move a directory out of sight, in one durable step; `empty` or `remove` it afterwards."""
        grave = self._path / secrets.token_hex(8)
        os.rename(path, grave)
        sync_dir(path.parent)
        return grave

    def empty(self) -> None:
        for name in os.listdir(self._path):
            remove_tree(self._path / name)


def remove_tree(path: Path) -> None:
    """Remove a file, or a directory with all below it. Idempotent.

    Directories are made writable first: the agent is root without CAP_DAC_OVERRIDE.
    """
    with contextlib.suppress(FileNotFoundError), open_dir(path.parent) as parent:
        _remove(parent, path.name)


def _remove(parent: int, name: str) -> None:
    if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
        os.unlink(name, dir_fd=parent)
        return
    with open_dir(name, parent) as fd:
        os.fchmod(fd, 0o700)
        for child in os.listdir(fd):
            _remove(fd, child)
    os.rmdir(name, dir_fd=parent)
