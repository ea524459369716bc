"""Publishing lazily: what a pod sees before its model is whole, and what survives the plugin."""

import asyncio
import dataclasses
import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from modelcache_api.chunks import CHUNK_BYTES
from modelcache_api.reasons import Reason
from modelcache_csi._proto import csi_pb2_grpc
from modelcache_csi.fuse.keeper_client import KeeperClient
from modelcache_csi.fuse.negotiation import Features
from modelcache_csi.mounts import Mounts
from modelcache_csi.volume_context import TargetPath
from support.csi_plugin import Plugin, running_plugin
from support.fake_agent import FakeRevision
from support.lazy_mount import GrowingBlob, HandingAgent, KeeperProcess, pattern
from support.mount_namespace import mounts_at

pytestmark = [pytest.mark.root, pytest.mark.looptime(False)]

LAZY = {"modelCache": "llama", "mode": "lazy"}
BIG = pattern(CHUNK_BYTES + 100_000)


@pytest.fixture
def keeper(short_dir: Path) -> Iterator[KeeperProcess]:
    keeper = KeeperProcess(short_dir / "keeper.sock")
    keeper.start()
    yield keeper
    keeper.stop()


@pytest.fixture
def handing(short_dir: Path) -> Iterator[HandingAgent]:
    agent = HandingAgent(short_dir / "files.sock", {})
    agent.start()
    yield agent
    agent.stop()


@dataclasses.dataclass
class OnItsWay:
    """A model that is not complete, as agent and store have it."""

    revision: str
    blobs: dict[str, GrowingBlob]
    found: FakeRevision


@pytest.fixture
async def model(plugin: Plugin, handing: HandingAgent, short_dir: Path) -> OnItsWay:
    contents = {"config.json": b"{}", "w/1.bin": BIG}
    found = plugin.agent.add(contents, is_complete=False)
    made = await plugin.declare(revision=found.revision)
    plugin.agent.prove(
        found.revision, namespace="team", model_cache="llama", uid=made["metadata"]["uid"]
    )
    blobs = {
        path: GrowingBlob(short_dir / "b" / str(i), data)
        for i, (path, data) in enumerate(contents.items())
    }
    for file in found.manifest.files:
        handing.blobs[file.blob] = blobs[file.path]
    return OnItsWay(found.revision, blobs, found)


async def test_a_pod_starts_before_its_model_is_whole(
    plugin: Plugin, keeper: KeeperProcess, model: OnItsWay
) -> None:
    target = plugin.target()
    await plugin.publish(target, attributes=LAZY)
    (mount,) = mounts_at(target)
    assert mount.fs_type == "fuse.modelcache"
    assert {"ro", "nosuid", "nodev"} <= mount.options
    assert list(plugin.agent.leases.values()) == [model.revision]
    model.blobs["config.json"].seal()
    assert await asyncio.to_thread((target / "config.json").read_bytes) == b"{}"
    reading = asyncio.create_task(asyncio.to_thread((target / "w/1.bin").read_bytes))
    model.blobs["w/1.bin"].seal()
    assert await reading == BIG
    await plugin.unpublish(target)
    assert not target.exists()
    assert not plugin.agent.leases
    with KeeperClient(keeper.path) as client:
        assert list(client.names()) == []


async def test_a_complete_model_is_a_bind_mount_also_to_who_would_take_less(
    plugin: Plugin, keeper: KeeperProcess
) -> None:
    await plugin.cached()
    target = plugin.target()
    await plugin.publish(target, attributes=LAZY)
    assert mounts_at(target)[-1].fs_type == "tmpfs" or "fuse" not in mounts_at(target)[-1].fs_type
    assert (target / "config.json").read_bytes() == b"llama"
    await plugin.unpublish(target)


async def test_publishing_again_finds_the_mount_point_already_mounted(
    plugin: Plugin, keeper: KeeperProcess, model: OnItsWay
) -> None:
    target = plugin.target()
    for _ in range(10):
        await plugin.publish(target, attributes=LAZY)
    assert len(mounts_at(target)) == 1
    for _ in range(10):
        await plugin.unpublish(target)
    assert not target.exists()


async def test_without_a_keeper_nothing_is_mounted_lazily(plugin: Plugin, model: OnItsWay) -> None:
    target = plugin.target()
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await plugin.publish(target, attributes=LAZY)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "keeper" in (refused.value.details() or "")
    assert mounts_at(target) == []
    assert not plugin.agent.leases


async def test_a_volume_in_use_is_busy_and_a_killed_reader_lets_it_go(
    plugin: Plugin, keeper: KeeperProcess, model: OnItsWay, handing: HandingAgent
) -> None:
    target = plugin.target()
    await plugin.publish(target, attributes=LAZY)
    code = "import os, sys; os.pread(os.open(sys.argv[1], os.O_RDONLY), 4096, 0)"
    reader = subprocess.Popen([sys.executable, "-c", code, str(target / "w/1.bin")])
    await asyncio.to_thread(handing.wanted.wait, 20)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await plugin.unpublish(target)
    assert refused.value.code() is grpc.StatusCode.ABORTED
    reader.kill()
    await asyncio.to_thread(reader.wait, 20)
    await plugin.unpublish(target)
    assert not target.exists()


