"""What the contract suite asks of a server of one kind."""

import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from modelcache_api.messages import Integrity
from modelcache_node.origins.base import SourceOptions
from support.fault_proxy import FaultProxy
from support.faults import Status

START_TIMEOUT_S = 60.0  # arbitrary: node on a busy machine


class Harness(ABC):
    """One server and one source on it, behind a proxy that can do wrong.

    Attributes:
        kind: Its name in the table.
        integrity: What vouches for a whole model of it.
        follows_changes: A pull that meets a changed object ends with the new state; False ends
            with the old one, as the listing named a state that stays.
        requests_per_probe: What it takes to look at an object once.
        pins_ranges: A range of another state is refused; False leaves that to the digest.
    """

    kind: str
    integrity: Integrity
    follows_changes = True
    requests_per_probe = 1
    pins_ranges = True
    #: Listed in pages of this many objects.
    page_size = 4
    proxy: FaultProxy
    secrets: Path

    @abstractmethod
    def new_source(self) -> None:
        """Begin with an empty bucket, container or repository."""

    @abstractmethod
    def put(self, path: str, data: bytes) -> None: ...

    @abstractmethod
    def delete(self, path: str) -> None: ...

    @property
    @abstractmethod
    def uri(self) -> str: ...

    @property
    @abstractmethod
    def missing_uri(self) -> str:
        """A source that does not exist."""

    @abstractmethod
    def options(self, uri: str | None = None) -> SourceOptions: ...

    @abstractmethod
    def spoil_credentials(self) -> None:
        """Have `secrets` hold credentials that the server refuses."""

    def expired(self) -> Status:
        """How this kind of store says that a grant is past its time."""
        return Status(401, b"expired")

    def key(self, name: str, value: str) -> None:
        (self.secrets / name).write_text(value)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(argv: list[str | Path], log: Path, answers: Callable[[], bool]) -> Iterator[None]:
    """A server process, from when it answers to its end."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(word) for word in argv], stdout=output, stderr=output, stdin=subprocess.DEVNULL
        )
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _is_up(answers):
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"{argv[0]} did not start: {log.read_text()[-2000:]}")
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _is_up(answers: Callable[[], bool]) -> bool:
    with suppress(OSError):
        return answers()
    return False


def connects(port: int) -> Callable[[], bool]:
    def answers() -> bool:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True

    return answers
