"""Lazy volumes on a real cluster: pods that start early, and everything that may happen to them."""

import pytest

from e2e.cluster import Capability, Cluster
from e2e.figures import Figures
from e2e.lab.commands import wait_until
from e2e.library import Library
from e2e.readers import Reader
from e2e.release import NAMESPACE, Release
from e2e.tenants import Tenant

SLOW_BITS_PER_S = 60_000_000  # twenty seconds for a model of the size below
MODEL_MIB = 128
KILLS = 3
SUPERVISOR = r"modelcache-supervise"
CONTAINER_TIMEOUT_S = 120.0


@pytest.mark.needs(Capability.NODES, Capability.STORE)
def test_a_pod_reads_while_its_model_comes_whoever_is_killed(
    tenant: Tenant,
    library: Library,
    release: Release,
    cluster: Cluster,
    figures: Figures,
    nodes: list[str],
) -> None:
    node = nodes[0]
    book = library.book("early", MODEL_MIB)
    with cluster.store.limited(SLOW_BITS_PER_S):
        tenant.declare("early", book.uri, node=node)
        reader = Reader(tenant, "early-bird", "early", node, mode="lazy")
        reader.begin()
        here = release.revision(node, book.size_bytes)["bytesPresent"]
        assert here < book.size_bytes
        for part in ("csi", "keeper", "agent"):
            release.kill(part, node)
    reader.wait_whole(book)
    noticed = reader.check()
    assert reader.restarts == 0
    figures.add("lazy volume: present when the pod ran", f"{here / book.size_bytes:.0%}", "< 100 %")
    figures.add(
        "lazy volume, killed while it came: longest read after", f"{noticed.longest_s:.2f} s", ""
    )
    reader.remove()


@pytest.mark.needs(Capability.NODES, Capability.STORE)
def test_promise_lazy_mounts_outlive_us__on_a_cluster(
    tenant: Tenant,
    library: Library,
    release: Release,
    cluster: Cluster,
    figures: Figures,
    nodes: list[str],
) -> None:
    node = nodes[1]
    book = library.book("kept", MODEL_MIB)
    with cluster.store.limited(SLOW_BITS_PER_S):
        tenant.declare("kept", book.uri, node=node)
        reader = Reader(tenant, "lazy-reader", "kept", node, mode="lazy")
        reader.begin()
    reader.wait_whole(book)

    for part in ("csi", "agent", "keeper"):
        for _ in range(KILLS):
            release.kill(part, node)
            reader.check()
    figures.add("lazy volume: longest read while workers are killed", pause(reader), "≤ 1 s")

    for part in ("csi", "agent", "keeper"):
        kill_container(release, part, node)
        reader.check()
    figures.add("lazy volume: longest read while containers are killed", pause(reader), "")

    release.replace_pods("lazy")
    reader.check()
    figures.add("lazy volume: longest read, upgrade included", pause(reader), "")

    old = release.pods("keeper")[node]
    cluster.kubectl("delete", "pod", old, "--namespace", NAMESPACE)
    wait_until(
        lambda: release.pods("keeper").get(node, old) != old,
        "another keeper",
        timeout_s=CONTAINER_TIMEOUT_S,
    )
    reader.check()
    figures.add("lazy volume: longest read, another keeper included", pause(reader), "")
    assert reader.restarts == 0
    reader.remove()


def pause(reader: Reader) -> str:
    return f"{reader.check().longest_s:.2f} s"


def kill_container(release: Release, part: str, node: str) -> None:
    """Kill a container's first process, hence the container, and wait for the next one."""
    pod = release.pods(part)[node]

    def restarts() -> int:
        [found] = [
            one
            for one in release.cluster.objects("pods", "--namespace", NAMESPACE)
            if one["metadata"]["name"] == pod
        ]
        return int(found["status"]["containerStatuses"][0]["restartCount"])

    before = restarts()
    assert release.cluster.kill_in_pod(NAMESPACE, pod, SUPERVISOR)
    wait_until(lambda: restarts() > before, f"{part} again", timeout_s=CONTAINER_TIMEOUT_S)
