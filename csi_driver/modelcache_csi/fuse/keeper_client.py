"""Asks the keeper to hold a mount's descriptors, and for them (the protocol is `keeper`'s)."""

import json
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from modelcache_csi.fuse import fd_passing

#: A keeper does nothing that takes time. Arbitrary.
ANSWER_TIMEOUT_S = 2.0
#: Between two tries to reach a keeper that is away. Arbitrary.
RETRY_S = 0.05
_MAX_DATAGRAM_BYTES = 16 << 10
# struct ucred: pid, uid, gid
_CREDENTIALS = struct.Struct("3i")


class KeeperAwayError(Exception):
    """The keeper does not answer, or not so that we understand it. Ask again."""


class KeeperClient:
    """One connection. A context manager.

    Raises from every method:
        KeeperAwayError: ask again, over a new connection.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._connection = fd_passing.connect(path, timeout_s=ANSWER_TIMEOUT_S)
        except OSError as e:
            raise KeeperAwayError(f"no keeper at {path}: {e}") from e

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def fileno(self) -> int:
        return self._connection.fileno()

    @property
    def pid(self) -> int:
        """The keeper's process, as numbered here; 0: it runs in another container."""
        size = _CREDENTIALS.size
        raw = self._connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        return int(_CREDENTIALS.unpack(raw)[0])

    def put(self, name: str, fds: Sequence[int]) -> None:
        """Have descriptors held until they are dropped, in place of any before."""
        self._ask({"put": name}, fds)

    def get(self, name: str) -> list[int] | None:
        """Copies of a mount's descriptors, now the caller's; None: unknown."""
        answer, fds = self._ask({"get": name})
        return fds if "name" in answer else None

    def drop(self, name: str) -> None:
        self._ask({"drop": name})

    def names(self) -> Iterator[str]:
        """Of every mount."""
        last = ""
        while page := self._ask({"list": last})[0].get("names"):
            yield from page
            last = page[-1]

    def _ask(
        self, request: dict[str, str], fds: Sequence[int] = ()
    ) -> tuple[dict[str, Any], list[int]]:
        try:
            fd_passing.send(self._connection, json.dumps(request).encode(), fds)
            raw, received = fd_passing.receive(self._connection, _MAX_DATAGRAM_BYTES)
            answer = json.loads(raw)
        except (OSError, ValueError) as e:
            raise KeeperAwayError(f"the keeper does not answer: {e}") from e
        if not isinstance(answer, dict):
            fd_passing.close_all(received)
            raise KeeperAwayError("the keeper makes no sense")
        return answer, received


class KeptMount:
    """Sees to it that the keeper holds a mount, for as long as this is asked to. Never blocks long.

    Mutable state: `_client`, None while the keeper is away; `_next_try_s`.
    """

    def __init__(
        self, path: Path, name: str, fds: Sequence[int], *, clock: Callable[[], float]
    ) -> None:
        self._path = path
        self._name = name
        self._fds = tuple(fds)
        self._clock = clock
        self._client: KeeperClient | None = None
        self._next_try_s = float("-inf")

    def fileno(self) -> int | None:
        """Readable when the keeper is gone."""
        return self._client.fileno() if self._client else None

    def ensure(self) -> bool:
        """Put the mount unless the keeper has it; whether it has it now."""
        if self._client is not None:
            return True
        if self._clock() < self._next_try_s:
            return False
        self._next_try_s = self._clock() + RETRY_S
        try:
            client = KeeperClient(self._path)
        except KeeperAwayError:
            return False
        try:
            client.put(self._name, self._fds)
        except KeeperAwayError:
            client.close()
            return False
        self._client = client
        return True

    def lost(self) -> None:
        """The keeper is gone."""
        if self._client is not None:
            self._client.close()
            self._client = None
