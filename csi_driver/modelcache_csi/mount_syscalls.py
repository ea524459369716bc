"""The mount system calls, bound to Python: arguments in, `OSError` out, no decisions.

A volume is attached with Linux's newer calls (5.12): a detached clone of the tree is made,
gets its flags, and is moved to its place. Unlike a bind mount that is remounted read-only, it is
never to be seen writable, and the copies that mount propagation makes of it - the one in the
host's namespace is what a pod gets - carry the flags too. A remount reaches its own mount only.
"""

import ctypes
import os
import struct

_AT_EMPTY_PATH = 0x1000
_OPEN_TREE_CLONE = 0x1
_MOVE_MOUNT_F_EMPTY_PATH = 0x4
_MOVE_MOUNT_T_EMPTY_PATH = 0x40
_MOUNT_ATTR_RDONLY = 0x1
_MOUNT_ATTR_NOSUID = 0x2
_MOUNT_ATTR_NODEV = 0x4
_UMOUNT_NOFOLLOW = 0x8

# One number on every architecture: system calls newer than Linux 5.0 are numbered alike (the
# exception is alpha). include/uapi/asm-generic/unistd.h
_SYS_OPEN_TREE = 428
_SYS_MOVE_MOUNT = 429
_SYS_MOUNT_SETATTR = 442
# struct mount_attr: attributes to set and to clear, propagation, user namespace.
_READ_ONLY = struct.pack(
    "=4Q", _MOUNT_ATTR_RDONLY | _MOUNT_ATTR_NOSUID | _MOUNT_ATTR_NODEV, 0, 0, 0
)

_libc = ctypes.CDLL(None, use_errno=True)


def clone_read_only(directory_fd: int) -> int:
    """A detached mount of that directory, ro,nosuid,nodev; the caller closes its descriptor."""
    clone_fd = _call(
        "open_tree",
        _SYS_OPEN_TREE,
        ctypes.c_int(directory_fd),
        b"",
        ctypes.c_uint(_OPEN_TREE_CLONE | _AT_EMPTY_PATH | os.O_CLOEXEC),
    )
    try:
        _call(
            "mount_setattr",
            _SYS_MOUNT_SETATTR,
            ctypes.c_int(clone_fd),
            b"",
            ctypes.c_uint(_AT_EMPTY_PATH),
            _READ_ONLY,
            ctypes.c_size_t(len(_READ_ONLY)),
        )
    except OSError:
        os.close(clone_fd)
        raise
    return clone_fd


def attach(clone_fd: int, directory_fd: int) -> None:
    """Put a detached mount on the very directory that was opened, whatever its name is by now."""
    _call(
        "move_mount",
        _SYS_MOVE_MOUNT,
        ctypes.c_int(clone_fd),
        b"",
        ctypes.c_int(directory_fd),
        b"",
        ctypes.c_uint(_MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_EMPTY_PATH),
    )


def unmount(parent_fd: int, name: str) -> None:
    """Unmount the topmost mount on `name` of an opened directory; links are not followed.

    A descriptor of the mount itself would keep it busy, hence the way by its parent.
    """
    path = os.fsencode(f"/proc/self/fd/{parent_fd}/{name}")
    if _libc.umount2(path, ctypes.c_int(_UMOUNT_NOFOLLOW)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"umount2: {os.strerror(number)}")


def mount_id(fd: int) -> int:
    """The id, as in mountinfo, of the mount that an opened file or directory is on."""
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as fdinfo:
        for line in fdinfo:
            if line.startswith("mnt_id:"):
                return int(line.split()[1])
    raise OSError(f"/proc/self/fdinfo/{fd} has no mnt_id")


def _call(name: str, number: int, *arguments: object) -> int:
    result: int = _libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")
    return result
