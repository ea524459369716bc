"""Datagrams with descriptors: SOCK_SEQPACKET unix sockets, and what travels over them."""

import array
import os
import socket
from collections.abc import Sequence
from pathlib import Path

#: Descriptors in one datagram. The kernel's own bound is 253 (SCM_MAX_FD).
MAX_FDS = 8


def connect(path: Path, *, timeout_s: float | None) -> socket.socket:
    """Raises OSError: nobody listens there."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        connection.settimeout(timeout_s)
        connection.connect(os.fspath(path))
    except BaseException:
        connection.close()
        raise
    return connection


def send(connection: socket.socket, raw: bytes, fds: Sequence[int] = ()) -> None:
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    connection.sendmsg([raw], ancillary)


def receive(connection: socket.socket, max_bytes: int) -> tuple[bytes, list[int]]:
    """One datagram, and the descriptors that came with it, close-on-exec; both empty at the end.

    Raises:
        OSError: the connection is broken, or nothing came in time (`BlockingIOError`).
        ValueError: more than the datagram may hold; its descriptors were closed.
    """
    space = socket.CMSG_SPACE(MAX_FDS * array.array("i").itemsize)
    raw, ancillary, flags, _ = connection.recvmsg(max_bytes, space, socket.MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        close_all(fds)
        raise ValueError(f"a datagram of more than {max_bytes} bytes or {MAX_FDS} descriptors")
    return raw, list(fds)


def close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)
