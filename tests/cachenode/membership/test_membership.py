"""An agent and its CacheNode: the spec arrives, the status is written, through every outage."""

import asyncio
from datetime import UTC, datetime

import pytest

from modelcache_api.cache_node import CacheNodeSpec
from modelcache_api.messages import NodeReport
from modelcache_node.membership import kubernetes
from modelcache_node.membership.api_server import ApiServer
from modelcache_node.membership.kubernetes import CacheNodeMembership
from support.kube_api import FakeKubeApi

pytestmark = pytest.mark.looptime(False)

NODES = "/apis/modelcache.io/v1alpha1/cachenodes"
REVISION = "sha256:" + "a" * 64


class Agent:
    """What an agent gives to, and gets from, its membership."""

    def __init__(self) -> None:
        self.report = NodeReport(
            version="0.1.0",
            boot_id="boot-1",
            store_id="store-1",
            capacity_bytes=100,
            used_bytes=0,
            reserved_bytes=0,
            leases_reported=True,
            revisions=[],
            proofs=[],
            wanted=[],
        )
        self.specs: asyncio.Queue[CacheNodeSpec] = asyncio.Queue()

    async def current_report(self) -> NodeReport:
        return self.report


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    monkeypatch.setattr(kubernetes, "_POLL_S", 0.01)
    monkeypatch.setattr(kubernetes, "_MIN_PAUSE_S", 0.01)
    monkeypatch.setattr(kubernetes, "_MAX_PAUSE_S", 0.02)


@pytest.fixture
async def kube():
    async with FakeKubeApi() as kube:
        yield kube


@pytest.fixture
async def agent(kube):
    agent = Agent()
    async with ApiServer(kube.url, token=lambda: "agent-token") as api:
        membership = CacheNodeMembership(
            api,
            "node-1",
            address="10.0.0.1:7400",
            report=agent.current_report,
            on_spec=agent.specs.put,
            now=lambda: datetime(2026, 1, 1, tzinfo=UTC),
        )
        task = asyncio.create_task(membership.run())
        yield agent
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _node(*revisions: str) -> dict:
    return {
        "metadata": {"name": "node-1"},
        "spec": {"models": [{"revision": revision} for revision in revisions]},
    }


async def _status(kube, until) -> dict:
    while True:
        status = (kube.peek(f"{NODES}/node-1") or {}).get("status") or {}
        if until(status):
            return status
        await asyncio.sleep(0.005)


async def test_an_agent_that_comes_first_waits_for_its_object(kube, agent):
    while not kube.requests["GET", "cachenodes"]:
        await asyncio.sleep(0.005)
    await kube.put(f"{NODES}/node-1", _node(REVISION))
    assert (await agent.specs.get()).models[0].revision == REVISION
    status = await _status(kube, lambda status: status.get("storeId"))
    assert status["address"] == "10.0.0.1:7400"
    assert status["heartbeatAt"] == "2026-01-01T00:00:00Z"


async def test_a_new_wish_arrives_and_only_once(kube, agent):
    await kube.put(f"{NODES}/node-1", _node())
    assert (await agent.specs.get()).models == ()
    await kube.put(f"{NODES}/node-1", _node(REVISION))
    assert (await agent.specs.get()).models[0].revision == REVISION
    await _status(kube, lambda status: status.get("storeId"))
    await kube.put(f"{NODES}/node-1", _node())
    assert (await agent.specs.get()).models == ()
    assert agent.specs.empty()


async def test_another_nodes_wish_is_not_ours(kube, agent):
    await kube.put(f"{NODES}/node-1", _node())
    await agent.specs.get()
    await kube.put(f"{NODES}/node-2", _node(REVISION) | {"metadata": {"name": "node-2"}})
    await kube.put(f"{NODES}/node-1", _node(REVISION, "sha256:" + "b" * 64))
    assert len((await agent.specs.get()).models) == 2


async def test_a_transition_is_told_at_once_and_progress_is_not(kube, agent):
    await kube.put(f"{NODES}/node-1", _node())
    await _status(kube, lambda status: status.get("storeId"))
    writes = kube.requests["PATCH", "cachenodes"]
    agent.report = agent.report.model_copy(update={"used_bytes": 50})
    await asyncio.sleep(0.1)
    assert kube.requests["PATCH", "cachenodes"] == writes
    agent.report = agent.report.model_copy(update={"disk_healthy": False})
    status = await _status(kube, lambda status: status.get("diskHealthy") is False)
    assert status["usedBytes"] == 50


async def test_a_heartbeat_comes_without_any_transition(kube, agent, monkeypatch):
    monkeypatch.setattr(kubernetes, "HEARTBEAT_S", 0.02)
    await kube.put(f"{NODES}/node-1", _node())
    while kube.requests["PATCH", "cachenodes"] < 4:
        await asyncio.sleep(0.005)


async def test_history_that_was_compacted_is_read_anew(kube, agent):
    await kube.put(f"{NODES}/node-1", _node())
    await agent.specs.get()
    kube.is_down = True
    await kube.break_watches()
    await kube.put(f"{NODES}/node-1", _node(REVISION))
    kube.compact()
    kube.is_down = False
    assert (await agent.specs.get()).models[0].revision == REVISION


async def test_an_outage_leaves_the_last_wish_standing_and_reports_follow_it(kube, agent):
    await kube.put(f"{NODES}/node-1", _node(REVISION))
    await agent.specs.get()
    await _status(kube, lambda status: status.get("storeId"))
    kube.is_down = True
    await kube.break_watches()
    agent.report = agent.report.model_copy(update={"store_id": "store-2"})
    await asyncio.sleep(0.1)
    assert agent.specs.empty()
    kube.is_down = False
    await _status(kube, lambda status: status.get("storeId") == "store-2")
    await kube.put(f"{NODES}/node-1", _node())
    assert (await agent.specs.get()).models == ()


async def test_a_deleted_object_leaves_the_last_wish_standing(kube, agent):
    await kube.put(f"{NODES}/node-1", _node(REVISION))
    await agent.specs.get()
    await kube.remove(f"{NODES}/node-1")
    await asyncio.sleep(0.05)
    assert agent.specs.empty()
    await kube.put(f"{NODES}/node-1", _node())
    assert (await agent.specs.get()).models == ()


async def test_the_token_is_read_for_every_request(kube):
    tokens = iter(["first", "second"])
    await kube.put(f"{NODES}/node-1", _node())
    async with ApiServer(kube.url, token=lambda: next(tokens)) as api:
        await api.get(f"{NODES}/node-1")
        await api.get(f"{NODES}/node-1")
    assert kube.tokens == ["first", "second"]
