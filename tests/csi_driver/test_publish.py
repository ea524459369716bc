"""What a pod gets: volumes published over real sockets, with real mounts."""

import asyncio
import dataclasses
import errno
from pathlib import PurePosixPath

import grpc
import pytest

from modelcache_api.errors import AccessDeniedError, InsufficientCapacityError
from modelcache_api.names import tree_path
from modelcache_csi._proto import csi_pb2, csi_pb2_grpc
from modelcache_csi.mounts import Mounts, PublishedMount
from modelcache_csi.volume_context import TargetPath
from support.csi_plugin import NO_WAIT_S, running_plugin
from support.mount_namespace import mount_bind, mounts_at

pytestmark = [pytest.mark.root, pytest.mark.looptime(False)]

Mode = csi_pb2.VolumeCapability.AccessMode
Code = grpc.StatusCode


async def _refusal(call):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details()


async def test_a_complete_model_is_a_read_only_bind_mount_of_the_local_tree(plugin):
    revision = await plugin.cached()
    target = plugin.target()
    await plugin.publish(target)
    (mount,) = mounts_at(target)
    assert mount.root.endswith(f"/data/{tree_path(revision)}")
    assert {"ro", "nosuid", "nodev"} <= mount.options
    assert (target / "config.json").read_bytes() == b"llama"
    with pytest.raises(OSError, match="Read-only") as caught:
        (target / "config.json").write_bytes(b"")
    assert caught.value.errno == errno.EROFS
    assert list(plugin.agent.leases.values()) == [revision]


async def test_the_hosts_copy_of_the_mount_is_read_only_too(plugin, host):
    await plugin.cached()
    target = plugin.target()
    await plugin.publish(target)
    (copy,) = mounts_at(target, process=host)
    assert {"ro", "nosuid", "nodev"} <= copy.options
    await plugin.unpublish(target)
    assert mounts_at(target, process=host) == []


async def test_publishing_twice_is_success_and_one_mount(plugin):
    await plugin.cached()
    target = plugin.target()
    await plugin.publish(target)
    await plugin.publish(target)
    assert len(mounts_at(target)) == 1
    assert len(plugin.agent.leases) == 1


async def test_a_running_pod_keeps_its_revision_when_the_model_cache_moves_on(plugin):
    await plugin.cached()
    target = plugin.target()
    await plugin.publish(target)
    (before,) = mounts_at(target)
    await plugin.declare(revision="sha256:" + "9" * 64)
    await plugin.publish(target)
    assert mounts_at(target) == [before]


async def test_the_same_path_for_another_model_already_exists(plugin):
    await plugin.cached()
    await plugin.cached("mistral")
    target = plugin.target()
    await plugin.publish(target)
    code, message = await _refusal(plugin.publish(target, attributes={"modelCache": "mistral"}))
    assert code is Code.ALREADY_EXISTS
    assert "already holds another volume" in message


async def test_the_same_path_for_another_revision_already_exists(plugin):
    await plugin.cached()
    target = plugin.target()
    await plugin.publish(target)
    wanted = {"modelCache": "llama", "revision": "sha256:" + "1" * 64}
    code, _ = await _refusal(plugin.publish(target, attributes=wanted))
    assert code is Code.ALREADY_EXISTS


async def test_two_pods_share_one_persistent_volume_and_hold_a_lease_each(plugin):
    await plugin.cached()
    targets = [plugin.target("uid-1"), plugin.target("uid-2")]
    await asyncio.gather(*(plugin.publish(target, volume_id="pv") for target in targets))
    assert len(plugin.agent.leases) == 2
    await plugin.unpublish(targets[0])
    assert len(plugin.agent.leases) == 1
    assert mounts_at(targets[1])


async def test_a_named_revision_is_mounted(plugin):
    revision = await plugin.cached()
    target = plugin.target()
    await plugin.publish(target, attributes={"modelCache": "llama", "revision": revision})
    assert tree_path(revision) in mounts_at(target)[0].root


async def test_a_revision_that_the_model_cache_never_had_is_refused(plugin):
    await plugin.cached()
    wanted = {"modelCache": "llama", "revision": "sha256:" + "1" * 64}
    code, message = await _refusal(plugin.publish(plugin.target(), attributes=wanted))
    assert code is Code.INVALID_ARGUMENT
    assert "has no revision sha256:1111" in message


