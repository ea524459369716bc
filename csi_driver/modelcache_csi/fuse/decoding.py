"""Requests of the kernel, parsed once into frozen values.

The kernel is trusted, our reading of it is not: whatever the bytes are, the outcome is a request
or `MalformedRequestError`, never a wrong length or an index out of bounds.
"""

import struct
from dataclasses import dataclass

from modelcache_csi.fuse.protocol import MAX_NAME_BYTES, InitFlag, Opcode

_HEADER = struct.Struct("<IIQQIIIHH")
HEADER_BYTES = _HEADER.size
_INIT = struct.Struct("<4I")
_FLAGS2 = struct.Struct("<I")
_OPEN = struct.Struct("<II")
_INTERRUPT = struct.Struct("<Q")
#: The fields of READ that we use; newer kernels send more behind them.
_READ = struct.Struct("<QQI")


class MalformedRequestError(Exception):
    """Not a request as the kernel makes them. `unique` is 0 where not even that can be told."""

    def __init__(self, message: str, unique: int = 0) -> None:
        super().__init__(message)
        self.unique = unique


@dataclass(frozen=True, slots=True)
class Request:
    """Any request; those without a class of their own carry nothing that we look at."""

    opcode: int
    unique: int
    node: int


@dataclass(frozen=True, slots=True)
class Init(Request):
    """The kernel introduces itself."""

    major: int
    minor: int
    max_readahead_bytes: int
    flags: InitFlag


@dataclass(frozen=True, slots=True)
class Lookup(Request):
    """Which node is `name` in the directory `node`?"""

    name: bytes


@dataclass(frozen=True, slots=True)
class Open(Request):
    """Open a file or a directory; `flags` as of open(2)."""

    flags: int


@dataclass(frozen=True, slots=True)
class Read(Request):
    """Bytes of a file, or entries of a directory (then `offset` is an entry's)."""

    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Interrupt(Request):
    """Who waits for the request `interrupted` wants to wait no longer. Not to be answered."""

    interrupted: int


#: Requests that the kernel wants no answer to.
UNANSWERED = frozenset({Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.INTERRUPT})


def parse(raw: memoryview | bytes) -> Request:
    """One message, as one read of the device returns it.

    Raises:
        MalformedRequestError: cut short, too long, or of contents that cannot be.
    """
    if len(raw) < HEADER_BYTES:
        raise MalformedRequestError(f"a request of {len(raw)} bytes")
    length, opcode, unique, node = _HEADER.unpack_from(raw)[:4]
    if length != len(raw):
        raise MalformedRequestError(f"{len(raw)} bytes that call themselves {length}", unique)
    if opcode in (Opcode.READ, Opcode.READDIR, Opcode.READDIRPLUS):
        _need(raw, _READ, unique)
        _, offset, size = _READ.unpack_from(raw, HEADER_BYTES)
        return Read(opcode, unique, node, offset, size)
    if opcode == Opcode.LOOKUP:
        return Lookup(opcode, unique, node, _name(raw, unique))
    if opcode in (Opcode.OPEN, Opcode.OPENDIR):
        _need(raw, _OPEN, unique)
        return Open(opcode, unique, node, _OPEN.unpack_from(raw, HEADER_BYTES)[0])
    if opcode == Opcode.INTERRUPT:
        _need(raw, _INTERRUPT, unique)
        return Interrupt(opcode, unique, node, _INTERRUPT.unpack_from(raw, HEADER_BYTES)[0])
    if opcode == Opcode.INIT:
        return _init(raw, unique, node)
    return Request(opcode, unique, node)


def _need(raw: memoryview | bytes, body: struct.Struct, unique: int) -> None:
    if len(raw) < HEADER_BYTES + body.size:
        raise MalformedRequestError(f"a request cut short at {len(raw)} bytes", unique)


def _name(raw: memoryview | bytes, unique: int) -> bytes:
    """The first string of the body; whatever follows it (extensions) is not ours to read."""
    name, end, _ = bytes(raw[HEADER_BYTES:]).partition(b"\0")
    if not end or not name:
        raise MalformedRequestError("a name without an end", unique)
    return name


def is_too_long(name: bytes) -> bool:
    return len(name) > MAX_NAME_BYTES


def _init(raw: memoryview | bytes, unique: int, node: int) -> Init:
    _need(raw, _INIT, unique)
    major, minor, max_readahead_bytes, flags = _INIT.unpack_from(raw, HEADER_BYTES)
    after = HEADER_BYTES + _INIT.size
    if InitFlag(flags & InitFlag.INIT_EXT) and len(raw) >= after + _FLAGS2.size:
        flags |= _FLAGS2.unpack_from(raw, after)[0] << 32
    return Init(Opcode.INIT, unique, node, major, minor, max_readahead_bytes, InitFlag(flags))
