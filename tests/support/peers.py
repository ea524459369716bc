"""Peers for tests: a store with blobs, served by the real workers; and one that does wrong."""

import os
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from awscrt import checksums

from modelcache_api.chunks import chunk_count, chunk_range
from modelcache_api.peer_auth import (
    HEADER,
    Answered,
    Asked,
    ClusterKeys,
    crc32c_text,
    sha256_text,
    sign_answer,
    sign_request,
)
from modelcache_node.peers.limits import UploadLimits
from modelcache_node.peers.server import PeerCall, PeerReply, PeerServer, UploadOptions
from modelcache_node.store.partial_blob import PartialBlob
from modelcache_node.store.store import Store
from modelcache_node.transfer.peer_ranges import PeerRange, chunk_target
from modelcache_node.transfer.starting import wall_clock

KEYS = ClusterKeys.parse("the key of this test's cluster, long enough")
OTHER_KEYS = ClusterKeys.parse("the key of quite another cluster, as long")
ASKER = "127.0.0.1:1"
KEY = "ab" * 32
_PATIENCE_S = 20.0


def new_nonce() -> str:
    return os.urandom(16).hex()


class Holder:
    """A node's store, and what is in it."""

    def __init__(self, root: Path) -> None:
        self.store = Store.open(root, allow_any_disk=True)
        self.blobs = root / "blobs"

    def begin(self, data: bytes, key: str = KEY, provider_id: str | None = None) -> PartialBlob:
        """A blob of which nothing is present yet; all bytes are in place."""
        partial = self.store.blobs.open_partial(key, len(data), provider_id)
        partial.data_path.write_bytes(data)
        return partial

    def put(self, data: bytes, key: str = KEY) -> None:
        """A whole, sealed blob."""
        partial = self.begin(data, key)
        for index in range(chunk_count(len(data))):
            mark(partial, data, index)
        partial.seal(None)
        partial.close()


def mark(partial: PartialBlob, data: bytes, index: int) -> None:
    """The chunk is there and was checked."""
    offset, length = chunk_range(index, len(data))
    partial.mark_present(index, checksums.crc32c(data[offset : offset + length]))


async def nothing_else(call: PeerCall) -> PeerReply:
    """For servers that are asked for chunks only."""
    return PeerReply(404, b"nothing else here", "text/plain")


@asynccontextmanager
async def serving(
    holder: Holder,
    *,
    answer: Callable[[PeerCall], Any] = nothing_else,
    keys: ClusterKeys = KEYS,
    limits: UploadLimits | None = None,
    **options: Any,
) -> AsyncIterator[PeerServer]:
    """The real server, on loopback."""
    chosen = UploadOptions(
        holder.blobs, holder.store.boot_id, limits=limits or UploadLimits(), **options
    )
    async with PeerServer(("127.0.0.1", 0), chosen, keys, answer=answer) as server:
        yield server


def shown(address: tuple[str, int]) -> str:
    return f"{address[0]}:{address[1]}"


def chunk_of(peer: str, data: bytes, path: Path, index: int = 0, **more: Any) -> PeerRange:
    """A chunk to fetch, with the checksum that its origin's fetcher announced."""
    offset, length = chunk_range(index, len(data))
    wanted = {"crc32c": checksums.crc32c(data[offset : offset + length]), "blob": KEY, **more}
    return PeerRange(peer=peer, index=index, total_bytes=len(data), path=path, **wanted)


def ask_for(
    target: str,
    *,
    keys: ClusterKeys = KEYS,
    nonce: str | None = None,
    now: float | None = None,
    asked: Asked | None = None,
    headers: str = "",
) -> bytes:
    """The bytes of one request; `asked` is what is signed, if that is not what is sent."""
    signature = sign_request(
        keys,
        asked or Asked("GET", target),
        asker=ASKER,
        nonce=nonce or new_nonce(),
        now=wall_clock() if now is None else now,
    )
    return f"GET {target} HTTP/1.1\r\nHost: h\r\n{headers}{HEADER}: {signature}\r\n\r\n".encode()


def chunk_path(key: str = KEY, index: int = 0) -> str:
    return chunk_target(key, index)


@dataclass
class RawAnswer:
    """One answer, as it came."""

    status: int
    headers: dict[str, str]
    body: bytes


