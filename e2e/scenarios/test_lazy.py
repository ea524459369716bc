"""Lazy volumes on a real cluster: pods that start early, and everything that may happen to them."""

import errno
import os
from collections.abc import Mapping, Sequence

import pytest

from e2e.cluster import Capability, Cluster, Process, container_ids
from e2e.containers import exhaust_memory, kill_container
from e2e.figures import Figures
from e2e.lab.commands import wait_until
from e2e.library import BUCKET, Book, Library
from e2e.readers import Reader
from e2e.release import NAMESPACE, Release, marks
from e2e.tenants import Tenant

SLOW_BITS_PER_S = 60_000_000  # twenty seconds for a model of the size below
HARDLY_BITS_PER_S = 8_000_000  # two minutes
MODEL_MIB = 128
KILLS = 3
CONTAINER_TIMEOUT_S = 120.0
FUSE, CSI = "fuse.modelcache", "kubernetes.io~csi"
KINDS = ", lazy and complete volume"
ALL_KINDS = f"{KINDS}, lazy one begun before"
LOOK_S = 0.5

pytestmark = pytest.mark.needs(Capability.NODES, Capability.STORE)


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
        here = release.revision(node, tenant.wait_resolved("early"))["bytesPresent"]
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


def test_promise_lazy_mounts_outlive_us__on_a_cluster(
    tenant: Tenant,
    library: Library,
    release: Release,
    cluster: Cluster,
    figures: Figures,
    nodes: list[str],
) -> None:
    node = nodes[1]
    readers = both_kinds("kept", tenant, library, cluster, node)
    for part in ("csi", "agent", "keeper"):
        for _ in range(KILLS):
            release.kill(part, node)
            go_on(readers)
    figures.add(f"longest read while workers are killed{KINDS}", go_on(readers), "≤ 1 s")

    for part in ("csi", "agent", "keeper"):
        kill_container(release, part, node)
        go_on(readers)
    figures.add(f"longest read while containers are killed{KINDS}", go_on(readers), "")
    end(readers)


def test_promise_lazy_mounts_outlive_us__out_of_memory(
    tenant: Tenant,
    library: Library,
    release: Release,
    cluster: Cluster,
    figures: Figures,
    nodes: list[str],
) -> None:
    node = nodes[2]
    readers = both_kinds("hungry", tenant, library, cluster, node)
    book = library.book("hungry-early", MODEL_MIB)
    with cluster.store.limited(SLOW_BITS_PER_S):
        early = begun_early("hungry-early", book, tenant, node)
        for part in ("csi", "agent"):
            exhaust_memory(release, part, node)
            figures.add(f"longest read, {part} out of memory{KINDS}", go_on(readers), "")
    early.wait_whole(book)
    end([*readers, early])


def test_promise_lazy_mounts_outlive_us__upgraded(
    tenant: Tenant,
    library: Library,
    release: Release,
    cluster: Cluster,
    figures: Figures,
    nodes: list[str],
) -> None:
    node = nodes[0]
    readers = both_kinds("upgraded", tenant, library, cluster, node)
    book = library.book("upgraded-early", MODEL_MIB)
    with cluster.store.limited(SLOW_BITS_PER_S):
        early = begun_early("upgraded-early", book, tenant, node)
        release.replace_pods("lazy")
    early.wait_whole(book)
    readers = [*readers, early]
    figures.add(f"longest read, agent and plugin upgraded{ALL_KINDS}", go_on(readers), "")

    before = release.pods("keeper")
    handed_over = ("keeper.updateStrategy=HandOver", "keeper.podAnnotations.round=handed-over")
    release.install(*marks("lazy"), *handed_over)
    figures.add(f"longest read, keeper upgraded by hand-over{ALL_KINDS}", go_on(readers), "")
    assert not set(release.pods("keeper").values()) & set(before.values())
    taken = [one["mounts"] for one in release.logs("keeper", node) if one["message"] == "took over"]
    assert len(taken) == 1
    assert taken[0] >= 1

    release.install(*marks("lazy"), "keeper.podAnnotations.round=handed-over")
    old = release.pods("keeper")[node]
    cluster.kubectl("delete", "pod", old, "--namespace", NAMESPACE)
    wait_until(
        lambda: release.pods("keeper").get(node, old) != old,
        "another keeper",
        timeout_s=CONTAINER_TIMEOUT_S,
    )
    figures.add(f"longest read, keeper's pod deleted too{ALL_KINDS}", go_on(readers), "")
    end(readers)


