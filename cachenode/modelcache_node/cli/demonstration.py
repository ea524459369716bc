"""The demonstration: a store and agents on loopback, one model on every agent, and a table.

Everything runs as this user under one directory, and is stopped by pid at the end, on Ctrl-C and
on SIGTERM alike; the kernel stops the agents if this process is killed.
"""

import asyncio
import ctypes
import os
import signal
import socket as sockets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from modelcache_api.errors import UnavailableError
from modelcache_api.messages import Done, Hello, Progress
from modelcache_node.cli.progress import human_bytes, progress_line
from modelcache_node.demo.model import write_model
from modelcache_node.demo.s3_endpoint import S3Endpoint
from modelcache_node.origins.base import SourceOptions
from modelcache_node.patience import Patience
from modelcache_node.prefetching import AgentAddress, Prefetch

_SOURCE = "s3://demo/model"
#: An agent is ready in a fraction of a second. Arbitrary, for a loaded machine.
_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 10.0
_GIVE_UP_S = 60.0
_REDRAW_S = 0.2
_PR_SET_PDEATHSIG = 1


def run_demonstration(folder: Path, *, size_bytes: int, n_agents: int) -> None:
    """Make the model, fetch it on every agent, print what happened."""
    print(f"a model of {human_bytes(size_bytes)} for {n_agents} agents, in {folder}")
    write_model(folder / "s3" / "demo" / "model", size_bytes)
    with ExitStack() as stack:
        endpoint = stack.enter_context(S3Endpoint(folder / "s3"))
        paths = [folder / f"agent-{number}" / "api.sock" for number in range(1, n_agents + 1)]
        addresses = _free_addresses(n_agents)
        agents = [
            stack.enter_context(_agent(socket, address, addresses))
            for socket, address in zip(paths, addresses, strict=True)
        ]
        for socket, agent in zip(paths, agents, strict=True):
            _wait_ready(socket, agent)
        done = asyncio.run(_fetch_everywhere(paths, endpoint.url))
        print(table(done))
        served = endpoint.served.body_bytes
        print(
            f"the store handed out {human_bytes(served)}: {served / done[0].bytes:.2f}x the model"
        )


def table(done: list[Done]) -> str:
    """One row per agent; pure."""
    lines = ["", "agent  from origin  from peers   seconds     GB/s  integrity"]
    for number, one in enumerate(done, 1):
        lines.append(
            f"{number:5}  {human_bytes(one.bytes_from_origin):>11}  "
            f"{human_bytes(one.bytes_from_peers):>10}  {one.seconds:8.2f}  "
            f"{one.bytes / one.seconds / 1e9:7.2f}  {one.integrity}"
        )
    return "\n".join(lines)


def _free_addresses(count: int) -> list[str]:
    """Loopback addresses that nobody listens on now."""
    with ExitStack() as stack:
        taken = [stack.enter_context(sockets.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [f"127.0.0.1:{one.getsockname()[1]}" for one in taken]


@contextmanager
def _agent(socket: Path, address: str, everybody: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    home = socket.parent
    peers = [("--peer", other) for other in everybody if other != address]
    home.mkdir()
    with (home / "log").open("wb") as log:
        agent = subprocess.Popen(
            [
                *(sys.executable, "-m", "modelcache_node.cli", "agent"),
                *("--data-dir", str(home / "data"), "--socket", str(socket)),
                *("--listen", address, "--movers", "1", "--allow-any-disk"),
                *(argument for peer in peers for argument in peer),
            ],
            stdout=log,
            stderr=log,
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - one thread runs at this point
        )
    try:
        yield agent
    finally:
        agent.terminate()
        try:
            agent.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            agent.kill()
            agent.wait()


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _wait_ready(socket: Path, agent: subprocess.Popen[bytes]) -> None:
    """Until the agent's socket is there.

    Raises:
        UnavailableError: it ended, or does not come; its log says why.
    """
    deadline = time.monotonic() + _START_TIMEOUT_S
    while not socket.exists():
        if agent.poll() is not None or time.monotonic() > deadline:
            log = (socket.parent / "log").read_text()[-2000:]
            raise UnavailableError(f"agent did not start:\n{log}")
        time.sleep(0.05)


async def _fetch_everywhere(sockets: list[Path], endpoint: str) -> list[Done]:
    positions = [Progress() for _ in sockets]

    async def fetch(number: int, socket: Path) -> Done:
        def note(progress: Progress) -> None:
            positions[number] = progress

        prefetch = Prefetch(
            SourceOptions(_SOURCE, endpoint=endpoint, anonymous=True),
            AgentAddress(socket=socket),
            Hello(model_cache="demo"),
            on_progress=note,
            patience=Patience(_GIVE_UP_S, clock=time.monotonic),
        )
        return await prefetch.run()

    drawing = asyncio.create_task(_draw(positions))
    try:
        return await asyncio.gather(*(fetch(*item) for item in enumerate(sockets)))
    finally:
        drawing.cancel()
        await asyncio.wait({drawing})


async def _draw(positions: list[Progress]) -> None:
    """One line per agent, redrawn in place; on no terminal, nothing."""
    if not sys.stdout.isatty():
        return
    print("\n" * len(positions), end="")
    try:
        while True:
            _redraw(positions)
            await asyncio.sleep(_REDRAW_S)
    finally:
        _redraw(positions)


def _redraw(positions: list[Progress]) -> None:
    lines = [
        f"agent {number}  {progress_line(one.bytes_present, one.bytes_total, 0.0, one.note)}"
        for number, one in enumerate(positions, 1)
    ]
    sys.stdout.write(f"\x1b[{len(lines)}A" + "".join(f"\x1b[K{line}{os.linesep}" for line in lines))
    sys.stdout.flush()
