"""How fast a server or a disk can be at all.

A server's bytes are thrown away unseen: the kernel drops what arrives (MSG_TRUNC: nothing is
copied) and of TLS nothing is decrypted, so nearly all the time is the server's. What a client does
beyond that is its own cost.
"""

import os
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

_PIECE_BYTES = 1 << 20
#: Below a MiB: larger ones are slow where the file system has large folios.
_WRITE_BYTES = 512 << 10


def ceiling_gb_per_s(url: str, n_bytes: int, *, connections: int = 2) -> float:
    """The rate at which an object can be sent, by this many connections at once."""
    share = n_bytes // connections
    began_at = time.monotonic()
    clients = [
        subprocess.Popen([sys.executable, __file__, url, str(i * share), str(share)])
        for i in range(connections)
    ]
    codes = [client.wait() for client in clients]
    if any(codes):
        raise RuntimeError(f"a client of the server's ceiling failed: {codes}")
    return share * connections / (time.monotonic() - began_at) / 1e9


def disk_gb_per_s(directory: Path, n_bytes: int) -> float:
    """The rate at which a disk takes a new file, until all of it is durable."""
    piece = memoryview(os.urandom(8 << 20))
    path = directory / "ceiling"
    began_at = time.monotonic()
    with path.open("wb", buffering=0) as file:
        for _ in range(n_bytes // len(piece)):
            for offset in range(0, len(piece), _WRITE_BYTES):
                file.write(piece[offset : offset + _WRITE_BYTES])
        os.fdatasync(file.fileno())
    seconds = time.monotonic() - began_at
    path.unlink()
    return n_bytes / seconds / 1e9


def _discard(url: str, offset: int, n_bytes: int) -> None:
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.port
    connected = socket.create_connection((parts.hostname, parts.port))
    request = (
        f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        f"Range: bytes={offset}-{offset + n_bytes - 1}\r\nConnection: close\r\n\r\n"
    )
    if parts.scheme == "https":
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # what comes is thrown away anyway
        wrapped = context.wrap_socket(connected, server_hostname=parts.hostname)
        wrapped.sendall(request.encode())
        connected = socket.socket(fileno=wrapped.detach())
    else:
        connected.sendall(request.encode())
    received, nowhere = 0, bytearray(_PIECE_BYTES)
    with connected:
        while received < n_bytes:
            n_now = connected.recv_into(nowhere, 0, socket.MSG_TRUNC)
            if n_now == 0:
                sys.exit("the server closed early")
            received += n_now


if __name__ == "__main__":
    _discard(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
