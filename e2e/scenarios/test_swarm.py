"""Nodes feed each other on a real cluster: one copy leaves the store, and then it may be away."""

import time
from collections.abc import Sequence

import pytest

from e2e.cluster import Capability, Cluster
from e2e.figures import Figures
from e2e.lab.commands import wait_until
from e2e.library import Library
from e2e.readers import Reader
from e2e.release import Release
from e2e.tenants import Tenant

pytestmark = pytest.mark.needs(Capability.NODES, Capability.STORE)

SWARM_MIB = 512
SLOW_BITS_PER_S = 200_000_000  # twenty seconds for that model
MOST_EGRESS = 1.05
SWARM_TIMEOUT_S = 180.0
LOOK_INTERVAL_S = 0.5
DATA_DIR = "/var/lib/modelcache"


def test_promise_one_egress_copy__three_cold_nodes(
    tenant: Tenant,
    library: Library,
    release: Release,
    cluster: Cluster,
    figures: Figures,
    nodes: list[str],
) -> None:
    book = library.book("shared", SWARM_MIB)
    before = cluster.store.sent_bytes()
    with cluster.store.limited(SLOW_BITS_PER_S):
        tenant.declare("shared", book.uri)
        state = tenant.wait_ready("shared")
    egress = (cluster.store.sent_bytes() - before) / book.size_bytes
    from_origin, from_peers = (state["bytes"][key] for key in ("fromOrigin", "fromPeers"))
    figures.add(
        f"{len(nodes)} cold nodes, {SWARM_MIB} MiB: the store sent, framing included",
        f"{egress:.3f} × the model",
        f"≤ {MOST_EGRESS}",
    )
    figures.add("the same by the nodes' own accounts", f"{from_origin / book.size_bytes:.3f} ×", "")
    assert egress <= MOST_EGRESS
    assert from_origin <= MOST_EGRESS * book.size_bytes
    assert from_origin + from_peers >= len(nodes) * book.size_bytes
    reader = Reader(tenant, "shared-reader", "shared", nodes[-1])
    reader.start(book)
    reader.remove()


def test_promise_peers_replace_the_store__a_cold_node(
    tenant: Tenant, library: Library, cluster: Cluster, figures: Figures, nodes: list[str]
) -> None:
    book = library.book("outlasting", 64)
    tenant.declare("outlasting", book.uri, node=nodes[0])
    tenant.wait_ready("outlasting")
    cluster.store.stop()
    try:
        began_at = time.monotonic()
        reader = Reader(tenant, "cold-reader", "outlasting", nodes[1])
        reader.start(book)
        figures.add(
            "store stopped, pod on a cold node: model read after",
            f"{time.monotonic() - began_at:.1f} s",
            "",
        )
    finally:
        cluster.store.start()
    reader.remove()


def test_a_node_whose_agent_is_killed_in_mid_swarm_is_waited_for_by_nobody(
    tenant: Tenant,
    library: Library,
    release: Release,
    cluster: Cluster,
    figures: Figures,
    nodes: list[str],
) -> None:
    victim, others = nodes[-1], nodes[:-1]
    seconds: list[float] = []
    with cluster.store.limited(SLOW_BITS_PER_S):
        for name, is_disturbed in (("undisturbed", False), ("disturbed", True)):
            book = library.book(name, SWARM_MIB)
            began_at = time.monotonic()
            tenant.declare(name, book.uri)
            revision = tenant.wait_resolved(name)
            wait_present(release, victim, revision, book.size_bytes // 4)
            if is_disturbed:
                release.kill("agent", victim)
            wait_trees(cluster, others, revision)
            seconds.append(time.monotonic() - began_at)
            tenant.wait_ready(name)
            tenant.kubectl("delete", "modelcache", name)
    figures.add(
        f"{SWARM_MIB} MiB to {len(others)} nodes while a third one's agent is killed",
        f"{seconds[1]:.1f} s, {seconds[1] / seconds[0]:.2f} × without",
        "≤ 1.35",
    )


@pytest.mark.needs(Capability.CONTROL_PLANE)
def test_a_swarm_ends_without_the_api_server(
    tenant: Tenant,
    library: Library,
    release: Release,
    cluster: Cluster,
    figures: Figures,
    nodes: list[str],
) -> None:
    book = library.book("ungoverned", SWARM_MIB)
    before = cluster.store.sent_bytes()
    with cluster.store.limited(SLOW_BITS_PER_S):
        tenant.declare("ungoverned", book.uri)
        revision = tenant.wait_resolved("ungoverned")
        for node in nodes:
            wait_present(release, node, revision, 1)
        cluster.stop_api_server()
        try:
            wait_trees(cluster, nodes, revision)
        finally:
            cluster.start_api_server()
    egress = (cluster.store.sent_bytes() - before) / book.size_bytes
    figures.add("API server stopped in mid-swarm: the store sent", f"{egress:.3f} × the model", "")
    tenant.wait_ready("ungoverned")


def wait_present(release: Release, node: str, revision: str, at_least_bytes: int) -> None:
    wait_until(
        lambda: release.revision(node, revision).get("bytesPresent", 0) >= at_least_bytes,
        f"{at_least_bytes} bytes on {node}",
        timeout_s=SWARM_TIMEOUT_S,
        interval_s=LOOK_INTERVAL_S,
    )


def wait_trees(cluster: Cluster, nodes: Sequence[str], revision: str) -> None:
    """Wait until nodes can give pods a revision; asks their disks, and no API server."""
    tree = f"{DATA_DIR}/revisions/{revision.removeprefix('sha256:')}/tree"
    find = ("find", f"{DATA_DIR}/revisions", "-maxdepth", "2", "-name", "tree")
    for node in nodes:
        wait_until(
            lambda node=node: tree in cluster.on_node(node, *find).splitlines(),
            f"the model on {node}",
            timeout_s=SWARM_TIMEOUT_S,
            interval_s=LOOK_INTERVAL_S,
        )
