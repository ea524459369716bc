"""Makes FUSE mounts, and ends them: the system calls, by descriptor, no decisions.

A mount is made detached, and appears at its place in one step; its flags are its own from the
beginning, as those of a bind mount (see `mount_syscalls`).
"""

import contextlib
import ctypes
import os
import re
from pathlib import Path

from modelcache_api.names import revision_hex

#: What the mount table calls the source of our mounts, before the revision's digits.
SOURCE_PREFIX = "modelcache-"
FS_TYPE = "fuse.modelcache"
_SOURCE = re.compile(rf"{SOURCE_PREFIX}([0-9a-f]{{64}})")

# System calls newer than Linux 5.0 have one number on every architecture but alpha.
_SYS_FSOPEN = 430
_SYS_FSCONFIG = 431
_SYS_FSMOUNT = 432
_FSOPEN_CLOEXEC = 1
_FSMOUNT_CLOEXEC = 1
_FSCONFIG_SET_FLAG = 0
_FSCONFIG_SET_STRING = 1
_FSCONFIG_CMD_CREATE = 6
# MOUNT_ATTR_RDONLY, NOSUID, NODEV
_ATTRIBUTES = 0x1 | 0x2 | 0x4
#: Bytes of one READ; the kernel divides larger ones.
_MAX_READ_BYTES = 1 << 20
#: KiB that the kernel reads ahead of a reader: as much as one READ. Its default is an eighth.
_READ_AHEAD_KIB = 1024

_libc = ctypes.CDLL(None, use_errno=True)


def open_device() -> int:
    """A new connection to the kernel's FUSE; it becomes one mount."""
    return os.open("/dev/fuse", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)


def detached_mount(device_fd: int, revision: str) -> int:
    """A read-only mount served through `device_fd`, to be attached; its descriptor.

    The kernel asks INIT from now on. When the descriptor is closed unattached, the mount is gone.
    """
    fs_fd = _call("fsopen", _SYS_FSOPEN, b"fuse", ctypes.c_uint(_FSOPEN_CLOEXEC))
    try:
        for key, value in (
            ("source", SOURCE_PREFIX + revision_hex(revision)),
            ("subtype", FS_TYPE.partition(".")[2]),
            ("fd", str(device_fd)),
            ("rootmode", "40555"),
            ("user_id", "0"),
            ("group_id", "0"),
            ("max_read", str(_MAX_READ_BYTES)),
        ):
            _configure(fs_fd, _FSCONFIG_SET_STRING, key, value)
        for flag in ("allow_other", "default_permissions", "ro"):
            _configure(fs_fd, _FSCONFIG_SET_FLAG, flag, None)
        _configure(fs_fd, _FSCONFIG_CMD_CREATE, None, None)
        return _call(
            "fsmount",
            _SYS_FSMOUNT,
            ctypes.c_int(fs_fd),
            ctypes.c_uint(_FSMOUNT_CLOEXEC),
            ctypes.c_uint(_ATTRIBUTES),
        )
    finally:
        os.close(fs_fd)


def revision_of_source(source: str) -> str | None:
    """The revision that a mount of ours shows, by its source in the mount table."""
    match = _SOURCE.fullmatch(source)
    return f"sha256:{match[1]}" if match else None


def read_far_ahead(device: str) -> None:
    """Let the kernel ask for much at once where it reads through us; `device` as in mountinfo.

    Where that cannot be set the default stays.
    """
    with contextlib.suppress(OSError):
        Path(f"/sys/class/bdi/{device}/read_ahead_kb").write_text(str(_READ_AHEAD_KIB))


def abort(device: str) -> None:
    """End a connection whose server does not come back: whoever waits gets an error.

    Raises:
        OSError: there is no such connection any more.
    """
    fs_fd = _call("fsopen", _SYS_FSOPEN, b"fusectl", ctypes.c_uint(_FSOPEN_CLOEXEC))
    try:
        _configure(fs_fd, _FSCONFIG_CMD_CREATE, None, None)
        control_fd = _call(
            "fsmount",
            _SYS_FSMOUNT,
            ctypes.c_int(fs_fd),
            ctypes.c_uint(_FSMOUNT_CLOEXEC),
            ctypes.c_uint(0),
        )
    finally:
        os.close(fs_fd)
    try:
        minor = device.partition(":")[2]
        fd = os.open(f"{minor}/abort", os.O_WRONLY | os.O_CLOEXEC, dir_fd=control_fd)
        try:
            os.write(fd, b"1")
        finally:
            os.close(fd)
    finally:
        os.close(control_fd)


def _configure(fs_fd: int, command: int, key: str | None, value: str | None) -> None:
    _call(
        f"fsconfig {key or ''}",
        _SYS_FSCONFIG,
        ctypes.c_int(fs_fd),
        ctypes.c_uint(command),
        key.encode() if key is not None else None,
        value.encode() if value is not None else None,
        ctypes.c_int(0),
    )


def _call(name: str, number: int, *arguments: object) -> int:
    result: int = _libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")
    return result
