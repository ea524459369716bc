"""Canary secrets: planted in every credential path, and found nowhere but where they belong.

The class of CVE-2023-2878, CVE-2024-3744 and CVE-2025-7445 (tokens of CSI drivers in logs). A real
agent and a real prefetch, with faults on the way, so that what is said in trouble is said too.
"""

import asyncio
import json
import os
import subprocess
import threading
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest

from modelcache_api.messages import NodeReport
from modelcache_node.membership.reporting import status_of
from support import faults
from support.agent_process import PATIENCE_S, Agent, agent_home, command, until
from support.fault_origin import FaultOrigin

#: Four processes start one after the other, on whatever machine this is.
pytestmark = pytest.mark.timeout(240)

MIB = 1 << 20
KEY_ID = "AKIACANARY0000000001"
SECRET = "canary-secret-c6a1f0e2b7"
SESSION = "canary-session-token-91d3"
BEARER = "canary-bearer-77ab"
#: What must not be found: the secrets, and what only a signed URL has.
CANARIES = tuple(
    text.encode() for text in (KEY_ID, SECRET, SESSION, BEARER, "X-Amz-Signature", "X-Amz-Security")
)


@pytest.fixture
def origin():
    with FaultOrigin() as found:
        found.put("models/m/config.json", b"{}")
        found.put("models/m/weights.bin", os.urandom(40 * MIB))
        yield found


@pytest.fixture
def agent():
    with agent_home() as home:
        found = Agent(home, "--log-level", "debug")
        found.start()
        yield found
        found.stop()


def in_files(folder: Path) -> dict[str, str]:
    credentials = {
        "AWS_ACCESS_KEY_ID": KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_SESSION_TOKEN": SESSION,
    }
    folder.mkdir()
    for name, value in credentials.items():
        (folder / name).write_text(value + "\n")
    return credentials


def start(agent: Agent, origin: FaultOrigin, tmp_path: Path, *flags, **environment):
    """A prefetch of its own process, which says why it failed as a Job does."""
    with (tmp_path / "stdout").open("ab") as stdout, (tmp_path / "stderr").open("ab") as stderr:
        return subprocess.Popen(
            command(
                *("prefetch", "s3://models/m", "--endpoint", origin.url, "--region", "us-east-1"),
                *("--socket", agent.socket, "--model-cache", "model", "--json", "--give-up", "30"),
                *("--termination-log", tmp_path / "termination", *flags),
            ),
            env={**os.environ, **environment},
            stdout=stdout,
            stderr=stderr,
        )


def descendants(pid: int) -> set[int]:
    """A process and all beneath it."""
    found, todo = set(), [pid]
    while todo:
        one = todo.pop()
        found.add(one)
        for thread in Path(f"/proc/{one}/task").iterdir():
            todo += [int(child) for child in (thread / "children").read_text().split()]
    return found


def leaks_of_processes(agent: Agent) -> list[str]:
    """Canaries in any process's command line, or in the environment of one that lives long."""
    assert agent._process
    long_lived = descendants(agent._process.pid)
    assert len(long_lived) > 1, "the agent and its movers"
    looked_at = [Path(f"/proc/{pid}/environ") for pid in long_lived]
    looked_at += [path / "cmdline" for path in Path("/proc").iterdir() if path.name.isdigit()]
    found = []
    for path in looked_at:
        try:
            raw = path.read_bytes()
        except OSError:  # it ended meanwhile
            continue
        found += [f"{path}: {canary!r}" for canary in CANARIES if canary in raw]
    return found


