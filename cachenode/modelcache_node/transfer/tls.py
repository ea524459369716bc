"""TLS as movers use it: verification always on, the system's authorities or given ones.

Imported with the first https range only: it costs a worker some milliseconds and MiB.
"""

import os
import socket
import ssl
from typing import Literal

from modelcache_api.units import KIB
from modelcache_node.transfer.failures import FailureKind, RangeFailedError
from modelcache_node.transfer.transports import WOULD_BLOCK, OpenTransport

#: Largest plaintext of a TLS record (RFC 8446, section 5.1).
RECORD_BYTES = 1 << 14
#: Encrypted bytes taken at a time: with what becomes of them, less than a core's L2 cache.
SCRATCH_BYTES = 256 * KIB
#: Before TLS 1.3 the client's order decides: AES with keys of 128 bits takes less CPU than of 256,
#: at both ends. Forward secrecy and authenticated encryption only.
CIPHERS_BEFORE_1_3 = "ECDHE+AESGCM+AES128:ECDHE+AESGCM:ECDHE+CHACHA20"
#: Sets of authorities kept. More than a parent keeps in mind, so none is dropped that it uses.
MAX_PROFILES = 512


class TrustStore:
    """One context per trust profile."""

    def __init__(self) -> None:
        self._pems: dict[int, str] = {}
        self._contexts: dict[int, ssl.SSLContext] = {}
        self._scratch = memoryview(bytearray(SCRATCH_BYTES))

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
        return lambda connected: TlsTransport(connected, context, host, self._scratch)

    def _context(self, profile: int) -> ssl.SSLContext:
        context = self._contexts.get(profile)
        if context is None:
            try:
                context = ssl.create_default_context(cadata=self._pems.get(profile))
            except (ssl.SSLError, ValueError) as e:
                raise RangeFailedError(
                    FailureKind.REFUSED, f"the given authorities cannot be used: {e}"
                ) from e
            context.set_ciphers(CIPHERS_BEFORE_1_3)
            context.set_alpn_protocols(["http/1.1"])
            self._contexts[profile] = context
        return context


class TlsTransport:
    """TLS over a connected socket.

    Not an `SSLSocket`: OpenSSL asks a socket twice for each record, and through memory a quarter of
    a MiB at a time. Measured: 10 to 25 % less CPU per byte, all of it in the kernel.
    """

    __slots__ = ("_host", "_incoming", "_outgoing", "_raw", "_scratch", "_taken", "_tls", "_unsent")

    def __init__(
        self,
        connected: socket.socket,
        context: ssl.SSLContext,
        host: str,
        scratch: memoryview,
        *,
        is_server: bool = False,
    ) -> None:
        """Own a non-blocking socket.

        Args:
            connected: The socket.
            context: Whom to trust, or who we are.
            host: What the other side's certificate must say, where it has to show one.
            scratch: Passes encrypted bytes on within one call; others may use it as well.
            is_server: The other side began.
        """
        self._raw = connected
        self._host = host
        self._scratch = scratch
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        name = None if is_server else host
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=is_server, server_hostname=name
        )
        self._unsent = memoryview(b"")
        self._taken = 0

    def fileno(self) -> int:
        return self._raw.fileno()

    def handshake(self) -> Literal["read", "write"] | None:
        while True:
            is_done = self._shake_hands()
            if self._flush() == WOULD_BLOCK:
                return "write"
            if is_done:
                return None
            if self._fetch(len(self._scratch)) == WOULD_BLOCK:
                return "read"

    def send(self, view: memoryview) -> int:
        if not self._unsent:
            self._taken = self._tls.write(view)
        return self._flush()

    def receive(self, view: memoryview) -> int:
        """Until the view is nearly full or nothing is there.

        What is fetched always fits the view, as a record kept here would be one that epoll does
        not show: encrypted it is longer, but for the begun record of the fetch before. The last
        record of a range ends with it, since one request is under way at a time.
        """
        n_bytes = 0
        while True:
            n_bytes += self._decrypt(view[n_bytes:])
            room = len(view) - n_bytes - RECORD_BYTES
            if n_bytes and room < RECORD_BYTES:
                return n_bytes
            fetched = self._fetch(max(room, RECORD_BYTES))
            if fetched == WOULD_BLOCK:
                return n_bytes or WOULD_BLOCK
            if fetched == 0:
                return n_bytes + self._decrypt(view[n_bytes:])

    def close(self) -> None:
        self._raw.close()

    def _shake_hands(self) -> bool:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLCertVerificationError as e:
            raise RangeFailedError(
                FailureKind.REFUSED,
                f"the certificate of {self._host} is not trusted: {e.verify_message}",
            ) from e
        return True

    def _decrypt(self, view: memoryview) -> int:
        """Bytes of all records that are here whole."""
        n_bytes = 0
        read = self._tls.read
        try:
            while n_bytes < len(view):
                # An unannounced end is 0 as well: who counts bytes notices what is missing.
                received: int = read(len(view) - n_bytes, view[n_bytes:])  # type: ignore[assignment]
                if not received:
                    break
                n_bytes += received
        except (ssl.SSLWantReadError, ssl.SSLEOFError):
            pass
        return n_bytes

    def _fetch(self, n_bytes: int) -> int:
        """Take so many encrypted bytes at most; 0 at the end, or WOULD_BLOCK."""
        try:
            received = self._raw.recv_into(self._scratch[:n_bytes])
        except BlockingIOError:
            return WOULD_BLOCK
        if received:
            self._incoming.write(self._scratch[:received])
        else:
            self._incoming.write_eof()
        return received

    def _flush(self) -> int:
        """Send what was encrypted; what `send` took when all is sent, else WOULD_BLOCK."""
        if not self._unsent:
            self._unsent = memoryview(self._outgoing.read())
        try:
            while self._unsent:
                self._unsent = self._unsent[self._raw.send(self._unsent) :]
        except BlockingIOError:
            return WOULD_BLOCK
        return self._taken
