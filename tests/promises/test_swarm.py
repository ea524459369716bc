"""Promises about nodes that feed each other."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelcache_node.demo.s3_endpoint import S3Endpoint
from support.s3_source import Source
from support.swarm_nodes import open_swarm

pytestmark = pytest.mark.looptime(False)


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Source]:
    with S3Endpoint(tmp_path / "s3") as endpoint:
        made = Source(tmp_path / "s3" / "models" / "model", endpoint)
        for number in range(80):
            made.write(f"part-{number:03}.safetensors", bytes([number]) * 64_000)
        yield made


async def test_promise_one_egress_copy(tmp_path, source):
    async with open_swarm(tmp_path, 3) as nodes:
        done = await asyncio.gather(*(node.prefetch(source, "team-a") for node in nodes))
    model_bytes = done[0].bytes
    # Beside the model, one byte of each object was read to prove access.
    assert source.endpoint.served.body_bytes <= 1.05 * model_bytes + 3 * 80
    assert sum(one.bytes_from_origin for one in done) <= 1.05 * model_bytes
    assert all(one.bytes_from_origin + one.bytes_from_peers >= one.bytes for one in done)


async def test_promise_peers_are_checked(tmp_path, source):
    async with open_swarm(tmp_path, 2) as (first, second):
        done = await first.prefetch(source, "team-a")
        rotten = first.data_of(done.revision, "part-007.safetensors")
        rotten.chmod(0o644)
        rotten.write_bytes(bytes(64_000))
        await second.prefetch(source, "team-a")
        for path, content in source.files().items():
            assert second.data_of(done.revision, path).read_bytes() == content
