"""A server's connection to the agent: blobs come in, wishes go out.

The agent may be away, be restarted, or never come back: nothing here blocks or raises. Whatever
could not be said is said again when the agent is back, because the server repeats what it lacks.
"""

import logging
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from modelcache_api.errors import InvalidRequestError
from modelcache_api.file_access import (
    MAX_DATAGRAM_BYTES,
    N_DESCRIPTORS,
    BlobHandedOver,
    FromAgent,
    FromServer,
    Greeting,
    OpenBlob,
    WantChunks,
    pack,
    parse_from_agent,
)
from modelcache_csi.fuse import fd_passing

#: Between two tries to reach an agent that is away. Arbitrary: a reader may be waiting.
RECONNECT_S = 0.1

log = logging.getLogger(__name__)


class AgentLink:
    """See the module's text.

    Mutable state: `_connection`, None while the agent is away; `_next_try_s`.
    """

    def __init__(self, path: Path, revision: str, *, clock: Callable[[], float]) -> None:
        self._path = path
        self._revision = revision
        self._clock = clock
        self._connection: socket.socket | None = None
        self._next_try_s = float("-inf")

    def fileno(self) -> int | None:
        return self._connection.fileno() if self._connection else None

    def reach(self) -> bool:
        """Connect unless connected or tried just now; whether a connection is new."""
        if self._connection is not None or self._clock() < self._next_try_s:
            return False
        self._next_try_s = self._clock() + RECONNECT_S
        try:
            self._connection = fd_passing.connect(self._path, timeout_s=0)
        except OSError:
            return False
        return self._send(Greeting(self._revision))

    def open(self, blob: str) -> bool:
        """Ask for a blob to be handed over; whether it could be said."""
        return self._send(OpenBlob(blob))

    def want(self, blob: str, chunks: Sequence[int]) -> None:
        """Ask for chunks, those that are wanted most first."""
        self._send(WantChunks(blob, tuple(chunks)))

    def receive(self) -> list[tuple[FromAgent, list[int]]]:
        """What the agent said since, and the descriptors that came with it, now the caller's."""
        heard: list[tuple[FromAgent, list[int]]] = []
        while self._connection is not None:
            try:
                raw, fds = fd_passing.receive(self._connection, MAX_DATAGRAM_BYTES)
            except BlockingIOError:
                break
            except (OSError, ValueError) as e:
                self._lost(str(e))
                break
            if not raw:
                self._lost("it closed the connection")
                break
            message = self._parsed(raw, fds)
            if message is not None:
                heard.append((message, fds))
        return heard

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _parsed(self, raw: bytes, fds: list[int]) -> FromAgent | None:
        try:
            message = parse_from_agent(raw)
        except InvalidRequestError as e:
            message = None
            log.warning("the agent makes no sense: %s", e)
        n_expected = N_DESCRIPTORS if isinstance(message, BlobHandedOver) else 0
        if message is None or len(fds) != n_expected:
            fd_passing.close_all(fds)
            return None
        return message

    def _send(self, message: FromServer) -> bool:
        """Whether it went out. An agent too busy to take it hears it again later."""
        if self._connection is None:
            return False
        try:
            fd_passing.send(self._connection, pack(message))
        except BlockingIOError:
            return False
        except OSError as e:
            self._lost(str(e))
            return False
        return True

    def _lost(self, why: str) -> None:
        log.info("the agent is away: %s", why)
        self.close()
