r"""What a mount's server leaves to its successor, in memory that outlives it.

A memfd that server, keeper and plugin hold, mapped by the server. Format 1, little-endian::

    0     8   magic b"MCLEDGER"
    8     4   format version, 1
    12    4   number of blobs
    16    4   1 once INIT was answered
    20    4   minor version of the protocol agreed on
    24    8   INIT flags agreed on
    32    8   when a server was last seen at work: CLOCK_MONOTONIC, ns
    4096  64 KiB   inbox: the request at hand, as the device returned it; length 0: none
    …     80 × 4096   READs that wait for bytes, as they came; length 0: free
    …     4 × blobs   backing ids; 0: none yet, 0xffffffff: the kernel takes none for this blob

The device is read straight into the inbox, and the inbox is emptied after the answer is sent:
whenever a server dies, what it had taken from the kernel is to be found here. So a kernel that
cannot send requests again (no FUSE_NOTIFY_RESEND) loses none either.

Locks (POSIX, of a process, gone with it): byte 0 is held by the process that watches over the
server, byte 1 by the server itself. Nobody reads the device without the latter.
"""

import fcntl
import mmap
import os
import struct
from collections.abc import Iterator

from modelcache_csi.fuse.protocol import InitFlag

MAGIC = b"MCLEDGER"
FORMAT_VERSION = 1
#: More READs than this that wait at once stay in the kernel's queue. Arbitrary: four times what
#: the kernel may have in the background, and as many threads that read.
MAX_WAITING = 4096
#: The kernel refuses to read into less than 8 KiB, and into less than a whole write.
INBOX_BYTES = 64 << 10
#: Not for passthrough: the kernel refused the blob's file once, and must not be asked again.
NO_BACKING = 0xFFFFFFFF

_HEADER = struct.Struct("<8sIIIIQQ")
_INIT = struct.Struct("<IIQ")
_INIT_AT = 16
_SEEN = struct.Struct("<Q")
_SEEN_AT = 32
_LENGTH = struct.Struct("<I")
_INBOX_AT = 4096
_SLOTS_AT = _INBOX_AT + INBOX_BYTES
#: A READ of the kernel: 40 bytes of header and 40 of its own.
SLOT_BYTES = 80
_BACKING_AT = _SLOTS_AT + MAX_WAITING * SLOT_BYTES
_BACKING = struct.Struct("<I")

WATCHER, SERVER = 0, 1


class LedgerError(Exception):
    """Not a ledger, or one of another version."""


def create(n_blobs: int, *, now_ns: int) -> int:
    """A new ledger's descriptor, close-on-exec. `now_ns`: CLOCK_MONOTONIC."""
    fd = os.memfd_create("modelcache-ledger", os.MFD_CLOEXEC)
    os.ftruncate(fd, _BACKING_AT + n_blobs * _BACKING.size)
    os.pwrite(fd, _HEADER.pack(MAGIC, FORMAT_VERSION, n_blobs, 0, 0, 0, 0), 0)
    os.pwrite(fd, _SEEN.pack(now_ns), _SEEN_AT)
    return fd


def seen_ns(fd: int) -> int:
    """When a server of the mount was last at work; CLOCK_MONOTONIC."""
    return int(_SEEN.unpack(os.pread(fd, _SEEN.size, _SEEN_AT))[0])


def agreed_flags(fd: int) -> InitFlag | None:
    """What INIT agreed; None before it did."""
    is_done, _, flags = _INIT.unpack(os.pread(fd, _INIT.size, _INIT_AT))
    return InitFlag(flags) if is_done else None


