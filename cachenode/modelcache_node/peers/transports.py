"""How files leave over a connected socket, without blocking: by the kernel here, TLS in `tls`."""

import os
import socket
from collections.abc import Callable
from typing import Protocol

from modelcache_node.transfer.transports import WOULD_BLOCK, PlainTransport, Transport


class UploadTransport(Transport, Protocol):
    """A `Transport` that sends parts of files too."""

    def send_file(self, fd: int, offset: int, n_bytes: int) -> int:
        """Bytes sent, 0 at the file's end, or WOULD_BLOCK."""
        ...

    def let_wait(self, n_bytes: int) -> None:
        """Have about so many bytes wait unsent in the socket, at most."""
        ...


#: Makes a transport of an accepted socket, which it then owns.
AcceptTransport = Callable[[socket.socket], UploadTransport]


class PlainUpload(PlainTransport):
    """TCP alone: the kernel sends pages of the file."""

    __slots__ = ()

    def send_file(self, fd: int, offset: int, n_bytes: int) -> int:
        try:
            return os.sendfile(self.fileno(), fd, offset, n_bytes)
        except BlockingIOError:
            return WOULD_BLOCK

    def let_wait(self, n_bytes: int) -> None:
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, n_bytes)
