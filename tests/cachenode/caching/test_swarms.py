"""Nodes that fetch from each other, with real stores, processes and sockets."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from modelcache_node.caching import swarm_links
from modelcache_node.caching.members import Member, Members
from modelcache_node.demo.s3_endpoint import S3Endpoint
from support.s3_source import Source
from support.swarm_nodes import SwarmNode, open_swarm

pytestmark = pytest.mark.looptime(False)
N_FILES = 40
FILE_BYTES = 64 << 10


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Source]:
    with S3Endpoint(tmp_path / "s3") as endpoint:
        made = Source(tmp_path / "s3" / "models" / "model", endpoint)
        made.write("config.json", b"{}")
        for number in range(N_FILES):
            made.write(f"part-{number:03}.safetensors", bytes([number]) * FILE_BYTES)
        yield made


def assert_whole(node: SwarmNode, revision: str, source: Source) -> None:
    for path, content in source.files().items():
        assert node.data_of(revision, path).read_bytes() == content


async def test_a_node_that_comes_later_gets_everything_from_peers(tmp_path, source):
    async with open_swarm(tmp_path, 2) as (first, second):
        done = await first.prefetch(source, "team-a")
        assert done.bytes_from_peers == 0
        later = await second.prefetch(source, "team-a")
        assert (later.bytes_from_origin, later.bytes_from_peers) == (0, later.bytes)
        assert_whole(second, later.revision, source)


async def test_an_agent_that_restarted_still_feeds_others(tmp_path, source):
    async with open_swarm(tmp_path, 1) as (first,):
        await first.prefetch(source, "team-a")
    async with open_swarm(tmp_path, 2) as (_, second):
        later = await second.prefetch(source, "team-a")
        assert later.bytes_from_origin == 0


async def test_peers_that_do_not_answer_cost_a_moment(tmp_path, source):
    async with open_swarm(tmp_path, 3) as (first, second, third):
        await first.prefetch(source, "team-a")
        await first.leave()
        await second.leave()
        done = await third.prefetch(source, "team-a")
        assert done.bytes_from_origin == done.bytes
        assert_whole(third, done.revision, source)


async def test_a_peer_that_goes_in_the_middle_is_done_without(tmp_path, source):
    async with open_swarm(tmp_path, 3) as (first, second, third):
        await first.prefetch(source, "team-a")
        fetching = [asyncio.create_task(one.prefetch(source, "team-a")) for one in (second, third)]
        await asyncio.wait(fetching, timeout=0.3)
        await first.leave()
        for node, done in zip((second, third), await asyncio.gather(*fetching), strict=True):
            assert_whole(node, done.revision, source)


async def test_bytes_that_rotted_on_a_peer_s_disk_reach_nobody(tmp_path, source):
    async with open_swarm(tmp_path, 2) as (first, second):
        done = await first.prefetch(source, "team-a")
        rotten = first.data_of(done.revision, "part-007.safetensors")
        rotten.chmod(0o644)
        rotten.write_bytes(bytes(FILE_BYTES))
        later = await second.prefetch(source, "team-a")
        assert_whole(second, later.revision, source)
        assert later.bytes_from_origin >= FILE_BYTES


async def test_nodes_that_are_cold_at_once_share_the_origin(tmp_path, source):
    async with open_swarm(tmp_path, 3) as nodes:
        done = await asyncio.gather(*(node.prefetch(source, "team-a") for node in nodes))
        for node, one in zip(nodes, done, strict=True):
            assert_whole(node, one.revision, source)
            assert one.bytes_from_origin + one.bytes_from_peers >= one.bytes
        assert sum(one.bytes_from_origin for one in done) <= 1.25 * done[0].bytes


async def test_the_origin_is_left_alone_until_a_node_knows_who_shares_with_it(tmp_path, source):
    async with open_swarm(tmp_path, 2) as (first, second):
        await first.prefetch(source, "team-a")
        introduced, second.members = second.members, None
        fetching = asyncio.create_task(second.prefetch(source, "team-a"))
        await second.fetching()
        second.members = introduced
        later = await fetching
        assert (later.bytes_from_origin, later.bytes_from_peers) == (0, later.bytes)


async def test_a_node_that_is_never_introduced_goes_on_alone(tmp_path, source, monkeypatch):
    monkeypatch.setattr(swarm_links, "INTRODUCTION_WAIT_S", 0.2)
    async with open_swarm(tmp_path, 1) as (lonely,):
        lonely.members = None
        done = await lonely.prefetch(source, "team-a")
        assert done.bytes_from_origin == done.bytes


async def test_lists_that_are_gone_leave_a_fetch_with_those_it_had(tmp_path, source):
    async with open_swarm(tmp_path, 3) as nodes:
        fetching = [asyncio.create_task(one.prefetch(source, "team-a")) for one in nodes]
        for node in nodes:
            await node.fetching()
            node.members = None
        for node, done in zip(nodes, await asyncio.gather(*fetching), strict=True):
            assert_whole(node, done.revision, source)


async def test_a_node_that_the_origin_group_leaves_without_anything_helps_itself(
    tmp_path, source, monkeypatch
):
    monkeypatch.setattr(swarm_links, "STARVED_S", 0.2)
    async with open_swarm(tmp_path, 1) as (node,):
        node.members = Members(group=(Member("full", "127.0.0.1:1"),))
        done = await node.prefetch(source, "team-a")
        assert done.bytes_from_origin == done.bytes


async def test_requests_and_bytes_are_counted_by_provider(tmp_path, source):
    async with open_swarm(tmp_path, 2) as (first, second):
        await first.prefetch(source, "team-a")
        done = await second.prefetch(source, "team-a")
        n_objects = N_FILES + 1
        fetched, fed = first.cache.metrics(), second.cache.metrics()
    # Beside the bytes one of each object was read, to prove access.
    assert fetched["origin_received_bytes_total"] == done.bytes + n_objects
    assert fetched["peer_received_bytes_total"] == 0
    assert fed["origin_received_bytes_total"] == n_objects
    assert fed["origin_requests_total"] == n_objects
    assert fed["peer_received_bytes_total"] == done.bytes
    assert fed["peer_requests_total"] >= n_objects


async def test_the_origin_is_read_at_this_node_s_share_and_peers_are_not_held_up(tmp_path, source):
    share = 1_000_000
    limited = Members(origin_bytes_per_s=share)
    async with open_swarm(tmp_path, 2) as (first, second):
        first.members = limited
        done = await first.prefetch(source, "team-a")
        rate = done.bytes_from_origin / done.seconds
        assert rate <= 2 * share, "what is saved up at the start, and the last chunk, are beyond it"
        second.members = replace(second.members or limited, origin_bytes_per_s=1)
        assert (await second.prefetch(source, "team-a")).bytes_from_origin == 0
