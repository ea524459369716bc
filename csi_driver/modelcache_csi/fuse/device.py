"""The ``/dev/fuse`` descriptor of one mount: messages in, answers out, and its one ioctl."""

import errno
import fcntl
import logging
import os
import struct

from modelcache_csi.fuse.protocol import OUT_HEADER

#: _IOW(229, 1, struct fuse_backing_map). Linux 6.9, include/uapi/linux/fuse.h
_BACKING_OPEN = 1 << 30 | 16 << 16 | 229 << 8 | 1
_BACKING_MAP = struct.Struct("<iIQ")
#: Bytes of the largest READ that we agreed to.
_MAX_READ_BYTES = 1 << 20

log = logging.getLogger(__name__)


class UnmountedError(Exception):
    """The mount is gone, or was aborted: there is nobody left to serve."""


class Device:
    """See the module's text. Owns `fd` no more than its caller does."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        os.set_blocking(fd, False)
        self._buffer = bytearray(OUT_HEADER.size + _MAX_READ_BYTES)
        self._view = memoryview(self._buffer)

    def read_into(self, inbox: memoryview) -> int | None:
        """Bytes of the next request; None when there is none at the moment.

        Raises:
            UnmountedError: there will be none.
        """
        while True:
            try:
                return os.readv(self.fd, [inbox])
            except BlockingIOError:
                return None
            except OSError as e:
                if e.errno in (errno.ENODEV, errno.ECONNABORTED):
                    raise UnmountedError from e
                # ENOENT: who asked was interrupted before we saw it
                if e.errno not in (errno.ENOENT, errno.EINTR):
                    raise

    def write(self, raw: bytes | memoryview) -> None:
        """Send an answer. That nobody waits for it any more is no error."""
        try:
            os.write(self.fd, raw)
        except OSError as e:
            if e.errno in (errno.ENODEV, errno.ECONNABORTED):
                raise UnmountedError from e
            if e.errno != errno.ENOENT:
                log.error("the kernel refuses an answer: %s", e)  # noqa: TRY400  # no bug of ours

    def write_range(self, unique: int, data_fd: int, offset: int, size: int) -> bool:
        """Answer a READ with bytes of a file; False, and nothing sent, when it is shorter.

        Raises:
            OSError: the disk cannot read them.
        """
        end = OUT_HEADER.size + size
        if end > len(self._buffer):
            self._buffer = bytearray(end)
            self._view = memoryview(self._buffer)
        if os.preadv(data_fd, [self._view[OUT_HEADER.size : end]], offset) < size:
            return False
        OUT_HEADER.pack_into(self._buffer, 0, end, 0, unique)
        self.write(self._view[:end])
        return True

    def open_backing(self, data_fd: int) -> int:
        """Have the kernel keep a file, to read it without us; its id.

        Raises:
            OSError: it will not.
        """
        backing_map = bytearray(_BACKING_MAP.pack(data_fd, 0, 0))
        return int(fcntl.ioctl(self.fd, _BACKING_OPEN, backing_map))
