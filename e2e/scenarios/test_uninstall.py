"""The chart goes: who reads goes on reading, and once the pods are gone nothing is left."""

from collections.abc import Callable, Sequence

import pytest

from e2e.cluster import Capability, Cluster, Mount, Process
from e2e.lab.commands import wait_until
from e2e.library import Library
from e2e.readers import Reader
from e2e.release import Release
from e2e.tenants import Tenant

pytestmark = pytest.mark.last

END_TIMEOUT_S = 60.0


def test_promise_readers_outlive_us__uninstalled(
    release: Release, tenant: Tenant, library: Library, nodes: list[str]
) -> None:
    book = library.book("kept", 32)
    tenant.declare("kept", book.uri, node=nodes[0])
    reader = Reader(tenant, "reader", "kept", nodes[0])
    reader.start(book)
    release.uninstall()
    reader.check()
    release.install()
    reader.check()
    assert reader.restarts == 0
    reader.remove()


@pytest.mark.needs(Capability.NODES)
def test_after_pods_and_chart_no_mount_and_no_process_is_left(
    release: Release, tenants: list[Tenant], cluster: Cluster, nodes: list[str]
) -> None:
    for tenant in tenants:
        tenant.delete()
    wait_until_gone(lambda: [found for node in nodes for found in ours_mounted(cluster, node)])
    release.uninstall()
    wait_until_gone(lambda: [found for node in nodes for found in ours_running(cluster, node)])
    assert not [found for node in nodes for found in ours_mounted(cluster, node)]


def wait_until_gone(left: Callable[[], Sequence[object]]) -> None:
    wait_until(lambda: not left(), f"the end of {left()}", timeout_s=END_TIMEOUT_S)


def ours_mounted(cluster: Cluster, node: str) -> list[Mount]:
    """Volumes of ours that pods of this node have, or had."""
    return [
        mount
        for mount in cluster.mounts(node)
        if "csi.modelcache.io" in mount.target or "/revisions/" in mount.root
    ]


def ours_running(cluster: Cluster, node: str) -> list[Process]:
    """Processes of ours in the pods of a node."""
    return [
        process
        for process in cluster.processes(node)
        if "kubepods" in process.cgroup and "modelcache" in process.command
    ]
