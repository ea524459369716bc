"""One node's cache: fetches that many share, leases, and who goes to make room. Real parts."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from modelcache_api.cache_node import CacheNodeSpec
from modelcache_api.chunks import CHUNK_BYTES
from modelcache_api.errors import InvalidRequestError
from modelcache_api.messages import LeaseAnswer, LeaseReport, LeaseRequest, LeaseState
from modelcache_api.reasons import Reason
from modelcache_node.caching import fetches
from support.agent_process import agent_home
from support.fault_answers import Zeros
from support.fault_origin import FaultOrigin
from support.faults import Fault, Held
from support.local_node import LocalNode, running_node
from support.small_disks import small_disks

pytestmark = pytest.mark.looptime(False)

MIB = 1 << 20


@pytest.fixture
def origin() -> Iterator[FaultOrigin]:
    with FaultOrigin() as started:
        yield started


@asynccontextmanager
async def node_of(**options: Any) -> AsyncIterator[LocalNode]:
    with agent_home() as home:
        async with running_node(home, **options) as running:
            yield running


@pytest.fixture
async def node() -> AsyncIterator[LocalNode]:
    async with node_of() as running:
        yield running


def lease(node: LocalNode, volume: str = "v", **wish: Any) -> Any:
    return node.cache.lease(
        volume, LeaseRequest(**{"namespace": "", "model_cache": "model", **wish})
    )


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


def held_second_chunk(origin: FaultOrigin) -> threading.Event:
    """A model of two chunks, the second of which waits for the gate."""
    gate = threading.Event()
    origin.put("models/model/weights", Zeros(2 * CHUNK_BYTES))
    origin.script(Fault(), Fault(), Held(gate))  # the probe, and two chunks
    return gate


# -- fetches


async def test_many_sessions_share_one_fetch(node: LocalNode, origin: FaultOrigin) -> None:
    origin.put("models/model/weights", Zeros(2 * CHUNK_BYTES))
    done = await asyncio.gather(*(node.prefetch(origin) for _ in range(5)))
    assert {one.revision for one in done} == {done[0].revision}
    assert origin.body_bytes == 2 * CHUNK_BYTES + 5, "one copy, and a byte to prove each session"


async def test_a_session_that_goes_leaves_the_fetch_to_the_next(
    node: LocalNode, origin: FaultOrigin
) -> None:
    gate = held_second_chunk(origin)
    leaving = asyncio.create_task(node.prefetch(origin))
    await asyncio.to_thread(origin.wait_for, lambda: origin.body_bytes > CHUNK_BYTES)
    await until(lambda: node.cache.report().revisions[0].bytes_present == CHUNK_BYTES)
    leaving.cancel()
    with suppress(asyncio.CancelledError):
        await leaving
    await until(lambda: node.cache.report().revisions[0].state == "WaitingForGrant")
    answer = await lease(node)
    assert answer.reason is Reason.WAITING_FOR_GRANT
    assert (answer.bytes_present, answer.bytes_total) == (CHUNK_BYTES, 2 * CHUNK_BYTES)
    gate.set()
    done = await node.prefetch(origin)
    assert done.bytes_from_origin == 2 * CHUNK_BYTES
    assert origin.body_bytes == 2 * CHUNK_BYTES + 2, "nothing was fetched twice"


async def test_an_agent_that_stops_keeps_what_it_has(origin: FaultOrigin) -> None:
    gate = held_second_chunk(origin)
    with agent_home() as home:
        async with running_node(home) as node:
            running = asyncio.create_task(node.prefetch(origin, give_up_s=1))
            await until(
                lambda: (
                    [one.bytes_present for one in node.cache.report().revisions] == [CHUNK_BYTES]
                )
            )
        with suppress(Exception):  # the agent is gone
            await running
        gate.set()
        sent_bytes = origin.body_bytes
        async with running_node(home) as node:
            done = await node.prefetch(origin)
            assert done.bytes_from_origin == CHUNK_BYTES
    assert origin.body_bytes - sent_bytes <= 2 * CHUNK_BYTES + 1


# -- leases


async def test_a_waiting_lease_is_answered_when_the_last_chunk_lands(
    node: LocalNode, origin: FaultOrigin
) -> None:
    gate = held_second_chunk(origin)
    fetching = asyncio.create_task(node.prefetch(origin))
    await asyncio.to_thread(origin.wait_for, lambda: origin.body_bytes > CHUNK_BYTES)
    waiting = asyncio.create_task(lease(node, wait_s=60))
    await until(lambda: [one.model_cache for one in node.cache.report().wanted] == ["model"])
    assert not waiting.done()
    gate.set()
    answer: LeaseAnswer = await waiting
    done = await fetching
    assert (answer.state, answer.revision) == (LeaseState.READY, done.revision)
    assert node.cache.report().wanted == []
    assert node.cache.report().revisions[0].leases == 1


async def test_a_lease_says_why_its_model_is_not_there(origin: FaultOrigin) -> None:
    origin.put("models/model/weights", Zeros(3 * MIB))
    async with node_of(capacity_bytes=MIB) as node:
        assert (await lease(node)).reason is Reason.NOT_PROVED
        with suppress(Exception):
            await node.prefetch(origin)
        answer = await lease(node)
    assert answer.reason is Reason.INSUFFICIENT_CAPACITY
    assert "give the node more disk" in answer.message
    assert answer.bytes_total == 3 * MIB


async def test_releasing_is_idempotent_and_survives_what_never_was(
    node: LocalNode, origin: FaultOrigin
) -> None:
    origin.put("models/model/weights", b"1")
    await node.prefetch(origin)
    await lease(node)
    for _ in range(2):
        await node.cache.release("v")
        await node.cache.release("never was")
    assert node.cache.report().revisions[0].leases == 0


# -- making room


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any, str], threading.Event]:
    """Makes a call of the store's wait, as a slow disk does, until the event is set."""

    def hold(part: Any, name: str) -> threading.Event:
        gate, call = threading.Event(), getattr(part, name)

        def waits(*args: Any, **kwargs: Any) -> Any:
            assert gate.wait(30)
            return call(*args, **kwargs)

        monkeypatch.setattr(part, name, waits)
        return gate

    return hold