class RawConnection:
    """A plain socket to a server, for what no client of ours would send."""

    def __init__(self, address: tuple[str, int], timeout_s: float = _PATIENCE_S) -> None:
        self.socket = socket.create_connection(address, timeout_s)
        self._left = b""

    def __enter__(self) -> "RawConnection":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, raw: bytes) -> None:
        self.socket.sendall(raw)

    def receive(self) -> RawAnswer:
        """One answer, to its end."""
        while b"\r\n\r\n" not in self._left:
            self._read()
        head, _, self._left = self._left.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (one.partition(": ") for one in lines)}
        length = int(headers["content-length"])
        while len(self._left) < length:
            self._read()
        body, self._left = self._left[:length], self._left[length:]
        return RawAnswer(int(first.split(" ")[1]), headers, body)

    def ends(self) -> bool:
        """Wait for the other side's end; False if it sends something instead."""
        with suppress(ConnectionResetError):
            return self.socket.recv(1) == b""
        return True

    def _read(self) -> None:
        piece = self.socket.recv(1 << 16)
        if not piece:
            raise ConnectionError("closed")
        self._left += piece


def exchange(address: tuple[str, int], raw: bytes) -> RawAnswer:
    """Send bytes on a new connection; its answer."""
    with RawConnection(address) as connection:
        connection.send(raw)
        return connection.receive()


@dataclass
class HeardRequest:
    """A request that a bad peer was asked."""

    raw: bytes
    nonce: str

    def answer(
        self,
        body: bytes,
        *,
        crc32c: int | None = None,
        total_bytes: int | None = None,
        key: str = KEY,
        keys: ClusterKeys = KEYS,
        nonce: str | None = None,
        offset: int = 0,
    ) -> bytes:
        """A right answer with a chunk, but for what is said here."""
        crc = checksums.crc32c(body) if crc32c is None else crc32c
        total = len(body) if total_bytes is None else total_bytes
        answered = Answered(206, len(body), crc32c_text(crc), "10.0.0.9:7440")
        signature = sign_answer(keys, answered, nonce=nonce or self.nonce)
        return (
            f"HTTP/1.1 206 Partial Content\r\nContent-Length: {len(body)}\r\n"
            f"Content-Range: bytes {offset}-{offset + len(body) - 1}/{total}\r\n"
            f'ETag: "{key}"\r\n{HEADER}: {signature}\r\n\r\n'
        ).encode() + body

    def refusal(self, status: int, text: bytes, *, signed: bool = True, headers: str = "") -> bytes:
        answered = Answered(status, len(text), sha256_text(text), "10.0.0.9:7440")
        signature = f"{HEADER}: {sign_answer(KEYS, answered, nonce=self.nonce)}\r\n" * signed
        head = f"HTTP/1.1 {status} No\r\nContent-Length: {len(text)}\r\n{headers}{signature}\r\n"
        return head.encode() + text


#: What a bad peer does with a connection over which a request came.
Misdeed = Callable[[socket.socket, HeardRequest], None]


class BadPeer:
    """A server of scripted misdeeds, each on a thread of its own."""

    def __init__(self, misdeed: Misdeed) -> None:
        self._misdeed = misdeed
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self.address = shown(self._listener.getsockname())
        self.closing = threading.Event()

    def serve(self) -> None:
        while not self.closing.is_set():
            try:
                accepted, _ = self._listener.accept()
            except OSError:
                return
            self._open.add(accepted)
            threading.Thread(target=self._converse, args=(accepted,), daemon=True).start()

    def close(self) -> None:
        self.closing.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in list(self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _converse(self, accepted: socket.socket) -> None:
        with accepted, suppress(OSError):
            raw = b""
            while not self.closing.is_set():
                while b"\r\n\r\n" not in raw:
                    piece = accepted.recv(1 << 16)
                    if not piece:
                        return
                    raw += piece
                asked, _, raw = raw.partition(b"\r\n\r\n")
                signature = asked.lower().partition(HEADER.lower().encode() + b": ")[2].split(b" ")
                self._misdeed(accepted, HeardRequest(asked, signature[2].decode()))
        self._open.discard(accepted)


@contextmanager
def bad_peer(misdeed: Misdeed) -> Iterator[BadPeer]:
    peer = BadPeer(misdeed)
    thread = threading.Thread(target=peer.serve, daemon=True)
    thread.start()
    try:
        yield peer
    finally:
        peer.close()
        thread.join(_PATIENCE_S)