def leaks_of_files(agent: Agent, tmp_path: Path) -> list[str]:
    """Canaries in the store, the logs, the outputs, and in what is told of the node."""
    _, report = agent.ask("GET", "/v1/status")
    node = NodeReport.model_validate(report)
    status = status_of(node, address="a:1", heartbeat_at=datetime.now(UTC)).model_dump_json()
    told = {"status": json.dumps(report).encode(), "CacheNode.status": status.encode()}
    files = [path for path in agent.data_dir.rglob("*") if path.is_file()]
    files += [agent.log, *(tmp_path / name for name in ("stdout", "stderr", "termination"))]
    assert len(files) > 6
    raws = told | {str(path): path.read_bytes() for path in files if path.exists()}
    return [f"{name}: {c!r}" for name, raw in raws.items() for c in CANARIES if c in raw]


@pytest.mark.parametrize("path", ["files", "environment"])
def test_credentials_are_found_nowhere(agent, origin, tmp_path, path):
    """Token leak: S3 keys by Secret files or environment, through faults and a renewal."""
    credentials = in_files(tmp_path / "credentials")
    given = {"flags": ("--credentials-dir", tmp_path / "credentials")}
    environment = {}
    if path == "environment":
        given, environment = {"flags": ()}, credentials
    released = threading.Event()
    origin.script(
        *(faults.slow_down(), faults.expired(), faults.Reset(), faults.expired("AccessDenied")),
        faults.Held(released),
    )
    prefetch = start(agent, origin, tmp_path, *given["flags"], **environment)
    try:
        origin.wait_for(
            lambda: any(SESSION in str(asked.query) for asked in origin.asked), PATIENCE_S
        )
        assert leaks_of_processes(agent) == []
        released.set()
        assert prefetch.wait(PATIENCE_S) == 0, (tmp_path / "stderr").read_text()
    finally:
        released.set()
        prefetch.kill()
        prefetch.wait()
    assert leaks_of_processes(agent) == []
    assert leaks_of_files(agent, tmp_path) == []


def test_credentials_are_not_in_what_a_failure_says(agent, origin, tmp_path):
    """Token leak: refused for good, by an answer that repeats the request's secrets."""
    in_files(tmp_path / "credentials")
    echo = faults.error_xml("AccessDenied", f"{KEY_ID} {SECRET} X-Amz-Signature=1 denied")
    origin.always(faults.Status(403, body=echo))
    prefetch = start(agent, origin, tmp_path, "--credentials-dir", tmp_path / "credentials")
    try:
        assert prefetch.wait(PATIENCE_S) == 42
    finally:
        prefetch.kill()
        prefetch.wait()
    assert b"AccessDenied" in (tmp_path / "termination").read_bytes()
    assert leaks_of_files(agent, tmp_path) == []


def test_a_header_that_authorises_is_found_nowhere(agent, origin, tmp_path):
    """Token leak: a grant by header, in a session that is malformed at last."""
    asyncio.run(_session(agent, origin))
    until(lambda: b"session failed" in agent.log.read_bytes(), "the session's end in the log")
    for name in ("stdout", "stderr", "termination"):
        (tmp_path / name).touch()
    assert leaks_of_processes(agent) == []
    assert leaks_of_files(agent, tmp_path) == []


async def _session(agent, origin):
    grant = {
        "url": f"{origin.url}/models/m/config.json?X-Amz-Signature={SECRET}",
        "headers": {"Authorization": f"Bearer {BEARER}"},
    }
    listed = {"path": "config.json", "sizeBytes": 2, "validator": '"wrong"', "grant": grant}
    connector = aiohttp.UnixConnector(str(agent.socket))
    async with aiohttp.ClientSession(connector=connector) as http:
        for objects in ([listed], [{**listed, "validator": 7}]):
            async with http.ws_connect("http://agent/v1/prefetch") as session:
                await session.send_json({"type": "Hello", "modelCache": "model"})
                await session.send_json({"type": "Objects", "objects": objects})
                await session.send_json({"type": "ListingEnd", "nObjects": 1})
                async with asyncio.timeout(60):
                    answer = await session.receive_json()
            assert answer["type"] == "Failed"
            assert not any(canary.decode() in json.dumps(answer) for canary in CANARIES)
