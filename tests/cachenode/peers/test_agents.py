"""Real agents: what they serve to others, on which addresses, and with which keys."""

import asyncio
import http.client
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelcache_api.errors import InvalidRequestError
from modelcache_api.manifest import Manifest
from modelcache_api.peer_auth import ClusterKeys
from modelcache_node.demo.s3_endpoint import S3Endpoint
from modelcache_node.peers.client import PeerClient
from modelcache_node.serving.cluster_keys import follow_keys, read_keys
from modelcache_node.transfer.starting import wall_clock
from support.agent_process import Agent, agent_home, run_cli, until
from support.peers import ASKER, KEYS, OTHER_KEYS, ask_for, chunk_path, exchange, shown
from support.s3_source import Source

pytestmark = pytest.mark.looptime(False)

CONTENT = b"the weights" * 1000


@pytest.fixture
def home() -> Iterator[Path]:
    with agent_home() as made:
        yield made


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "cluster-key"
    path.write_bytes(KEYS.keys[0] + b"\n")
    return path


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Source]:
    with S3Endpoint(tmp_path / "s3") as endpoint:
        made = Source(tmp_path / "s3" / "models" / "model", endpoint)
        made.write("weights", CONTENT)
        yield made


def peer_address(agent: Agent) -> tuple[str, int]:
    """Where it says that it serves others."""
    shown_in = re.compile(r"peers are served on (\S+):(\d+)")
    until(lambda: shown_in.search(agent.log.read_text()) is not None, "its address")
    host, port = shown_in.findall(agent.log.read_text())[-1]
    return host, int(port)


async def test_an_agent_serves_what_it_fetched_to_who_has_its_key(home, key_file, source):
    agent = Agent(home, "--cluster-key-file", str(key_file))
    await asyncio.to_thread(agent.start)
    try:
        arguments = ("prefetch", *source.flags, "--socket", agent.socket, "--model-cache", "m")
        done = await asyncio.to_thread(run_cli, *arguments)
        assert done.returncode == 0, done.stderr
        (revision,) = agent.revisions()
        address = peer_address(agent)
        async with PeerClient(KEYS, asker=ASKER, now=wall_clock) as client:
            manifest = Manifest.parse(await client.manifest(shown(address), revision))
        (file,) = manifest.files
        assert exchange(address, ask_for(chunk_path(file.blob))).body == CONTENT
        assert exchange(address, ask_for(chunk_path(file.blob), keys=OTHER_KEYS)).status == 401
        probe = http.client.HTTPConnection(*address, timeout=20)
        probe.request("GET", "/healthz")
        assert probe.getresponse().read() == b"ok\n"
        probe.request("GET", "/metrics")
        assert b"modelcache_peer_sent_bytes_total" in probe.getresponse().read()
        probe.close()
    finally:
        await asyncio.to_thread(agent.stop)


def test_without_a_key_agents_meet_on_loopback_only(home):
    agent = Agent(home)
    agent.start("--listen", "127.0.0.1:0")
    try:
        target = ask_for(chunk_path(), keys=ClusterKeys.of_loopback())
        assert exchange(peer_address(agent), target).status == 404
        assert exchange(peer_address(agent), ask_for(chunk_path())).status == 401
    finally:
        agent.stop()
    agent.start("--listen", "0.0.0.0:0")
    try:
        assert "answers health only" in agent.log.read_text()
    finally:
        agent.stop()


def test_a_key_that_cannot_be_used_stops_the_agent_and_names_the_file(home, tmp_path):
    short = tmp_path / "cluster-key"
    short.write_text("too short")
    done = run_cli(
        *("agent", "--data-dir", home / "data", "--socket", home / "s", "--allow-any-disk"),
        *("--listen", "127.0.0.1:0", "--cluster-key-file", short),
    )
    assert done.returncode == 2
    assert f"--cluster-key-file {short}" in done.stderr
    with pytest.raises(InvalidRequestError, match="No such file"):
        read_keys(tmp_path / "missing")


async def test_a_changed_key_file_is_used_and_a_broken_one_changes_nothing(key_file, caplog):
    used = asyncio.Queue()
    following = asyncio.create_task(follow_keys(key_file, KEYS, used.put_nowait, look_again_s=0.01))
    key_file.write_text("broken")
    async with asyncio.timeout(20):
        while "going on with" not in caplog.text:
            await asyncio.sleep(0.01)
        key_file.write_bytes(OTHER_KEYS.keys[0] + b"\n" + KEYS.keys[0] + b"\n")
        changed = await used.get()
    following.cancel()
    assert changed.keys == OTHER_KEYS.keys + KEYS.keys
