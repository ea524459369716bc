"""The store is away: what the cluster holds reaches a node by peers, for whom it was proved to."""

import asyncio
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from modelcache_api.errors import DiskFullError
from modelcache_api.listing import ListedObject
from modelcache_api.messages import Done, Hello, LeaseReport, LeaseState, RevisionState
from modelcache_node.caching import peer_starts
from modelcache_node.demo.s3_endpoint import S3Endpoint
from support.caches import Node, listing_of
from support.s3_source import Source
from support.swarm_nodes import SwarmNode, open_swarm

pytestmark = pytest.mark.looptime(False)

CONTENT = {f"part-{number}.safetensors": bytes([number]) * 50_000 for number in range(8)}
MODEL_BYTES = sum(map(len, CONTENT.values()))


@pytest.fixture(autouse=True)
def no_job_is_awaited(monkeypatch):
    monkeypatch.setattr(peer_starts, "JOB_PATIENCE_S", 0.0)
    monkeypatch.setattr(peer_starts, "PAUSE_S", 0.0)


@contextmanager
def store(folder: Path) -> Iterator[Source]:
    """A store with the model, until it is away."""
    with S3Endpoint(folder / "s3") as endpoint:
        source = Source(folder / "s3" / "models" / "model", endpoint)
        for path, content in CONTENT.items():
            source.write(path, content)
        yield source


async def by_content(source: Source) -> list[ListedObject]:
    """A listing that states what the files' contents are."""
    return [
        replace(one, checksum=f"sha256:{hashlib.sha256(CONTENT[one.path]).hexdigest()}")
        for one in await listing_of(source)
    ]


async def held_by(node: Node, folder: Path) -> Done:
    """The model, on a node whose store then goes away."""
    with store(folder) as source:
        return await node.prefetch(source, "team-a")


async def wished(node: SwarmNode, revision: str) -> None:
    """The operator wants a revision here, and the node looks what it can do."""
    await node.follow(models=[{"revision": revision}])
    await node.cache.peer_starts.look()


async def complete(node: SwarmNode) -> None:
    while [one.state for one in node.cache.report().revisions] != [RevisionState.READY]:
        await asyncio.sleep(0)


async def test_promise_peers_replace_the_store(tmp_path):
    """Here by the model's own path; by content beneath; on a real cluster in the scenarios."""
    async with open_swarm(tmp_path, 2) as (holder, cold):
        done = await held_by(holder, tmp_path)
        await wished(cold, done.revision)
        await complete(cold)
        answer = await cold.lease("team-a")
        assert (answer.state, answer.revision) == (LeaseState.READY, done.revision)
        for path, content in CONTENT.items():
            assert cold.data_of(done.revision, path).read_bytes() == content


async def test_a_namespace_without_a_proof_anywhere_gets_nothing_by_it(tmp_path):
    async with open_swarm(tmp_path, 2) as (holder, cold):
        done = await held_by(holder, tmp_path)
        await wished(cold, done.revision)
        await complete(cold)
        assert (await cold.lease("team-b", revision=done.revision)).state is LeaseState.WAITING


async def test_files_that_are_named_by_their_content_come_by_peers_too(tmp_path):
    async with open_swarm(tmp_path, 2) as (holder, cold):
        with store(tmp_path) as source:
            hello = Hello(namespace="team-a", model_cache="model")
            done = await holder.serve(hello, await by_content(source))
        await wished(cold, done.revision)
        await complete(cold)
        assert (await cold.lease("team-a")).state is LeaseState.READY
        for path, content in CONTENT.items():
            assert cold.data_of(done.revision, path).read_bytes() == content


async def test_a_provisional_proof_is_not_passed_on(tmp_path):
    async with open_swarm(tmp_path, 2) as (holder, cold):
        with store(tmp_path) as source:
            hello = Hello(namespace="team-a", model_cache="model")
            joined = await holder.cache.begin(hello, await by_content(source))
            (proof,) = holder.cache.report().proofs
            assert proof.is_provisional
            await wished(cold, joined.fetch.revision)
        assert cold.cache.report().proofs == []
        assert cold.cache.report().revisions == []


async def test_a_proof_is_as_old_where_it_is_passed_to(tmp_path):
    async with open_swarm(tmp_path, 2, proof_max_age_s=3600.0) as (holder, cold):
        done = await held_by(holder, tmp_path)
        await wished(cold, done.revision)
        (made,), (passed,) = holder.cache.report().proofs, cold.cache.report().proofs
        assert (passed.at, passed.renewed_at, passed.model_cache, passed.request) == (
            made.at,
            made.renewed_at,
            made.model_cache,
            made.request,
        )


async def test_a_proof_that_ran_out_brings_nothing(tmp_path):
    async with open_swarm(tmp_path, 2, proof_max_age_s=0.0) as (holder, cold):
        done = await held_by(holder, tmp_path)
        await wished(cold, done.revision)
        assert cold.cache.report().proofs == []
        assert cold.cache.report().revisions == []


async def test_where_there_is_no_room_it_begins_only_for_a_pod_that_waits(tmp_path):
    async with open_swarm(tmp_path, 2, capacity_bytes=MODEL_BYTES + 4096) as (holder, cold):
        with store(tmp_path / "other") as source:
            source.write("config.json", b"{}")
            other = await cold.prefetch(source, "team-a", model_cache="other")
        await cold.cache.replace_leases(LeaseReport(leases={}))
        done = await held_by(holder, tmp_path)
        await wished(cold, done.revision)
        assert [one.revision for one in cold.cache.report().revisions] == [other.revision]
        assert (await cold.lease("team-a")).state is LeaseState.WAITING
        await cold.cache.peer_starts.look()
        await complete(cold)
        assert [one.revision for one in cold.cache.report().revisions] == [done.revision]


async def test_a_session_that_comes_while_peers_feed_a_node_takes_over(tmp_path):
    async with open_swarm(tmp_path, 2) as (holder, cold):
        with store(tmp_path) as source:
            done = await holder.prefetch(source, "team-a")
            await wished(cold, done.revision)
            later = await cold.prefetch(source, "team-a")
        assert later.revision == done.revision
        assert (await cold.lease("team-a")).state is LeaseState.READY


async def test_a_revision_that_nobody_holds_is_asked_for_in_vain(tmp_path):
    async with open_swarm(tmp_path, 2) as (_, cold):
        await wished(cold, "sha256:" + "0" * 64)
        assert cold.cache.report().revisions == []


async def test_a_job_gets_its_time_first(tmp_path, monkeypatch):
    monkeypatch.setattr(peer_starts, "JOB_PATIENCE_S", 3600.0)
    async with open_swarm(tmp_path, 2) as (holder, cold):
        done = await held_by(holder, tmp_path)
        await wished(cold, done.revision)
        assert cold.cache.report().revisions == []


async def test_a_full_disk_ends_nothing(tmp_path, monkeypatch):
    async with open_swarm(tmp_path, 2) as (holder, cold):
        done = await held_by(holder, tmp_path)

        def full(*_: object) -> None:
            raise DiskFullError("no space left")

        with monkeypatch.context() as patch:
            patch.setattr("modelcache_node.store.index.Index.put_proof", full)
            await wished(cold, done.revision)
        await cold.cache.peer_starts.look()
        await complete(cold)
