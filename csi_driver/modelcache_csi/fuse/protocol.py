"""The kernel's FUSE protocol, 7.31 to 7.45: its numbers, and the structures of answers.

What a read-only file system needs of ``include/uapi/linux/fuse.h``. Everything is little-endian
here, as on every architecture that we run on; nothing here does I/O.

An answer is a header (length, negative errno or 0, the request's unique) and a body; a
notification is the same with unique 0 and a positive code in the errno's place.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum, IntFlag

MAJOR = 7
#: The oldest that is spoken (Linux 5.4), and the newest that was looked at (Linux 6.18).
MIN_MINOR = 31
MAX_MINOR = 45
ROOT_NODE = 1
#: Bytes of a name. Linux, NAME_MAX; the kernel itself refuses more than 1,024.
MAX_NAME_BYTES = 255


class Opcode(IntEnum):
    """What the kernel asks for. Those that it may send to anybody; not all are served."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    ACCESS = 34
    CREATE = 35
    INTERRUPT = 36
    DESTROY = 38
    BATCH_FORGET = 42
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45
    COPY_FILE_RANGE = 47
    TMPFILE = 51


#: What would change a file system; answered EROFS.
MUTATIONS = frozenset(
    {
        Opcode.SETATTR,
        Opcode.SYMLINK,
        Opcode.MKNOD,
        Opcode.MKDIR,
        Opcode.UNLINK,
        Opcode.RMDIR,
        Opcode.RENAME,
        Opcode.LINK,
        Opcode.WRITE,
        Opcode.SETXATTR,
        Opcode.REMOVEXATTR,
        Opcode.CREATE,
        Opcode.FALLOCATE,
        Opcode.RENAME2,
        Opcode.COPY_FILE_RANGE,
        Opcode.TMPFILE,
    }
)


class InitFlag(IntFlag):
    """What the kernel offers and we accept, in INIT. The upper 32 bits travel as ``flags2``."""

    ASYNC_READ = 1 << 0
    DO_READDIRPLUS = 1 << 13
    READDIRPLUS_AUTO = 1 << 14
    PARALLEL_DIROPS = 1 << 18
    MAX_PAGES = 1 << 22
    CACHE_SYMLINKS = 1 << 23
    INIT_EXT = 1 << 30
    PASSTHROUGH = 1 << 37
    HAS_RESEND = 1 << 39


class OpenFlag(IntFlag):
    """How the kernel is to treat an opened file or directory."""

    KEEP_CACHE = 1 << 1
    CACHE_DIR = 1 << 3
    NOFLUSH = 1 << 5
    PASSTHROUGH = 1 << 7


class Notification(IntEnum):
    """What we may say unasked."""

    INVAL_ENTRY = 3
    RESEND = 7


@dataclass(frozen=True, slots=True)
class Attributes:
    """What `stat` shows. All files of a mount share owner (root) and time."""

    inode: int
    mode: int
    size_bytes: int = 0
    n_links: int = 1
    mtime_s: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """A name that was found. `valid_s` 0 and `node` 0: it was not, and may not be remembered."""

    node: int
    attributes: Attributes
    valid_s: int


@dataclass(frozen=True, slots=True)
class DirectoryEntry:
    """One line of a directory; `offset` is where the next one begins."""

    offset: int
    name: bytes
    entry: Entry


@dataclass(frozen=True, slots=True)
class InitAnswer:
    """What both sides hold to from here on."""

    minor: int
    flags: InitFlag
    max_readahead_bytes: int
    max_background: int
    congestion_threshold: int
    max_write_bytes: int
    max_pages: int
    max_stack_depth: int


@dataclass(frozen=True, slots=True)
class FileSystemSize:
    """What `statfs` shows: all of it is used."""

    size_bytes: int
    n_files: int