async def test_no_lease_comes_between_an_eviction_and_its_end(
    node: LocalNode, origin: FaultOrigin, slow: Callable[[Any, str], threading.Event]
) -> None:
    origin.put("models/model/weights", b"1")
    revision = (await node.prefetch(origin)).revision
    gate = slow(node.cache._store, "delete")
    evicting = asyncio.create_task(node.cache.evict(revision))
    await asyncio.sleep(0)
    leasing = asyncio.create_task(lease(node))
    await asyncio.sleep(0)
    gate.set()
    await evicting
    assert (await leasing).state is LeaseState.WAITING
    assert node.cache._store.index.leases == {}
    assert not node.tree(revision).exists()
    assert (await node.prefetch(origin)).revision == revision
    assert (await lease(node)).state is LeaseState.READY


async def test_a_lease_on_its_way_to_the_disk_keeps_its_revision(
    node: LocalNode, origin: FaultOrigin, slow: Callable[[Any, str], threading.Event]
) -> None:
    origin.put("models/model/weights", b"1")
    revision = (await node.prefetch(origin)).revision
    gate = slow(node.cache._store.index, "put_lease")
    leasing = asyncio.create_task(lease(node))
    await asyncio.sleep(0)
    with pytest.raises(InvalidRequestError, match="has just been asked for"):
        await node.cache.evict(revision)
    gate.set()
    assert (await leasing).state is LeaseState.READY
    assert node.tree(revision).is_dir()
    with pytest.raises(InvalidRequestError, match="is leased; it cannot be evicted"):
        await node.cache.evict(revision)


async def test_a_session_that_comes_while_its_revision_goes_fetches_it_anew(
    node: LocalNode, origin: FaultOrigin, slow: Callable[[Any, str], threading.Event]
) -> None:
    origin.put("models/model/weights", b"1")
    revision = (await node.prefetch(origin)).revision
    gate = slow(node.cache._store, "delete")
    evicting = asyncio.create_task(node.cache.evict(revision))
    again = asyncio.create_task(node.prefetch(origin))
    await asyncio.to_thread(origin.wait_for, lambda: origin.count() == 3)  # its probe
    gate.set()
    await evicting
    assert (await again).revision == revision
    assert (node.tree(revision) / "weights").read_bytes() == b"1"


async def test_what_nobody_wishes_here_goes_before_what_was_used_longer_ago(
    origin: FaultOrigin,
) -> None:
    for name in ("wished", "other", "new"):
        origin.put(f"models/{name}/weights", Zeros(MIB))
    async with node_of(capacity_bytes=2 * MIB + 8192) as node:
        await node.cache.replace_leases(LeaseReport(leases={}))
        wished = (await node.prefetch(origin, "s3://models/wished")).revision
        wish = {"models": [{"revision": wished}]}
        await node.cache.follow(CacheNodeSpec.model_validate(wish))
        other = (await node.prefetch(origin, "s3://models/other")).revision
        new = (await node.prefetch(origin, "s3://models/new")).revision
        assert set(node.cache._store.revisions.revisions()) == {wished, new}
        assert not node.tree(other).exists()


@pytest.mark.root
async def test_a_disk_filled_by_others_is_relieved_by_an_eviction(
    origin: FaultOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetches, "DISK_FULL_PAUSE_S", 0.05)
    origin.put("models/old/weights", Zeros(6 * MIB))
    origin.put("models/new/weights", Zeros(6 * MIB))
    with agent_home() as home, small_disks() as disk:
        (home / "data").mkdir()
        disk(home / "data", 10)
        async with running_node(home, capacity_bytes=64 * MIB) as node:
            await node.cache.replace_leases(LeaseReport(leases={}))
            old = (await node.prefetch(origin, "s3://models/old")).revision
            new = (await node.prefetch(origin, "s3://models/new")).revision
            assert node.cache._store.revisions.revisions() == [new]
            assert not node.tree(old).exists()
