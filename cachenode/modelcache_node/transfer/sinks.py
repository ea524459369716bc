"""Where a range's bytes go: checksums, then its place in a file, then on to the disk.

Write-behind: a finished window of a file is handed to the disk at once (``sync_file_range``), so
that dirty pages never pile up to where the kernel would stop us, and a final ``fdatasync`` has
little left to do. Above a budget the oldest window is waited for; above another one, clean windows
are dropped from the page cache. So a memory limit neither kills nor throttles a mover.
"""

import ctypes
import os
from collections import deque

from awscrt import checksums

from modelcache_api.units import KIB, MIB
from modelcache_node.transfer.failures import disk_failure

#: Bytes handed to the disk at a time. Arbitrary: some disk requests long, half a chunk.
WINDOW_BYTES = 8 * MIB
#: Most bytes of one write. Linux takes memory for a write of a MiB or more in pieces of that size
#: where the file system has large folios, which costs it three times the time on a busy machine.
WRITE_BYTES = 512 * KIB
#: Windows waited for or kept in mind at once, however small they are. Arbitrary; bounds open files.
MAX_WINDOWS = 512

# linux/fs.h
_WAIT_BEFORE, _WRITE, _WAIT_AFTER = 1, 2, 4


def _load_sync_file_range() -> "ctypes._NamedFuncPointer":
    function = ctypes.CDLL(None, use_errno=True).sync_file_range
    function.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    return function


_sync_file_range = _load_sync_file_range()


def sync_file_range(fd: int, offset: int, n_bytes: int, flags: int) -> None:
    """The system call of this name, which Python does not offer.

    Raises:
        OSError: the disk failed.
    """
    if _sync_file_range(fd, offset, n_bytes, flags) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class OpenFile:
    """A file descriptor shared by ranges and windows; closed with the last of them."""

    __slots__ = ("_n_users", "fd")

    def __init__(self, path: str) -> None:
        self.fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        self._n_users = 1

    def share(self) -> "OpenFile":
        self._n_users += 1
        return self

    def release(self) -> None:
        self._n_users -= 1
        if self._n_users == 0:
            os.close(self.fd)


class WriteBehind:
    """Windows on their way to the disk, and those left in the page cache, oldest first."""

    def __init__(self, dirty_bytes: int, keep_cached_bytes: int | None) -> None:
        self._dirty_limit = dirty_bytes
        self._cached_limit = keep_cached_bytes
        self._dirty: deque[tuple[OpenFile, int, int]] = deque()
        self._cached: deque[tuple[OpenFile, int, int]] = deque()
        self._dirty_bytes = 0
        self._cached_bytes = 0

    def add(self, file: OpenFile, offset: int, n_bytes: int) -> None:
        """Begin to write a window out; waits for older ones above the budget.

        Raises:
            OSError: the disk failed.
        """
        sync_file_range(file.fd, offset, n_bytes, _WRITE)
        self._dirty.append((file.share(), offset, n_bytes))
        self._dirty_bytes += n_bytes
        while self._dirty_bytes > self._dirty_limit or len(self._dirty) > MAX_WINDOWS:
            self._finish_oldest()

    def let_go(self) -> None:
        """Close every file; the kernel goes on writing what it was handed.

        For when nothing is under way: a file that is open keeps its disk blocks although it was
        deleted, so one that was evicted would make no room.
        """
        for file, _, _ in (*self._dirty, *self._cached):
            file.release()
        self._dirty.clear()
        self._cached.clear()
        self._dirty_bytes = self._cached_bytes = 0

    def _finish_oldest(self) -> None:
        file, offset, n_bytes = self._dirty.popleft()
        self._dirty_bytes -= n_bytes
        try:
            sync_file_range(file.fd, offset, n_bytes, _WAIT_BEFORE | _WRITE | _WAIT_AFTER)
        except OSError:
            file.release()
            raise
        if self._cached_limit is None:
            file.release()
            return
        self._cached.append((file, offset, n_bytes))
        self._cached_bytes += n_bytes
        while self._cached_bytes > self._cached_limit or len(self._cached) > MAX_WINDOWS:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        file, offset, n_bytes = self._cached.popleft()
        self._cached_bytes -= n_bytes
        os.posix_fadvise(file.fd, offset, n_bytes, os.POSIX_FADV_DONTNEED)
        file.release()


class RangeSink:
    """Takes the bytes of one range in order; `close` it in any case."""

    __slots__ = ("_behind", "_file", "_window_at", "crc32c", "crc64nvme", "position", "remaining")

    def __init__(
        self,
        path: str | None,
        offset: int,
        length: int,
        behind: WriteBehind,
        *,
        wants_crc64nvme: bool,
    ) -> None:
        """Open the file.

        Raises:
            RangeFailedError: it cannot be opened.
        """
        self.crc32c = 0
        self.crc64nvme: int | None = 0 if wants_crc64nvme else None
        self.remaining = length
        self.position = self._window_at = offset
        self._behind = behind
        try:
            self._file = None if path is None else OpenFile(path)
        except OSError as e:
            raise disk_failure(e) from e

    def take(self, piece: memoryview) -> None:
        """Check and write the next bytes.

        Raises:
            RangeFailedError: our disk refuses them.
        """
        self.crc32c = checksums.crc32c(piece, self.crc32c)
        if self.crc64nvme is not None:
            self.crc64nvme = checksums.crc64nvme(piece, self.crc64nvme)
        n_bytes = len(piece)
        self.remaining -= n_bytes
        if self._file is None:
            return
        try:
            written = 0
            while written < n_bytes:
                part = piece[written : written + WRITE_BYTES]
                written += os.pwrite(self._file.fd, part, self.position + written)
            self.position += n_bytes
            window_bytes = self.position - self._window_at
            if window_bytes >= WINDOW_BYTES or not self.remaining:
                self._behind.add(self._file, self._window_at, window_bytes)
                self._window_at = self.position
        except OSError as e:
            raise disk_failure(e) from e

    def close(self) -> None:
        """Idempotent."""
        if self._file is not None:
            self._file.release()
            self._file = None
