"""What goes wrong in the middle of a node's fetch, and on its disk."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from modelcache_api.chunks import CHUNK_BYTES
from modelcache_api.errors import (
    InsufficientCapacityError,
    IntegrityMismatchError,
    SourceUnavailableError,
)
from modelcache_api.messages import LeaseReport, RevisionState
from modelcache_node.caching import fetches
from modelcache_node.origins.base import SourceOptions
from support.agent_process import agent_home
from support.fault_answers import Zeros
from support.fault_origin import FaultOrigin
from support.faults import Fault, Held, expired
from support.local_node import LocalNode, running_node
from support.small_disks import SmallDisk, small_disks

pytestmark = pytest.mark.looptime(False)

MIB = 1 << 20


@pytest.fixture
async def node() -> AsyncIterator[LocalNode]:
    with agent_home() as home:
        async with running_node(home) as running:
            yield running


@pytest.mark.parametrize("honours_if_match", [True, False])
async def test_an_object_replaced_in_mid_fetch_is_abandoned_and_resolved_anew(
    node: LocalNode, origin: FaultOrigin, honours_if_match: bool
) -> None:
    origin.honours_if_match = honours_if_match
    before, after = (byte * 2 * CHUNK_BYTES for byte in (b"\1", b"\2"))
    origin.put("models/model/weights", before)
    gate = threading.Event()
    origin.script(Fault(), Fault(), Held(gate))  # the probe, and two chunks
    running = asyncio.create_task(node.prefetch(origin))
    await asyncio.to_thread(origin.wait_for, lambda: origin.body_bytes > CHUNK_BYTES)
    [old] = node.cache.report().revisions
    origin.put("models/model/weights", after)
    gate.set()
    done = await running
    assert done.revision != old.revision
    assert (node.tree(done.revision) / "weights").read_bytes() == after
    assert [one.revision for one in node.cache.report().revisions] == [done.revision]


async def test_grants_that_expire_in_mid_fetch_are_renewed_by_the_job(
    node: LocalNode, origin: FaultOrigin, tmp_path: Path
) -> None:
    (tmp_path / "AWS_ACCESS_KEY_ID").write_text("AKIDMINE")
    (tmp_path / "AWS_SECRET_ACCESS_KEY").write_text("sesame")
    origin.put("models/model/weights", Zeros(2 * CHUNK_BYTES))
    origin.script(Fault(), Fault(), expired("AccessDenied"))  # the probe, and one of two chunks
    options = SourceOptions("s3://models/model", credentials_dir=tmp_path)
    done = await node.prefetch(origin, options=options)
    assert done.bytes == done.bytes_from_origin == 2 * CHUNK_BYTES
    assert origin.count() == 4, "the refused chunk alone was asked for again"
    assert len(origin.asked) == 5, "and nothing was listed anew"


async def test_a_model_larger_than_the_disk_is_refused_and_nothing_evicted_for_it(
    origin: FaultOrigin,
) -> None:
    origin.put("models/small/weights", b"\1" * MIB)
    origin.put("models/large/weights", b"\1" * 3 * MIB)
    with agent_home() as home:
        async with running_node(home, capacity_bytes=2 * MIB) as node:
            kept = await node.prefetch(origin, "s3://models/small")
            await node.cache.replace_leases(LeaseReport(leases={}))
            with pytest.raises(InsufficientCapacityError) as refused:
                await node.prefetch(origin, "s3://models/large")
            assert "the model has 3145728 bytes, 3145728 of them not on this node" in str(
                refused.value
            )
            assert "give the node more disk, or unpin or delete models" in str(refused.value)
            states = {one.revision: one.state for one in node.cache.report().revisions}
            assert states.pop(kept.revision) is RevisionState.READY
            assert list(states.values()) == [RevisionState.FAILED]


@pytest.mark.root
async def test_a_disk_that_is_full_pauses_the_fetch_and_says_so(
    origin: FaultOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetches, "DISK_FULL_PAUSE_S", 0.1)
    origin.put("models/model/weights", b"\1" * 8 * MIB)
    with agent_home() as home, small_disks() as disk:
        (home / "data").mkdir()
        disk(home / "data", 4)
        async with running_node(home, capacity_bytes=64 * MIB) as node:
            with pytest.raises(SourceUnavailableError, match="the disk is full: No space left"):
                await node.prefetch(origin, give_up_s=1)
            [report] = node.cache.report().revisions
            assert report.state is not RevisionState.READY
            await _has_room_and_goes_on(disk, node, origin)


async def _has_room_and_goes_on(disk: SmallDisk, node: LocalNode, origin: FaultOrigin) -> None:
    disk(node.home / "data", 32)
    done = await node.prefetch(origin)
    assert (node.tree(done.revision) / "weights").stat().st_size == 8 * MIB


def _flip(path: Path, offset: int) -> None:
    """As a disk would: behind everybody's back."""
    path.chmod(0o644)
    with path.open("r+b") as opened:
        opened.seek(offset)
        byte = opened.read(1)
        opened.seek(offset)
        opened.write(bytes([byte[0] ^ 1]))
    path.chmod(0o444)


def _cut(path: Path, offset: int) -> None:
    path.chmod(0o644)
    os.truncate(path, offset)
    path.chmod(0o444)


@pytest.mark.parametrize("damage", [_flip, _cut])
async def test_a_chunk_that_went_bad_on_disk_is_found_and_repaired_in_place(
    node: LocalNode, origin: FaultOrigin, damage: object
) -> None:
    data = os.urandom(CHUNK_BYTES + 1000)
    origin.put("models/model/weights", data)
    revision = (await node.prefetch(origin)).revision
    sent_bytes = origin.body_bytes
    with (node.tree(revision) / "weights").open("rb") as reader:
        damage(node.tree(revision) / "weights", CHUNK_BYTES + 5)  # type: ignore[operator]
        verifying = asyncio.create_task(node.cache.verify(revision, wait_s=60))
        while node.cache.report().revisions[0].state is RevisionState.READY:
            await asyncio.sleep(0)
        await node.prefetch(origin)
        report = await verifying
        assert (report.chunks, report.corrupt, report.repaired) == (2, 1, 1)
        assert report.state is RevisionState.READY
        assert reader.read() == data, "who had it open sees the right bytes too"
    assert (node.tree(revision) / "weights").read_bytes() == data
    assert origin.body_bytes - sent_bytes <= 1000 + 1, "the bad chunk, and the probe's byte"


async def test_damage_without_a_session_is_left_to_the_next_one(
    node: LocalNode, origin: FaultOrigin
) -> None:
    origin.put("models/model/weights", os.urandom(1000))
    revision = (await node.prefetch(origin)).revision
    _flip(node.tree(revision) / "weights", 5)
    report = await node.cache.verify(revision)
    assert (report.chunks, report.corrupt, report.repaired) == (1, 1, 0)
    assert report.state is RevisionState.WAITING_FOR_GRANT
    assert (await node.prefetch(origin)).revision == revision
    assert (await node.cache.verify(revision)).corrupt == 0


async def test_a_file_that_is_gone_from_the_disk_is_named(
    node: LocalNode, origin: FaultOrigin
) -> None:
    origin.put("models/model/weights", os.urandom(1000))
    revision = (await node.prefetch(origin)).revision
    for data in (node.home / "data" / "blobs").rglob("data"):
        data.unlink()
    with pytest.raises(IntegrityMismatchError, match=r"weights: the data of blob \w+… is gone"):
        await node.cache.verify(revision)
    assert node.cache.report().revisions[0].state is not RevisionState.READY
