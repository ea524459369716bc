"""Hands the files of incomplete revisions to lazy mounts, by `modelcache_api.file_access`.

A unix socket of its own, because HTTP carries no descriptors. Who can open it is the node's root.

Guarantees:
- descriptors are read-only, and go out only for blobs of the revision that the connection named;
- a blob that is not begun is handed over when it is; wishes are passed on at once;
- a client that does not read is not waited for.
"""

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

from modelcache_api.errors import InvalidRequestError
from modelcache_api.file_access import (
    MAX_DATAGRAM_BYTES,
    BlobGone,
    BlobHandedOver,
    FromAgent,
    FromServer,
    Greeting,
    OpenBlob,
    WantChunks,
    pack,
    parse_from_server,
)
from modelcache_api.manifest import MAX_FILES
from modelcache_node.caching.file_access import FileAccess

#: Mounts of a node. Arbitrary, above its pods.
MAX_CLIENTS = 1024
#: Between two looks for blobs that clients wait for: those that a reader waits for, and all.
#: Arbitrary; a look costs a dictionary's.
HOT_LOOK_S = 0.005
LOOK_S = 0.25
#: Datagrams taken of one client before the others. Arbitrary.
_BATCH = 64

_LOG = logging.getLogger(__name__)


class _Client:
    """One mount's connection.

    Mutable state: `revision`, None before the greeting; `awaited`, blobs to be handed over; `hot`,
    those of them that a reader waits for.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.revision: str | None = None
        self.awaited: set[str] = set()
        self.hot: set[str] = set()


class FileApi:
    """See the module's text. For one event loop."""

    def __init__(self, files: FileAccess) -> None:
        self._files = files
        self._clients: dict[int, _Client] = {}
        self._has_hot = asyncio.Event()

    @contextlib.asynccontextmanager
    async def served(self, path: Path) -> AsyncIterator[None]:
        """Serve at `path` until the block ends."""
        path.unlink(missing_ok=True)  # the store's lock says that no other agent runs
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.settimeout(0)
            mask = os.umask(0o177)
            try:
                listener.bind(str(path))
            finally:
                os.umask(mask)
            listener.listen(64)
            loop.add_reader(listener, self._accept, listener)
            looking = [
                asyncio.create_task(self._look_for_hot()),
                asyncio.create_task(self._look_for_all()),
            ]
            try:
                yield
            finally:
                for task in looking:
                    task.cancel()
                await asyncio.wait(looking)
                loop.remove_reader(listener)
                for client in list(self._clients.values()):
                    self._hang_up(client)
                path.unlink(missing_ok=True)

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except OSError:
            return  # it went again
        connection.settimeout(0)
        if len(self._clients) >= MAX_CLIENTS:
            connection.close()
            return
        client = _Client(connection)
        self._clients[connection.fileno()] = client
        asyncio.get_running_loop().add_reader(connection, self._hear, client)

    def _hear(self, client: _Client) -> None:
        try:
            for _ in range(_BATCH):
                raw = client.connection.recv(MAX_DATAGRAM_BYTES)
                if not raw:
                    self._hang_up(client)
                    return
                self._handle(client, parse_from_server(raw))
        except BlockingIOError:
            return
        except (OSError, InvalidRequestError) as e:
            _LOG.warning("a lazy mount is hung up on: %s", e)
            self._hang_up(client)

    def _handle(self, client: _Client, message: FromServer) -> None:
        if isinstance(message, Greeting):
            client.revision = message.revision
            return
        if client.revision is None:
            raise InvalidRequestError("it did not greet")
        if isinstance(message, OpenBlob):
            if len(client.awaited) >= MAX_FILES:
                raise InvalidRequestError("it waits for more blobs than a revision has")
            client.awaited.add(message.blob)
            self._hand_over(client, message.blob)
        else:
            self._want(client, client.revision, message)

    def _want(self, client: _Client, revision: str, wish: WantChunks) -> None:
        self._files.prioritise(revision, wish.blob, wish.chunks)
        gone = self._files.gone(revision)
        if gone is not None:
            self._send(client, BlobGone(wish.blob, gone.reason, gone.message))
        elif wish.blob in client.awaited:
            client.hot.add(wish.blob)
            self._has_hot.set()

    async def _look_for_hot(self) -> None:
        while True:
            await self._has_hot.wait()
            hot = [(client, blob) for client in self._clients.values() for blob in client.hot]
            if not hot:
                self._has_hot.clear()
            for client, blob in hot:
                self._hand_over(client, blob)
            await asyncio.sleep(HOT_LOOK_S)

    async def _look_for_all(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            for client in list(self._clients.values()):
                for blob in list(client.awaited):
                    self._hand_over(client, blob)

    def _hand_over(self, client: _Client, blob: str) -> None:
        """Hand a blob over, if there is anything of it, and the client is there still."""
        paths = self._files.paths(client.revision or "", blob)
        if paths is None or client.connection.fileno() < 0:
            return
        with contextlib.ExitStack() as opened:
            fds = []
            for path in paths:
                try:
                    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
                except FileNotFoundError:
                    return  # on its way to another name, or just being begun
                opened.callback(os.close, fd)
                fds.append(fd)
            client.awaited.discard(blob)
            client.hot.discard(blob)
            self._send(client, BlobHandedOver(blob), fds)

    def _send(self, client: _Client, message: FromAgent, fds: list[int] | None = None) -> None:
        try:
            socket.send_fds(client.connection, [pack(message)], fds or [])
        except BlockingIOError:
            if isinstance(message, BlobHandedOver):
                client.awaited.add(message.blob)  # later
        except OSError:
            self._hang_up(client)

    def _hang_up(self, client: _Client) -> None:
        fd = client.connection.fileno()
        if fd >= 0:
            asyncio.get_running_loop().remove_reader(fd)
            del self._clients[fd]
            client.connection.close()
