"""A store with a model, and a node: the real agent, the real command line, loopback."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modelcache_node.demo.s3_endpoint import S3Endpoint
from support.agent_process import Agent, Document, agent_home, run_cli
from support.s3_source import Source
from support.small_disks import SmallDisk, small_disks

MIB = 1 << 20


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Source]:
    """Files of no, few and many bytes: 34 MiB in all, three chunks in the largest."""
    with S3Endpoint(tmp_path / "s3") as endpoint:
        made = Source(tmp_path / "s3" / "models" / "model", endpoint)
        made.write("config.json", b'{"layers": 2}')
        made.write("empty", b"")
        made.write("shards/1.safetensors", os.urandom(33 * MIB))
        made.write("shards/2.safetensors", os.urandom(MIB))
        yield made


@pytest.fixture
def stopped_node() -> Iterator[Agent]:
    """A node whose agent does not run yet."""
    with agent_home() as home:
        agent = Agent(home)
        yield agent
        agent.stop()


@pytest.fixture
def node(stopped_node: Agent) -> Agent:
    stopped_node.start()
    return stopped_node


@pytest.fixture
def prefetch() -> Callable[..., Document]:
    """Has an agent fetch a source; its summary."""

    def run(agent: Agent, source: Source, *flags: str) -> Document:
        done = run_cli(
            *("prefetch", *source.flags, "--socket", agent.socket, "--json"),
            *("--model-cache", "model", *flags),
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.fixture
def small_disk() -> Iterator[SmallDisk]:
    """Puts a disk of so many MiB at a path, or makes the one there so large."""
    with small_disks() as resize:
        yield resize
