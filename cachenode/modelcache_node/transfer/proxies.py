"""How a proxy is asked for a tunnel.

The proxy is the administrator's, at whatever address; where a name leads behind it, the proxy
decides: of origins reached through it the *names* are checked (see `rules`), and addresses that
stand as names.
"""

from collections.abc import Callable
from typing import Literal

from modelcache_node.transfer.failures import FailureKind, RangeFailedError
from modelcache_node.transfer.transports import (
    WOULD_BLOCK,
    OpenTransport,
    PlainTransport,
    Transport,
)

#: A proxy's answer to CONNECT is a line and a few headers. Arbitrary, far above.
MAX_ANSWER_BYTES = 8 << 10


class TunnelTransport:
    """CONNECT through a proxy, and then whatever goes through the tunnel."""

    def __init__(
        self, raw: PlainTransport, target: str, open_inner: Callable[[], Transport]
    ) -> None:
        self._raw = raw
        self._target = target
        self._open_inner = open_inner
        self._unsent = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode()
        self._answer = b""
        self._inner: Transport | None = None

    def fileno(self) -> int:
        return (self._inner or self._raw).fileno()

    def handshake(self) -> Literal["read", "write"] | None:
        if self._inner is None:
            wants = self._tunnel()
            if wants is not None:
                return wants
            self._inner = self._open_inner()
        return self._inner.handshake()

    def send(self, view: memoryview) -> int:
        assert self._inner is not None
        return self._inner.send(view)

    def receive(self, view: memoryview) -> int:
        assert self._inner is not None
        return self._inner.receive(view)

    def close(self) -> None:
        (self._inner or self._raw).close()

    def _tunnel(self) -> Literal["read", "write"] | None:
        while self._unsent:
            sent = self._raw.send(memoryview(self._unsent))
            if sent == WOULD_BLOCK:
                return "write"
            self._unsent = self._unsent[sent:]
        byte = memoryview(bytearray(1))  # not one more: what follows belongs to the tunnel
        while not self._answer.endswith(b"\r\n\r\n"):
            received = self._raw.receive(byte)
            if received == WOULD_BLOCK:
                return "read"
            if received == 0 or len(self._answer) >= MAX_ANSWER_BYTES:
                raise RangeFailedError(
                    FailureKind.UNAVAILABLE, f"the proxy opened no tunnel to {self._target}"
                )
            self._answer += bytes(byte)
        _, _, status = self._answer.partition(b" ")
        if not status.startswith(b"200"):
            kind = FailureKind.REFUSED if status[:1] == b"4" else FailureKind.UNAVAILABLE
            code = status[:3].decode("latin-1")
            said = code if code.isdigit() else "no HTTP"
            raise RangeFailedError(kind, f"the proxy opened no tunnel to {self._target}: {said}")
        return None


def through(target: str, open_inner: OpenTransport) -> OpenTransport:
    """A transport through the proxy that a socket is connected to."""
    return lambda connected: TunnelTransport(
        PlainTransport(connected), target, lambda: open_inner(connected)
    )