async def test_a_missing_model_cache_is_not_found_and_told_on_the_pod(plugin):
    code, message = await _refusal(plugin.publish(plugin.target()))
    assert code is Code.NOT_FOUND
    assert message == "there is no ModelCache 'llama' in namespace 'team'"
    await _told(plugin, "ModelCacheNotFound")
    assert plugin.events[0]["involvedObject"]["uid"] == "uid-1"
    assert plugin.events[0]["message"] == message


async def test_a_missing_model_cache_is_found_once_it_is_made(plugin):
    await _refusal(plugin.publish(plugin.target()))
    await plugin.cached()
    await plugin.publish(plugin.target())
    assert mounts_at(plugin.target())


async def test_a_model_cache_of_another_namespace_is_not_found(plugin):
    await plugin.cached(namespace="others")
    code, message = await _refusal(plugin.publish(plugin.target()))
    assert code is Code.NOT_FOUND
    assert "in namespace 'team'" in message
    assert plugin.agent.requests == []


async def test_an_incomplete_model_is_aborted_with_its_progress(plugin):
    revision = await plugin.cached(is_complete=False)
    found = plugin.agent.revision(revision)
    found.bytes_present, found.bytes_per_s = 1002, 100.0
    code, message = await _refusal(plugin.publish(plugin.target(), timeout_s=NO_WAIT_S))
    assert code is Code.ABORTED
    assert message == "model llama: 1002 B of 3.9 KiB (25%), 100 B/s, about 30 s left"
    assert mounts_at(plugin.target()) == []


async def test_a_waiting_publish_ends_when_the_last_chunk_lands(plugin):
    revision = await plugin.cached(is_complete=False)
    waiting = asyncio.create_task(plugin.publish(plugin.target()))
    await _told(plugin, "WaitingForModel")
    await plugin.agent.complete(revision)
    await waiting
    assert mounts_at(plugin.target())
    await _told(plugin, "ModelReady")


async def test_what_the_operator_found_wrong_is_told_while_waiting(plugin):
    await plugin.declare(
        conditions=[
            {
                "type": "Resolved",
                "status": "False",
                "reason": "AccessDenied",
                "message": "403 from the store",
            }
        ]
    )
    code, message = await _refusal(plugin.publish(plugin.target(), timeout_s=NO_WAIT_S))
    assert code is Code.ABORTED
    assert "Resolved=False (AccessDenied): 403 from the store" in message
    await _told(plugin, "WaitingForModel")
    assert plugin.events[0]["type"] == "Warning"


async def test_a_second_call_for_one_path_is_aborted_at_once(plugin):
    revision = await plugin.cached(is_complete=False)
    first = asyncio.create_task(plugin.publish(plugin.target()))
    await plugin.agent.asked.wait()
    code, message = await _refusal(plugin.publish(plugin.target()))
    assert code is Code.ABORTED
    assert "pending" in message
    await plugin.agent.complete(revision)
    await first


async def test_a_cancelled_call_leaves_the_path_free_for_the_next(plugin):
    revision = await plugin.cached(is_complete=False)
    first = asyncio.create_task(plugin.publish(plugin.target()))
    await plugin.agent.asked.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await plugin.agent.complete(revision)
    while await _is_busy(plugin.publish(plugin.target())):
        pass  # the plugin learns of the cancellation a moment later
    assert len(mounts_at(plugin.target())) == 1


async def test_an_agent_that_is_away_is_unavailable(plugin):
    await plugin.cached()
    await plugin.agent.stop()
    code, message = await _refusal(plugin.publish(plugin.target()))
    assert code is Code.UNAVAILABLE
    assert "agent" in message


async def test_a_pod_outwaits_the_restart_of_an_agent(plugin, short_dir):
    revision = await plugin.cached(is_complete=False)
    settings = dataclasses.replace(
        plugin.settings,
        csi_socket=short_dir / "second.sock",
        registration_dir=None,
        agent_patience_s=60.0,
    )
    async with running_plugin(settings) as channel:
        node = csi_pb2_grpc.NodeStub(channel)
        call = node.NodePublishVolume(plugin.request(plugin.target()), timeout=60.0)
        await plugin.agent.asked.wait()
        await plugin.agent.stop()
        await plugin.agent.complete(revision)
        async with plugin.agent:
            await call
    assert mounts_at(plugin.target())