class Ledger:
    """A mapped ledger. One per process, kept as long as a role of it: closing any descriptor of
    the file, that of a mapping included, drops the process's locks.
    """

    def __init__(self, fd: int) -> None:
        """Raises LedgerError."""
        size = os.fstat(fd).st_size
        if size < _BACKING_AT:
            raise LedgerError(f"a ledger of {size} bytes")
        self._fd = fd
        self._map = mmap.mmap(fd, size)
        magic, version, self.n_blobs = _HEADER.unpack_from(self._map)[:3]
        if magic != MAGIC or version != FORMAT_VERSION:
            raise LedgerError(f"not a ledger of format {FORMAT_VERSION}")
        if size < _BACKING_AT + self.n_blobs * _BACKING.size:
            raise LedgerError("a ledger cut short")
        self._bytes = memoryview(self._map)
        self.inbox = self._bytes[_INBOX_AT : _INBOX_AT + INBOX_BYTES]
        self.recount()

    # -- what INIT agreed

    @property
    def agreed(self) -> tuple[int, InitFlag] | None:
        """(minor version, flags); None before INIT."""
        is_done, minor, flags = _INIT.unpack_from(self._map, _INIT_AT)
        return (minor, InitFlag(flags)) if is_done else None

    def note_agreed(self, minor: int, flags: InitFlag) -> None:
        _INIT.pack_into(self._map, _INIT_AT, 1, minor, flags)

    # -- signs of life

    def note_seen(self, now_ns: int) -> None:
        _SEEN.pack_into(self._map, _SEEN_AT, now_ns)

    # -- requests at hand

    def pending(self) -> bytes | None:
        """What is left in the inbox by who died over it."""
        length = _LENGTH.unpack_from(self.inbox)[0]
        return bytes(self.inbox[:length]) if 0 < length <= INBOX_BYTES else None

    def empty_inbox(self) -> None:
        _LENGTH.pack_into(self.inbox, 0, 0)

    @property
    def has_room(self) -> bool:
        return bool(self._free)

    def recount(self) -> None:
        """Somebody else wrote meanwhile: see anew which slots are free."""
        self._free = [i for i in range(MAX_WAITING - 1, -1, -1) if not self._length(i)]

    def keep(self, raw: memoryview | bytes) -> int:
        """Note a READ that waits; returns its slot. There must be room."""
        slot = self._free.pop()
        begin = _SLOTS_AT + slot * SLOT_BYTES
        raw = raw[:SLOT_BYTES]
        # The length goes last: a slot counts only when it is whole.
        self._bytes[begin + _LENGTH.size : begin + len(raw)] = raw[_LENGTH.size :]
        _LENGTH.pack_into(self._map, begin, len(raw))
        return slot

    def drop(self, slot: int) -> None:
        _LENGTH.pack_into(self._map, _SLOTS_AT + slot * SLOT_BYTES, 0)
        self._free.append(slot)

    def kept(self) -> Iterator[tuple[int, bytes]]:
        """(slot, READ) of all that wait."""
        for slot in range(MAX_WAITING):
            if length := self._length(slot):
                begin = _SLOTS_AT + slot * SLOT_BYTES
                yield slot, bytes(self._bytes[begin : begin + min(length, SLOT_BYTES)])

    def forget_requests(self) -> None:
        """The kernel sends everything again."""
        for slot, _ in list(self.kept()):
            self.drop(slot)
        self.empty_inbox()

    def _length(self, slot: int) -> int:
        return int(_LENGTH.unpack_from(self._map, _SLOTS_AT + slot * SLOT_BYTES)[0])

    # -- backing ids

    def backing_id(self, blob_index: int) -> int:
        return int(_BACKING.unpack_from(self._map, _BACKING_AT + blob_index * _BACKING.size)[0])

    def note_backing_id(self, blob_index: int, backing_id: int) -> None:
        _BACKING.pack_into(self._map, _BACKING_AT + blob_index * _BACKING.size, backing_id)

    # -- who is at it

    def take(self, role: int, *, wait: bool) -> bool:
        """Become the watcher or the server; False: somebody else is. Gone with this process."""
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), 1, role)
        except BlockingIOError:
            return False
        return True

    def leave(self, role: int) -> None:
        fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, role)


def holder_pid(fd: int, role: int) -> int | None:
    """The process that holds a role of a ledger, if one does. Not told of one's own."""
    # struct flock, 64-bit: type, whence, start, length, pid
    query = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, role, 1, 0)
    kind, _, _, _, pid = struct.unpack("hhqqi4x", fcntl.fcntl(fd, fcntl.F_GETLK, query))
    return None if kind == fcntl.F_UNLCK else int(pid)
