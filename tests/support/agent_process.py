"""A real agent and the real command line, as processes on loopback."""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

#: An agent, a fetch of some megabytes, a change of state: all take well under this. Arbitrary.
PATIENCE_S = 60.0
_POLL_S = 0.02

Document = dict[str, Any]


def run_cli(
    *args: str | Path, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """``modelcache ARGS``, to its end."""
    return subprocess.run(
        command(*args),
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        env={**os.environ, **(environment or {})},
    )


def command(*args: str | Path) -> list[str]:
    return [sys.executable, "-m", "modelcache_node.cli", *map(str, args)]


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition of another process."""
    give_up_at = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < give_up_at, f"never seen: {what}"
        time.sleep(_POLL_S)


class Agent:
    """One agent over one directory; may be killed and started again.

    Attributes:
        program: What runs it.
        environment: Of its process, beside the test's own.

    Mutable state: `_process`, None while it does not run.
    """

    program: Sequence[str] = (sys.executable, "-m", "modelcache_node.cli")

    def __init__(self, home: Path, *flags: str) -> None:
        self.environment: dict[str, str] = {}
        self.data_dir = home / "data"
        self.socket = home / "api.sock"
        self.log = home / "log"
        self.flags = flags
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *flags: str) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(*self.program, "agent"),
                    *("--data-dir", str(self.data_dir), "--socket", str(self.socket)),
                    *("--listen", "127.0.0.1:0", "--movers", "1", "--allow-any-disk"),
                    *(*self.flags, *flags),
                ],
                env={**os.environ, **self.environment},
                stdout=log,
                stderr=log,
            )
        until(self._is_up, "an agent that answers")

    def _is_up(self) -> bool:
        assert self._process
        assert self._process.poll() is None, self.log.read_text()[-4000:]
        try:
            return self.ask("GET", "/v1/status")[0] == 200
        except OSError:
            return False

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def _end(self, signum: signal.Signals) -> None:
        if self._process:
            self._process.send_signal(signum)
            self._process.wait(PATIENCE_S)
            self._process = None

    def ask(self, method: str, path: str, body: Document | None = None) -> tuple[int, Document]:
        """One request to the local API: status and answer."""
        connection = _UnixConnection(self.socket)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            answer = connection.getresponse()
            raw = answer.read()
        finally:
            connection.close()
        return answer.status, json.loads(raw) if raw else {}

    def lease(self, volume: str, **wish: object) -> Document:
        body = {"namespace": "", "modelCache": "model", **wish}
        status, answer = self.ask("PUT", f"/v1/leases/{volume}", body)
        assert status == 200, answer
        return answer

    def report_leases(self, leases: Mapping[str, str]) -> None:
        assert self.ask("PUT", "/v1/leases", {"leases": dict(leases)})[0] == 204

    def revisions(self) -> dict[str, Document]:
        """What the agent holds or fetches, by revision."""
        _, listing = self.ask("GET", "/v1/revisions")
        return {one["revision"]: one for one in listing["revisions"]}

    def cli(self, *args: str | Path) -> subprocess.CompletedProcess[str]:
        return run_cli(*args, "--socket", self.socket)

    def tree(self, revision: str) -> Path:
        return self.data_dir / "revisions" / revision.removeprefix("sha256:") / "tree"


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=PATIENCE_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE_S)
        self.sock.connect(str(self._path))


@contextmanager
def agent_home() -> Iterator[Path]:
    """Unix sockets have short names: pytest's own directories are too deep."""
    home = Path(tempfile.mkdtemp(prefix="mc-"))
    try:
        yield home
    finally:
        for folder, _, _ in os.walk(home):
            Path(folder).chmod(0o700)  # a tree's are read-only, which keeps who is not root out
        shutil.rmtree(home)