async def test_a_kubelet_root_behind_a_link_is_found_in_the_mount_table(plugin, short_dir):
    revision = await plugin.cached()
    link = short_dir / "link"
    link.symlink_to(plugin.kubelet_root)
    mounts = Mounts(kubelet_root=PurePosixPath(link), data_dir=plugin.settings.data_dir)
    target = TargetPath.parse(str(link / "volume"), PurePosixPath(link))
    mounts.ensure_mounted(target, revision)
    assert mounts.published() == (PublishedMount(target, revision),)
    mounts.ensure_unmounted(target)
    assert mounts.published() == ()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InsufficientCapacityError("12 GiB do not fit"), Code.RESOURCE_EXHAUSTED),
        (AccessDeniedError("the store says 403"), Code.FAILED_PRECONDITION),
    ],
)
async def test_what_the_agent_refuses_is_told_in_its_words(plugin, error, code):
    await plugin.cached()
    plugin.agent.error = error
    assert await _refusal(plugin.publish(plugin.target())) == (code, str(error))
    await _told(plugin, error.reason)


async def test_without_the_api_server_the_agent_decides_by_its_proofs(plugin):
    await plugin.cached()
    plugin.kube.is_down = True
    await plugin.publish(plugin.target())
    (request,) = plugin.agent.requests
    assert (request.model_cache_uid, request.revision) == ("", None)


async def test_without_the_api_server_its_last_answer_counts(plugin):
    revision = await plugin.cached()
    await plugin.publish(plugin.target("uid-1"))
    plugin.kube.is_down = True
    await plugin.publish(plugin.target("uid-2"))
    assert plugin.agent.requests[-1].revision == revision


async def test_a_writable_persistent_volume_is_refused(plugin):
    code, message = await _refusal(
        plugin.publish(plugin.target(), access_mode=Mode.MULTI_NODE_MULTI_WRITER)
    )
    assert code is Code.INVALID_ARGUMENT
    assert "accessModes must be [ReadOnlyMany]" in message


async def test_a_link_in_place_of_the_target_is_not_followed(plugin, short_dir):
    await plugin.cached()
    elsewhere = short_dir / "elsewhere"
    elsewhere.mkdir()
    plugin.target().symlink_to(elsewhere)
    code, _ = await _refusal(plugin.publish(plugin.target()))
    assert code is Code.FAILED_PRECONDITION
    assert mounts_at(elsewhere) == []
    assert plugin.agent.leases == {}


async def test_a_link_in_place_of_the_tree_is_not_followed(plugin):
    revision = await plugin.cached()
    tree = plugin.settings.data_dir / tree_path(revision)
    tree.rename(tree.with_name("moved"))
    tree.symlink_to("/etc")
    code, message = await _refusal(plugin.publish(plugin.target()))
    assert code is Code.FAILED_PRECONDITION
    assert "is not a directory" in message
    assert plugin.agent.leases == {}


async def test_a_foreign_mount_on_the_target_is_left_alone(plugin, short_dir):
    await plugin.cached()
    plugin.target().mkdir()
    mount_bind(short_dir, plugin.target())
    code, message = await _refusal(plugin.publish(plugin.target()))
    assert code is Code.ALREADY_EXISTS
    assert "not a model" in message


async def test_a_missing_parent_is_a_failed_precondition(plugin):
    await plugin.cached()
    target = plugin.kubelet_root / "pods/uid-9/volumes/kubernetes.io~csi/model/mount"
    code, message = await _refusal(plugin.publish(target))
    assert code is Code.FAILED_PRECONDITION
    assert "parent" in message


async def _told(plugin, reason):
    """Wait until an Event with that reason has been posted."""
    while reason not in [event["reason"] for event in plugin.events]:
        await asyncio.sleep(0)


async def _is_busy(call):
    try:
        await call
    except grpc.aio.AioRpcError as e:
        if e.code() is not Code.ABORTED:
            raise
        return True
    return False
