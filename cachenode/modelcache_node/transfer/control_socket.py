"""The worker's end of the socket to its parent: packets, and descriptors that come with them."""

import socket
import struct
from collections.abc import Iterator

from modelcache_node.transfer.wire import MAX_PACKET_BYTES

#: In place of a descriptor, where none came.
NO_FD = -1
_FD = struct.Struct("i")


def packets(control: socket.socket) -> Iterator[tuple[bytes, int]]:
    """Every packet there is now, with the descriptor that came with it, or `NO_FD`; never waits.

    A descriptor is the caller's to close. An empty packet means that the parent's end is closed.
    """
    while True:
        try:
            # Not socket.recv_fds: CPython's ignores its flags, and would block here.
            packet, ancillary, _, _ = control.recvmsg(
                MAX_PACKET_BYTES, socket.CMSG_SPACE(_FD.size), socket.MSG_DONTWAIT
            )
        except BlockingIOError:
            return
        yield packet, _FD.unpack_from(ancillary[0][2])[0] if ancillary else NO_FD
