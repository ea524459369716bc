"""Agents on the hosts of a laboratory, and what they are asked to fetch.

``python _swarm_agents.py`` is the driver, on the origin's host: one prefetch per agent, over the
agents' sockets, for a line of standard input each (``{"socket": …}``); it says when each is done.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from _lab_origin import LabOrigin
from _netlab import Host
from _scratch import remove_tree
from _servers import BUCKET

PEER_PORT = 7440
_UP_S = 120.0
#: A prefetch without progress for this long has failed.
_GIVE_UP_S = 120.0


class SwarmAgent:
    """One agent process and its directory."""

    def __init__(self, host: Host, home: Path, peers: Sequence[Host], key_file: Path) -> None:
        self.host = host
        self.home = home
        self.socket = home / "s"
        home.mkdir(parents=True)
        flags = [("--peer", f"{one.address}:{PEER_PORT}") for one in peers]
        with (home / "log").open("wb") as log:
            self._process = subprocess.Popen(
                host.command(
                    [
                        *(str(Path(sys.executable).with_name("modelcache")), "agent"),
                        *("--data-dir", str(home / "data"), "--socket", str(self.socket)),
                        *("--listen", f"{host.address}:{PEER_PORT}", "--movers", "1"),
                        *("--cluster-key-file", str(key_file), "--allow-any-disk"),
                        *(text for flag in flags for text in flag),
                    ]
                ),
                stdout=log,
                stderr=log,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def await_up(self) -> None:
        give_up_at = time.monotonic() + _UP_S
        while "ready:" not in (self.home / "log").read_text():
            if self._process.poll() is not None or time.monotonic() > give_up_at:
                raise RuntimeError((self.home / "log").read_text()[-2000:])
            time.sleep(0.05)

    def kill(self) -> None:
        """As a node that loses its power: nothing is said to anybody."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()


@contextmanager
def swarm_agents(hosts: Sequence[Host], home: Path, key_file: Path) -> Iterator[list[SwarmAgent]]:
    """An agent on each host, that know each other; their stores are empty, and go afterwards."""
    agents: list[SwarmAgent] = []
    try:
        for number, host in enumerate(hosts):
            others = [one for one in hosts if one is not host]
            agents.append(SwarmAgent(host, home / str(number), others, key_file))
        for agent in agents:
            agent.await_up()
        yield agents
    finally:
        for agent in agents:
            agent.stop()
        remove_tree(home)


class Driver:
    """Has agents fetch the bucket, and hears when each is done."""

    def __init__(self, origin: LabOrigin) -> None:
        self._process = subprocess.Popen(
            origin.host.command([sys.executable, __file__, origin.url]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout
        self._process.stdout.readline()  # it is up

    def begin(self, agent: SwarmAgent) -> None:
        assert self._process.stdin
        self._process.stdin.write(f"{agent.socket}\n")
        self._process.stdin.flush()

    def next_done(self) -> dict[str, object]:
        """``socket``, ``at`` (monotonic seconds, of this machine), ``error`` or None."""
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the driver ended")
        found: dict[str, object] = json.loads(line)
        return found

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream:
                stream.close()


async def _drive(endpoint: str) -> None:
    from modelcache_api.messages import Hello  # noqa: PLC0415 - the parent does without
    from modelcache_node.origins.base import SourceOptions  # noqa: PLC0415
    from modelcache_node.patience import Patience  # noqa: PLC0415
    from modelcache_node.prefetching import AgentAddress, Prefetch  # noqa: PLC0415

    async def prefetch(socket: str) -> None:
        error = None
        try:
            await Prefetch(
                SourceOptions(uri=f"s3://{BUCKET}/", endpoint=endpoint, anonymous=True),
                AgentAddress(socket=Path(socket)),
                Hello(namespace="", model_cache="model"),
                on_progress=lambda _: None,
                patience=Patience(_GIVE_UP_S, clock=time.monotonic),
            ).run()
        except Exception as e:  # noqa: BLE001 - told to who asked
            error = f"{type(e).__name__}: {e}"
        print(json.dumps({"socket": socket, "at": time.monotonic(), "error": error}), flush=True)

    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(lines), os.fdopen(0, "rb")
    )
    print("up", flush=True)
    running = set()
    while line := await lines.readline():
        running.add(asyncio.create_task(prefetch(line.decode().strip())))


if __name__ == "__main__":
    asyncio.run(_drive(sys.argv[1]))