def test_a_pod_killed_in_mid_read_leaves_no_process_and_no_mount(
    tenant: Tenant, library: Library, cluster: Cluster, nodes: list[str]
) -> None:
    node = nodes[1]
    book = library.book("killed", MODEL_MIB)
    with cluster.store.limited(HARDLY_BITS_PER_S):
        tenant.declare("killed", book.uri, node=node)
        reader = Reader(tenant, "killed-in-mid-read", "killed", node, mode="lazy")
        reader.begin()
        pod = tenant.pod(reader.name)
        ids = container_ids(pod)
        uid = pod["metadata"]["uid"]

        def processes() -> list[Process]:
            found = cluster.processes(node)
            return [one for one in found if any(name in one.cgroup for name in ids)]

        def has_opened() -> bool:
            listings = [
                cluster.on_node(node, "ls", "-l", f"/proc/{one.pid}/fd") for one in processes()
            ]
            return any("-> /model/" in listing for listing in listings)

        wait_until(
            has_opened,
            "a file to be open",
            timeout_s=CONTAINER_TIMEOUT_S,
            interval_s=LOOK_S,
        )
        reader.remove()  # of a pod without grace the API server knows nothing from here on

        def is_gone() -> bool:
            return not processes() and not any(uid in one.target for one in cluster.mounts(node))

        wait_until(is_gone, "its end", timeout_s=CONTAINER_TIMEOUT_S, interval_s=LOOK_S)


def test_a_source_gone_for_good_ends_reads_and_is_told_on_the_pod_and_in_the_status(
    tenant: Tenant, library: Library, cluster: Cluster, nodes: list[str]
) -> None:
    book = library.book("replaced", MODEL_MIB)
    with cluster.store.limited(SLOW_BITS_PER_S):
        tenant.declare("replaced", book.uri, node=nodes[2])
        reader = Reader(tenant, "bereft", "replaced", nodes[2], mode="lazy")
        reader.begin()
        before = tenant.status("replaced")["revision"]
        for path in book.files:
            cluster.store.client().put_bytes(BUCKET, f"replaced/{path}", b"another")
        cluster.store.stop()  # what it was sending before would be sent to its end
        cluster.store.start()
        reader.wait_failed(os.strerror(errno.EIO))
    tenant.wait_event(reader.name, "WaitingForModel", "SourceChanged")
    wait_until(
        lambda: before in [one["revision"] for one in previous(tenant, "replaced")],
        "the revision to be an earlier one",
        timeout_s=CONTAINER_TIMEOUT_S,
        interval_s=LOOK_S,
    )
    reader.remove()


def previous(tenant: Tenant, name: str) -> Sequence[Mapping[str, str]]:
    """A ModelCache's earlier revisions, as its status lists them."""
    found: Sequence[Mapping[str, str]] = tenant.status(name).get("previousRevisions", [])
    return found


def both_kinds(
    name: str, tenant: Tenant, library: Library, cluster: Cluster, node: str
) -> Sequence[Reader]:
    """A reader of a model that was mounted lazily, and one of it when it was complete."""
    book = library.book(name, MODEL_MIB)
    with cluster.store.limited(SLOW_BITS_PER_S):
        lazy = begun_early(name, book, tenant, node)
    lazy.wait_whole(book)
    complete = Reader(tenant, f"{name}-complete", name, node)
    complete.start(book)
    assert fs_type(lazy, tenant, cluster) == FUSE
    assert fs_type(complete, tenant, cluster) != FUSE
    return lazy, complete


def begun_early(name: str, book: Book, tenant: Tenant, node: str) -> Reader:
    """A reader of a model that has only just begun to come."""
    tenant.declare(name, book.uri, node=node)
    reader = Reader(tenant, f"{name}-lazy", name, node, mode="lazy")
    reader.begin()
    return reader


def fs_type(reader: Reader, tenant: Tenant, cluster: Cluster) -> str:
    """Of the volume that a reader reads."""
    uid = tenant.pod(reader.name)["metadata"]["uid"]
    [found] = [
        one.fs_type
        for one in cluster.mounts(reader.node)
        if uid in one.target and CSI in one.target
    ]
    return found


def go_on(readers: Sequence[Reader]) -> str:
    """See that all read on and had no error; their longest reads since they began."""
    return ", ".join(f"{reader.check().longest_s:.2f} s" for reader in readers)


def end(readers: Sequence[Reader]) -> None:
    for reader in readers:
        assert reader.restarts == 0
        reader.remove()
