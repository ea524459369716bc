"""What kind of disk a store is on; refused are the root file system and those across a network."""

import ctypes
import os
from pathlib import Path

from modelcache_api.errors import InvalidRequestError

#: statfs(2), f_type, of file systems whose bytes come over a network or through a daemon.
_REMOTE = {
    0x6969: "NFS",
    0x517B: "SMB",
    0xFF534D42: "CIFS",
    0xFE534D42: "SMB2",
    0x01021997: "9P",
    0x00C36400: "Ceph",
    0x65735546: "FUSE",
    0x0BD00BD0: "Lustre",
    0x47504653: "GPFS",
}
_TMPFS = 0x01021994
_STATFS_BYTES = 256  # struct statfs is 120 bytes on 64-bit Linux; room to spare


def check_disk(root: Path) -> None:
    """Raises InvalidRequestError: `root` is on a disk that a cache should not fill or trust."""
    kind = _REMOTE.get(_file_system_type(root))
    how = "use a local disk, or say --allow-any-disk"
    if kind:
        raise InvalidRequestError(f"{root} is on {kind}, across a network; {how}")
    if os.stat(root).st_dev == os.stat("/").st_dev:
        raise InvalidRequestError(
            f"{root} is on the root file system, which a full cache would take down; {how}"
        )


def is_memory(path: Path) -> bool:
    """Whether files there are in memory, where taking room for one costs as much as writing."""
    return _file_system_type(path) == _TMPFS


def _file_system_type(path: Path) -> int:
    buffer = ctypes.create_string_buffer(_STATFS_BYTES)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.statfs(os.fsencode(path), buffer) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(path))
    return int.from_bytes(buffer.raw[:8], "little") & 0xFFFFFFFF
