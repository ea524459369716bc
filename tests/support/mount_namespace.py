"""Mounts of a test, in a mount namespace of the test process's own."""

import ctypes
import os
from pathlib import Path

from modelcache_csi.mountinfo import Mount, parse_mountinfo

_CLONE_NEWNS = 0x20000
_MS_BIND = 0x1000
_MS_REC = 0x4000
_MS_PRIVATE = 0x40000
_MS_SHARED = 0x100000
_MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def mount_tmpfs(path: Path) -> None:
    _check(_libc.mount(b"test", os.fsencode(path), b"tmpfs", 0, None))


def mount_bind(source: Path, target: Path) -> None:
    _check(_libc.mount(os.fsencode(source), os.fsencode(target), None, _MS_BIND, None))


def make_shared(path: Path) -> None:
    _check(_libc.mount(None, os.fsencode(path), None, _MS_SHARED, None))


def detach(path: Path) -> None:
    _check(_libc.umount2(os.fsencode(path), _MNT_DETACH))


def mounts_at(path: Path, process: str = "self") -> list[Mount]:
    table = Path(f"/proc/{process}/mountinfo").read_bytes()
    return [mount for mount in parse_mountinfo(table) if mount.mount_point == str(path)]


def unshare_mounts() -> None:
    """From here on this process's mounts are its own. Threads started later share them."""
    _check(_libc.unshare(_CLONE_NEWNS))
    _check(_libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None))