async def test_a_new_plugin_serves_the_mounts_of_the_one_before(
    plugin: Plugin, keeper: KeeperProcess, model: OnItsWay, short_dir: Path
) -> None:
    target = plugin.target()
    second = dataclasses.replace(plugin.settings, csi_socket=short_dir / "second.sock")
    async with running_plugin(second) as channel:
        node = csi_pb2_grpc.NodeStub(channel)
        await node.NodePublishVolume(plugin.request(target, attributes=LAZY), timeout=30)
    model.blobs["config.json"].seal()
    assert await asyncio.to_thread((target / "config.json").read_bytes) == b"{}"
    # `plugin` was there all the time, and adopts what is in the mount table.
    for pid in _processes_of(target, plugin):
        os.kill(pid, 9)
    model.blobs["w/1.bin"].seal()
    assert await asyncio.to_thread((target / "w/1.bin").read_bytes) == BIG
    await plugin.unpublish(target)


async def test_a_mount_that_nobody_serves_is_aborted_and_its_pod_told(
    plugin: Plugin, keeper: KeeperProcess, model: OnItsWay, short_dir: Path
) -> None:
    target = plugin.target()
    settings = dataclasses.replace(
        plugin.settings, csi_socket=short_dir / "second.sock", lazy_lost_after_s=0.1
    )
    await plugin.publish(target, attributes=LAZY)
    reading = asyncio.create_task(asyncio.to_thread(_errno_of_reading, target / "w/1.bin"))
    pids = _processes_of(target, plugin)
    for pid in pids:
        os.kill(pid, 19)  # neither dead nor at work
    async with running_plugin(settings):
        assert await asyncio.wait_for(reading, 30) in (
            errno.ENOTCONN,
            errno.ECONNABORTED,
            errno.EIO,
        )
        while not any(event["reason"] == "LazyMountLost" for event in plugin.events):
            await asyncio.sleep(0.01)
    for pid in pids:
        os.kill(pid, 18)
    await plugin.unpublish(target)


async def test_what_a_kernel_lacks_is_told_to_the_pod(
    plugin: Plugin, keeper: KeeperProcess, model: OnItsWay, short_dir: Path, monkeypatch
) -> None:
    monkeypatch.setattr("modelcache_csi.lazy_volumes.RENEW_S", 0.05)
    settings = dataclasses.replace(
        plugin.settings,
        csi_socket=short_dir / "second.sock",
        lazy_features=Features(passthrough=False),
    )
    target = plugin.target()
    async with running_plugin(settings) as channel:
        node = csi_pb2_grpc.NodeStub(channel)
        await node.NodePublishVolume(plugin.request(target, attributes=LAZY), timeout=30)
        while not any(event["reason"] == "LazyMountLimited" for event in plugin.events):
            await asyncio.sleep(0.01)
    await plugin.unpublish(target)


@pytest.mark.parametrize("without", [(), ("resend",), ("passthrough", "resend")])
async def test_what_a_kernel_lacks_is_told_to_the_agent_before_anything_is_mounted(
    plugin: Plugin, short_dir: Path, without: tuple[str, ...]
) -> None:
    features = Features(passthrough="passthrough" not in without, resend="resend" not in without)
    before = len(plugin.agent.reports)
    async with running_plugin(
        dataclasses.replace(
            plugin.settings, csi_socket=short_dir / "second.sock", lazy_features=features
        )
    ):
        await plugin.agent.reported(before + 1)
    lacks = set(plugin.agent.lazy_lacks or ())
    assert lacks >= set(without)
    assert lacks <= {"passthrough", "resend"}


async def test_a_node_without_fuse_is_told_to_the_agent_and_serves_complete_models(
    plugin: Plugin, short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused() -> int:
        raise FileNotFoundError("/dev/fuse")

    monkeypatch.setattr("modelcache_csi.fuse.mounting.open_device", refused)
    before = len(plugin.agent.reports)
    settings = dataclasses.replace(plugin.settings, csi_socket=short_dir / "second.sock")
    async with running_plugin(settings) as channel:
        await plugin.agent.reported(before + 1)
        assert plugin.agent.lazy_lacks == ("fuse",)
        await plugin.cached()
        target = plugin.target()
        node = csi_pb2_grpc.NodeStub(channel)
        await node.NodePublishVolume(plugin.request(target), timeout=30)
    await plugin.unpublish(target)


async def test_why_a_lazy_volume_does_not_go_on_is_told_to_its_pod(
    plugin: Plugin, keeper: KeeperProcess, model: OnItsWay, monkeypatch
) -> None:
    monkeypatch.setattr("modelcache_csi.lazy_volumes.RENEW_S", 0.05)
    target = plugin.target()
    async with running_plugin(
        dataclasses.replace(plugin.settings, csi_socket=plugin.settings.csi_socket.with_name("2"))
    ) as channel:
        node = csi_pb2_grpc.NodeStub(channel)
        await node.NodePublishVolume(plugin.request(target, attributes=LAZY), timeout=30)
        model.found.reason = Reason.SOURCE_CHANGED
        while not any("SourceChanged" in event["message"] for event in plugin.events):
            await asyncio.sleep(0.01)
    await plugin.unpublish(target)


def _errno_of_reading(path: Path) -> int | None:
    try:
        path.read_bytes()
    except OSError as e:
        return e.errno
    return None


def _processes_of(target: Path, plugin: Plugin) -> list[int]:
    """The serving processes of the mount at a target."""
    root = plugin.settings.kubelet_root
    mounts = Mounts(kubelet_root=root, data_dir=plugin.settings.data_dir)
    assert TargetPath.parse(str(target), root) in [one.target for one in mounts.published()]
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if (
                b"modelcache_csi.fuse.serving" in command
                and bytes(plugin.settings.agent_socket.parent) in command
            ):
                found.append(int(entry.name))
    assert found
    return found
