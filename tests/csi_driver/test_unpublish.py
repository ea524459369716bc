"""Volumes taken away again, and what outlives whom."""

import asyncio
import dataclasses

import grpc
import pytest

from modelcache_csi._proto import csi_pb2, csi_pb2_grpc
from support.csi_plugin import NO_WAIT_S, publish_request, running_plugin
from support.mount_namespace import mount_bind, mounts_at

pytestmark = [pytest.mark.root, pytest.mark.looptime(False)]

Code = grpc.StatusCode


async def test_unpublish_removes_mount_directory_and_lease(plugin):
    await plugin.cached()
    target = plugin.target()
    await plugin.publish(target)
    await plugin.unpublish(target)
    assert mounts_at(target) == []
    assert not target.exists()
    assert plugin.agent.leases == {}


async def test_unpublishing_twice_is_success(plugin):
    await plugin.cached()
    target = plugin.target()
    await plugin.publish(target)
    await plugin.unpublish(target)
    await plugin.unpublish(target)


async def test_unpublish_of_a_path_that_never_was_is_success(plugin):
    await plugin.unpublish(plugin.kubelet_root / "pods/gone/volumes/kubernetes.io~csi/x/mount")


async def test_a_pod_that_goes_while_it_waits_takes_its_wish_with_it(plugin):
    await plugin.cached(is_complete=False)
    with pytest.raises(grpc.aio.AioRpcError):
        await plugin.publish(plugin.target(), timeout_s=NO_WAIT_S)
    assert len(plugin.agent.wanted) == 1
    await plugin.unpublish(plugin.target())
    assert not plugin.agent.wanted


async def test_a_target_that_is_only_a_directory_is_removed(plugin):
    plugin.target().mkdir()
    await plugin.unpublish(plugin.target())
    assert not plugin.target().exists()


async def test_all_mounts_stacked_on_a_path_go(plugin, short_dir):
    await plugin.cached()
    target = plugin.target()
    await plugin.publish(target)
    mount_bind(short_dir / "data", target)
    assert len(mounts_at(target)) == 2
    await plugin.unpublish(target)
    assert mounts_at(target) == []


async def test_a_volume_in_use_is_aborted_and_stays_leased(plugin):
    await plugin.cached()
    target = plugin.target()
    await plugin.publish(target)
    with open(target / "config.json"), pytest.raises(grpc.aio.AioRpcError) as caught:
        await plugin.unpublish(target)
    assert caught.value.code() is Code.ABORTED
    assert "in use" in caught.value.details()
    assert len(plugin.agent.leases) == 1
    await plugin.unpublish(target)


async def test_files_beneath_the_mount_point_are_never_deleted(plugin):
    plugin.target().mkdir()
    (plugin.target() / "precious").write_text("x")
    with pytest.raises(grpc.aio.AioRpcError):
        await plugin.unpublish(plugin.target())
    assert (plugin.target() / "precious").read_text() == "x"


async def test_a_path_outside_the_kubelets_root_is_refused(plugin, short_dir):
    for path in (short_dir / "data", plugin.kubelet_root / "pods/../../data", "relative"):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await plugin.unpublish(path)
        assert caught.value.code() is Code.INVALID_ARGUMENT
    assert not (short_dir / "data").exists()


async def test_without_the_agent_the_volume_goes_and_the_lease_follows(plugin):
    await plugin.cached()
    target = plugin.target()
    await plugin.publish(target)
    await plugin.agent.stop()
    await plugin.unpublish(target)
    assert mounts_at(target) == []
    n_reports = len(plugin.agent.reports)
    async with plugin.agent:
        await plugin.agent.reported(n_reports + 1)
    assert plugin.agent.leases == {}


async def test_a_restarted_agent_is_told_all_leases_again(plugin):
    revision = await plugin.cached()
    await plugin.publish(plugin.target())
    leases = dict(plugin.agent.leases)
    await plugin.agent.stop()
    plugin.agent.leases.clear()
    n_reports = len(plugin.agent.reports)
    async with plugin.agent:
        await plugin.agent.reported(n_reports + 1)
    assert plugin.agent.leases == leases
    assert list(leases.values()) == [revision]


async def test_a_restarted_plugin_reports_what_it_finds_mounted(plugin, short_dir):
    revision = await plugin.cached()
    target = plugin.target()
    await plugin.publish(target)
    leases = dict(plugin.agent.leases)
    settings = dataclasses.replace(
        plugin.settings, csi_socket=short_dir / "second.sock", registration_dir=None
    )
    plugin.agent.leases["lost"] = revision
    n_reports = len(plugin.agent.reports)
    async with running_plugin(settings) as channel:
        await plugin.agent.reported(n_reports + 1)
        assert plugin.agent.leases == leases
        node = csi_pb2_grpc.NodeStub(channel)
        await node.NodePublishVolume(publish_request(str(target)))
        await node.NodeUnpublishVolume(
            csi_pb2.NodeUnpublishVolumeRequest(volume_id="csi-1", target_path=str(target))
        )
    assert mounts_at(target) == []


async def test_a_lease_granted_during_a_report_survives_it(plugin):
    revision = await plugin.cached()
    plugin.agent.before_answer = asyncio.Event()
    publishing = asyncio.create_task(plugin.publish(plugin.target()))
    await plugin.agent.asked.wait()
    # The agent has granted, the plugin does not know; now the agent loses all and wants a report.
    n_reports = len(plugin.agent.reports)
    plugin.agent.forget_leases()
    await plugin.agent.reported(n_reports + 1)
    assert plugin.agent.leases == {}
    plugin.agent.before_answer.set()
    await publishing
    assert list(plugin.agent.leases.values()) == [revision]


async def test_statistics_are_the_models_size(plugin):
    await plugin.cached()
    target = plugin.target()
    await plugin.publish(target)
    answer = await plugin.node.NodeGetVolumeStats(
        csi_pb2.NodeGetVolumeStatsRequest(volume_id="csi-1", volume_path=str(target))
    )
    bytes_used, inodes = answer.usage
    assert (bytes_used.total, bytes_used.used, bytes_used.available) == (4005, 4005, 0)
    assert (inodes.unit, inodes.total) == (csi_pb2.VolumeUsage.INODES, 2)


@pytest.mark.parametrize(
    ("volume_id", "path", "code"),
    [
        ("", "/x", Code.INVALID_ARGUMENT),
        ("v", "", Code.INVALID_ARGUMENT),
        ("v", "some/path", Code.NOT_FOUND),
        ("v", "/etc", Code.NOT_FOUND),
    ],
)
async def test_statistics_of_what_is_not_published(plugin, volume_id, path, code):
    request = csi_pb2.NodeGetVolumeStatsRequest(volume_id=volume_id, volume_path=path)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await plugin.node.NodeGetVolumeStats(request)
    assert caught.value.code() is code