OUT_HEADER = struct.Struct("<IiQ")
_ATTRIBUTES = struct.Struct("<6Q10I")
_ENTRY = struct.Struct("<4Q2I")
_ATTR_OUT = struct.Struct("<QII")
_OPEN_OUT = struct.Struct("<QIi")
_INIT_OUT = struct.Struct("<4I2H2I2HII24x")
_STATFS = struct.Struct("<5Q4I24x")
_DIRENT = struct.Struct("<QQII")
_INVAL_ENTRY = struct.Struct("<QII")
#: Bytes of a file system's block, wherever one is to be named.
_BLOCK_BYTES = 4096
_TYPE_SHIFT = 12


def answer(unique: int, body: bytes = b"") -> bytes:
    """A request done."""
    return OUT_HEADER.pack(OUT_HEADER.size + len(body), 0, unique) + body


def refusal(unique: int, errno: int) -> bytes:
    """A request that cannot be done; `errno` as in the module of that name."""
    return OUT_HEADER.pack(OUT_HEADER.size, -errno, unique)


def pack_init(init: InitAnswer) -> bytes:
    return _INIT_OUT.pack(
        MAJOR,
        init.minor,
        init.max_readahead_bytes,
        init.flags & 0xFFFFFFFF,
        init.max_background,
        init.congestion_threshold,
        init.max_write_bytes,
        1,  # granularity of time stamps, in ns
        init.max_pages,
        0,
        init.flags >> 32,
        init.max_stack_depth,
    )


def pack_attributes(attributes: Attributes) -> bytes:
    size = attributes.size_bytes
    times = attributes.mtime_s
    return _ATTRIBUTES.pack(
        attributes.inode,
        size,
        -(-size // 512),
        times,
        times,
        times,
        0,
        0,
        0,
        attributes.mode,
        attributes.n_links,
        0,
        0,
        0,
        _BLOCK_BYTES,
        0,
    )


def pack_entry(entry: Entry) -> bytes:
    head = _ENTRY.pack(entry.node, 0, entry.valid_s, entry.valid_s, 0, 0)
    return head + pack_attributes(entry.attributes)


def pack_attr_out(attributes: Attributes, valid_s: int) -> bytes:
    return _ATTR_OUT.pack(valid_s, 0, 0) + pack_attributes(attributes)


def pack_open(flags: OpenFlag, backing_id: int = 0) -> bytes:
    """File handles are all 0: whoever succeeds us knows none of ours."""
    return _OPEN_OUT.pack(0, flags, backing_id)


def pack_statfs(size: FileSystemSize) -> bytes:
    blocks = -(-size.size_bytes // _BLOCK_BYTES)
    return _STATFS.pack(
        blocks, 0, 0, size.n_files, 0, _BLOCK_BYTES, MAX_NAME_BYTES, _BLOCK_BYTES, 0
    )


def pack_directory(
    entries: Iterable[DirectoryEntry], max_bytes: int, *, with_attributes: bool
) -> bytes:
    """As many entries as fit. READDIRPLUS (`with_attributes`) has a whole entry before each."""
    packed = bytearray()
    for one in entries:
        attributes = one.entry.attributes
        head = pack_entry(one.entry) if with_attributes else b""
        kind = attributes.mode >> _TYPE_SHIFT
        head += _DIRENT.pack(attributes.inode, one.offset, len(one.name), kind)
        record = head + one.name
        record += bytes(-len(record) % 8)
        if len(packed) + len(record) > max_bytes:
            break
        packed += record
    return bytes(packed)


def pack_inval_entry(parent: int, name: bytes) -> bytes:
    """Notification: look that name up again before it is used next."""
    body = _INVAL_ENTRY.pack(parent, len(name), 0) + name + b"\0"
    return OUT_HEADER.pack(OUT_HEADER.size + len(body), Notification.INVAL_ENTRY, 0) + body


def pack_resend() -> bytes:
    """Notification: send all that was read and not answered again."""
    return OUT_HEADER.pack(OUT_HEADER.size, Notification.RESEND, 0)
