"""Mounts whose pods are gone."""

import time
from datetime import UTC, datetime
from pathlib import PurePosixPath

import pytest
from hypothesis import given, strategies as st

from modelcache_csi.agent_client import AgentClient
from modelcache_csi.app import lazy_processes
from modelcache_csi.events import PodEvents
from modelcache_csi.kube_client import KubeClient
from modelcache_csi.lazy_volumes import LazyVolumes
from modelcache_csi.leases import LeaseBook
from modelcache_csi.mounts import Mounts
from modelcache_csi.orphans import orphans_among, sweep
from modelcache_csi.publishing import Publisher
from modelcache_csi.volume_context import TargetPath
from support.mount_namespace import detach, mount_tmpfs, mounts_at

ROOT = PurePosixPath("/var/lib/kubelet")
TARGETS = st.frozensets(
    st.sampled_from([TargetPath(ROOT, ("pods", str(i), "volumes", "mount")) for i in range(5)])
)


@given(targets=TARGETS, suspects=TARGETS, known=TARGETS)
def test_an_orphan_is_gone_twice_and_a_suspect_once(targets, suspects, known):
    orphans, next_suspects = orphans_among(
        targets, suspects=suspects, has_pod_directory=known.__contains__
    )
    assert orphans == (targets - known) & suspects
    assert next_suspects == (targets - known) - suspects


def test_a_pod_that_came_back_in_between_is_no_orphan():
    target = TargetPath(ROOT, ("pods", "1", "mount"))
    gone = {"has_pod_directory": lambda _: False}
    there = {"has_pod_directory": lambda _: True}
    _, suspects = orphans_among([target], suspects=frozenset(), **gone)
    _, suspects = orphans_among([target], suspects=suspects, **there)
    orphans, _ = orphans_among([target], suspects=suspects, **gone)
    assert not orphans


@pytest.mark.root
@pytest.mark.looptime(False)
async def test_a_mount_whose_pod_directory_is_hidden_counts_as_gone(plugin):
    revision = await plugin.cached()
    target = plugin.target()
    await plugin.publish(target)
    mounts = Mounts(kubelet_root=plugin.settings.kubelet_root, data_dir=plugin.settings.data_dir)
    (found,) = mounts.published()
    assert (str(found.target), found.revision) == (str(target), revision)
    assert mounts.has_pod_directory(found.target)
    pods = plugin.kubelet_root / "pods"
    mount_tmpfs(pods)
    assert not mounts.has_pod_directory(found.target)
    detach(pods)
    assert mounts_at(target)


@pytest.mark.root
@pytest.mark.looptime(False)
async def test_an_orphan_is_unpublished_at_the_second_look(plugin):
    await plugin.cached()
    target = plugin.target()
    await plugin.publish(target)
    mounts = Mounts(kubelet_root=plugin.settings.kubelet_root, data_dir=plugin.settings.data_dir)
    (found,) = mounts.published()
    async with AgentClient(plugin.settings.agent_socket) as agent:
        kube = KubeClient(None)
        leases = LeaseBook(agent, dict, check_s=1.0)
        events = PodEvents(kube, node_name="node-1", utc_now=lambda: datetime.now(UTC))
        settings = plugin.settings
        publisher = Publisher(
            mounts=mounts,
            lazy=LazyVolumes(
                lazy_processes(settings),
                mounts=mounts,
                leases=leases,
                events=events,
                data_dir=settings.data_dir,
            ),
            leases=leases,
            kube=kube,
            events=events,
            clock=time.monotonic,
        )
        mount_tmpfs(plugin.kubelet_root / "pods")
        suspects = await sweep(mounts, publisher, frozenset())
        assert suspects == {found.target}
        assert plugin.agent.leases
        assert await sweep(mounts, publisher, suspects) == frozenset()
        assert not plugin.agent.leases
    detach(plugin.kubelet_root / "pods")


@pytest.mark.root
@pytest.mark.looptime(False)
async def test_what_is_not_laid_out_by_a_kubelet_is_never_an_orphan(plugin):
    await plugin.cached()
    target = plugin.kubelet_root / "elsewhere"
    await plugin.publish(target)
    mounts = Mounts(kubelet_root=plugin.settings.kubelet_root, data_dir=plugin.settings.data_dir)
    (found,) = mounts.published()
    assert mounts.has_pod_directory(found.target)
    await plugin.unpublish(target)
