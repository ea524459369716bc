"""Files over TLS. Imported with the first certificate only: it costs a worker some MiB."""

import os
import socket
import ssl

from modelcache_node.peers.transports import AcceptTransport
from modelcache_node.transfer.tls import SCRATCH_BYTES, TlsTransport

#: Bytes read at once to be encrypted. Arbitrary: about a core's L2 cache.
_PIECE_BYTES = 1 << 18


class TlsUpload(TlsTransport):
    """TLS over an accepted socket."""

    __slots__ = ()

    def send_file(self, fd: int, offset: int, n_bytes: int) -> int:
        if self._unsent:
            return self._flush()
        piece = os.pread(fd, min(n_bytes, _PIECE_BYTES), offset)
        return self.send(memoryview(piece)) if piece else 0

    def let_wait(self, n_bytes: int) -> None:
        self._raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, n_bytes)


def tls_uploads(cert: str, key: str) -> AcceptTransport:
    """Raises OSError: certificate or key cannot be read, or do not belong together."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    context.set_alpn_protocols(["http/1.1"])
    scratch = memoryview(bytearray(SCRATCH_BYTES))
    return lambda accepted: TlsUpload(accepted, context, "a peer", scratch, is_server=True)
