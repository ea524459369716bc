"""How bytes pass a connected socket, without blocking: plain here, TLS in `tls`."""

import socket
from collections.abc import Callable
from typing import Literal, Protocol

#: What `send` and `receive` return when they would have to wait.
WOULD_BLOCK = -1


class Transport(Protocol):
    """Contract: nothing blocks; OSError means that the connection is broken."""

    def fileno(self) -> int: ...

    def handshake(self) -> Literal["read", "write"] | None:
        """Go on with it; returns what it waits for, None when it is done.

        Bytes may have come with its end: where the other side speaks first, receive at once.

        Raises:
            RangeFailedError: the other side is not who it should be.
        """
        ...

    def send(self, view: memoryview) -> int:
        """Bytes sent, or WOULD_BLOCK."""
        ...

    def receive(self, view: memoryview) -> int:
        """Bytes received; 0 at the end, or WOULD_BLOCK.

        Afterwards nothing is left where readiness does not show it.
        """
        ...

    def close(self) -> None: ...


#: Makes a transport of a connected socket, which it then owns.
OpenTransport = Callable[[socket.socket], Transport]


class PlainTransport:
    """TCP alone."""

    __slots__ = ("_socket",)

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected

    def fileno(self) -> int:
        return self._socket.fileno()

    def handshake(self) -> None:
        return None

    def send(self, view: memoryview) -> int:
        try:
            return self._socket.send(view)
        except BlockingIOError:
            return WOULD_BLOCK

    def receive(self, view: memoryview) -> int:
        try:
            return self._socket.recv_into(view)
        except BlockingIOError:
            return WOULD_BLOCK

    def close(self) -> None:
        self._socket.close()
