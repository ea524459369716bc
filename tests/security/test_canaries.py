"""Canary secrets: planted in every credential path, and found nowhere but where they belong.

The class of CVE-2023-2878, CVE-2024-3744 and CVE-2025-7445 (tokens of CSI drivers in logs). A real
agent and a real prefetch, with faults on the way, so that what is said in trouble is said too.
"""

import asyncio
import json
import os
import subprocess
import threading
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from xml.sax.saxutils import escape

import aiohttp
import pytest

from modelcache_api.messages import NodeReport
from modelcache_node.membership.reporting import status_of
from support.agent_in_cluster import agent_in_cluster
from support.agent_process import PATIENCE_S, Agent, agent_home, command, until
from support.fault_origin import FaultOrigin
from support.fault_proxy import Meanwhile
from support.faults import Status, error_xml
from support.origins.planted import GIVEN, PATHS, Planted, Stand

#: Four processes start one after the other, on whatever machine this is.
pytestmark = pytest.mark.timeout(240)

SECRET = "canary-secret-c6a1f0e2b7"
BEARER = "canary-bearer-77ab"
CANARIES = (SECRET, BEARER, "X-Amz-Signature")


@pytest.fixture
def origin():
    with FaultOrigin() as found:
        found.put("models/m/config.json", b"{}")
        yield found


@pytest.fixture
def agent():
    with agent_home() as home:
        found = Agent(home, "--log-level", "debug")
        found.start()
        yield found
        found.stop()


@pytest.fixture
def stand(stores, tmp_path):
    with ExitStack() as stack:
        yield Stand(stack, stores, tmp_path)


def start(tmp_path: Path, planted: Planted, *flags):
    """A prefetch of its own process, which says why it failed as a Job does."""
    with (tmp_path / "stdout").open("ab") as stdout, (tmp_path / "stderr").open("ab") as stderr:
        return subprocess.Popen(
            command(
                *("prefetch", *planted.arguments, *flags),
                *("--model-cache", "model", "--json"),
                *("--termination-log", tmp_path / "termination"),
            ),
            env={**os.environ, **planted.environment},
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


def leaks_of_processes(agent: Agent, canaries) -> list[str]:
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
        found += [f"{path}: {canary!r}" for canary in canaries if canary.encode() in raw]
    return found


def leaks_of_files(agent: Agent, tmp_path: Path, canaries) -> list[str]:
    """Canaries in the store, the logs, the outputs, and in what is told of the node."""
    _, report = agent.ask("GET", "/v1/status")
    node = NodeReport.model_validate(report)
    status = status_of(node, address="a:1", heartbeat_at=datetime.now(UTC)).model_dump_json()
    told = {"status": json.dumps(report).encode(), "CacheNode.status": status.encode()}
    files = [path for path in agent.data_dir.rglob("*") if path.is_file()]
    files += [agent.log, *(tmp_path / name for name in ("stdout", "stderr", "termination"))]
    assert len(files) > 6
    raws = told | {str(path): path.read_bytes() for path in files if path.exists()}
    return [f"{name}: {c!r}" for name, raw in raws.items() for c in canaries if c.encode() in raw]


@pytest.mark.parametrize("path", PATHS)
def test_credentials_are_found_nowhere(agent, stand, tmp_path, path):
    """Token leak: by every way of giving credentials, through faults and a renewal."""
    planted = PATHS[path](stand)
    reached, released = threading.Event(), threading.Event()
    planted.store.script(
        *(Status(503, b"slow down", (("Retry-After", "0"),)), planted.expired, planted.expired),
        Meanwhile(lambda: (reached.set(), released.wait(PATIENCE_S))),
    )
    prefetch = start(tmp_path, planted, "--socket", agent.socket)
    try:
        until(lambda: reached.is_set() or prefetch.poll() is not None, "a fetch in its middle")
        assert leaks_of_processes(agent, planted.canaries) == []
        released.set()
        assert prefetch.wait(PATIENCE_S) == 0, (tmp_path / "stderr").read_text()
    finally:
        released.set()
        prefetch.kill()
        prefetch.wait()
    assert any(planted.crosses in f"{target} {headers}" for target, headers in planted.store.asked)
    assert planted.service is None or planted.service.asked
    assert leaks_of_processes(agent, planted.canaries) == []
    assert leaks_of_files(agent, tmp_path, planted.canaries) == []


@pytest.mark.parametrize("path", PATHS)
def test_credentials_are_not_in_what_a_failure_says(agent, stand, tmp_path, path):
    """Token leak: refused for good, by answers that repeat the requests' secrets."""
    planted = PATHS[path](stand)
    planted.store.refusal = echo_json if planted.speaks_json else echo_xml
    try:
        refused(agent, tmp_path, planted)
    finally:
        planted.store.refusal = None
    assert leaks_of_files(agent, tmp_path, planted.canaries) == []


@pytest.mark.parametrize("path", GIVEN)
def test_credentials_are_not_in_what_an_identity_service_says(agent, stand, tmp_path, path):
    """Token leak: a service that gives no token, and repeats what it was asked."""
    planted = GIVEN[path](stand)
    assert planted.service
    planted.service.refuses = True
    refused(agent, tmp_path, planted)
    assert planted.service.asked
    assert leaks_of_files(agent, tmp_path, planted.canaries) == []


def refused(agent, tmp_path, planted):
    prefetch = start(tmp_path, planted, "--socket", agent.socket, "--give-up", "5")
    try:
        assert prefetch.wait(PATIENCE_S) in (42, 75)
    finally:
        prefetch.kill()
        prefetch.wait()
    assert b"reason" in (tmp_path / "termination").read_bytes()


def echo_xml(words):
    return Status(403, error_xml("AccessDenied", escape(words)))


def echo_json(words):
    error = {"message": words, "errors": [{"reason": "forbidden", "message": words}]}
    said = " ".join(words.split())
    headers = (("X-Error-Code", "Forbidden"), ("X-Error-Message", said))
    return Status(403, json.dumps({"error": error}).encode(), headers)


@pytest.mark.parametrize("is_taken", [True, False])
def test_the_job_s_own_token_is_found_nowhere(stand, tmp_path, is_taken):
    """Token leak: the projected one, by which a Job is let in to its agent or is not."""
    token = "canary-projected-token-e3f7"
    (tmp_path / "token").write_text(token)
    planted = PATHS["s3_secret"](stand)
    with agent_in_cluster(token if is_taken else "another", namespace="team") as (agent, api):
        prefetch = start(tmp_path, planted, *agent.job_flags, "--token-file", tmp_path / "token")
        try:
            assert prefetch.wait(PATIENCE_S) == (0 if is_taken else 42)
        finally:
            prefetch.kill()
            prefetch.wait()
        until(lambda: not is_taken or "proofs" in "".join(api.written), "the agent's status")
        canaries = (token, *planted.canaries)
        assert leaks_of_processes(agent, canaries) == []
        assert leaks_of_files(agent, tmp_path, canaries) == []
        assert not [one for one in canaries if one in "".join(api.written)]


def test_a_header_that_authorises_is_found_nowhere(agent, origin, tmp_path):
    """Token leak: a grant by header, in a session that is malformed at last."""
    asyncio.run(_session(agent, origin))
    until(lambda: b"session failed" in agent.log.read_bytes(), "the session's end in the log")
    for name in ("stdout", "stderr", "termination"):
        (tmp_path / name).touch()
    assert leaks_of_processes(agent, CANARIES) == []
    assert leaks_of_files(agent, tmp_path, CANARIES) == []


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
            assert not any(canary in json.dumps(answer) for canary in CANARIES)
