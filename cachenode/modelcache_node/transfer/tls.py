"""TLS as movers use it: verification always on, the system's authorities or given ones.

Imported with the first https range only: it costs a worker some milliseconds and MiB.
"""

import os
import ssl
from typing import Literal

from modelcache_node.transfer.failures import FailureKind, RangeFailedError
from modelcache_node.transfer.transports import WOULD_BLOCK, OpenTransport

#: Largest plaintext of a TLS record (RFC 8446, section 5.1).
RECORD_BYTES = 1 << 14
#: Sets of authorities kept. More than a parent keeps in mind, so none is dropped that it uses.
MAX_PROFILES = 512


class TrustStore:
    """One context per trust profile."""

    def __init__(self) -> None:
        self._pems: dict[int, str] = {}
        self._contexts: dict[int, ssl.SSLContext] = {}

    def add(self, profile: int, fd: int) -> None:
        """Take a profile's authorities from a file descriptor, which is closed."""
        with os.fdopen(fd, encoding="utf-8") as opened:
            opened.seek(0)
            self._pems[profile] = opened.read()
        while len(self._pems) > MAX_PROFILES:
            oldest = next(iter(self._pems))
            del self._pems[oldest]
            self._contexts.pop(oldest, None)

    def transport_to(self, host: str, profile: int) -> OpenTransport:
        """TLS to `host`, whose certificate must name it.

        Raises:
            RangeFailedError: the profile's PEM holds no usable certificate.
        """
        context = self._context(profile)
        return lambda connected: TlsTransport(
            context.wrap_socket(connected, server_hostname=host, do_handshake_on_connect=False),
            host,
        )

    def _context(self, profile: int) -> ssl.SSLContext:
        context = self._contexts.get(profile)
        if context is None:
            try:
                context = ssl.create_default_context(cadata=self._pems.get(profile))
            except (ssl.SSLError, ValueError) as e:
                raise RangeFailedError(
                    FailureKind.REFUSED, f"the given authorities cannot be used: {e}"
                ) from e
            context.set_alpn_protocols(["http/1.1"])
            self._contexts[profile] = context
        return context


class TlsTransport:
    """TLS over a connected socket."""

    __slots__ = ("_host", "_socket")

    def __init__(self, wrapped: ssl.SSLSocket, host: str) -> None:
        self._socket = wrapped
        self._host = host

    def fileno(self) -> int:
        return self._socket.fileno()

    def handshake(self) -> Literal["read", "write"] | None:
        try:
            self._socket.do_handshake()
        except ssl.SSLWantReadError:
            return "read"
        except ssl.SSLWantWriteError:
            return "write"
        except ssl.SSLCertVerificationError as e:
            raise RangeFailedError(
                FailureKind.REFUSED,
                f"the certificate of {self._host} is not trusted: {e.verify_message}",
            ) from e
        return None

    def send(self, view: memoryview) -> int:
        try:
            return self._socket.send(view)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return WOULD_BLOCK

    def receive(self, view: memoryview) -> int:
        """Record by record, until the view is nearly full or nothing is there.

        A record is never cut, for OpenSSL would keep the rest of it where epoll does not see it.
        The last record of a range ends with it, since one request is under way at a time.
        """
        n_bytes = 0
        receive_into = self._socket.recv_into
        try:
            while n_bytes == 0 or n_bytes + RECORD_BYTES <= len(view):
                received = receive_into(view[n_bytes:])
                if received == 0:
                    return n_bytes
                n_bytes += received
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return n_bytes or WOULD_BLOCK
        return n_bytes

    def close(self) -> None:
        self._socket.close()
