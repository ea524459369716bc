"""Parts are killed, replaced and taken away while a node fetches and while pods read."""

import pytest

from e2e.cluster import Capability, Cluster
from e2e.figures import Figures
from e2e.lab.commands import wait_until
from e2e.library import MIB, Library
from e2e.readers import Reader
from e2e.release import Release
from e2e.tenants import Tenant

FETCHED_MIB = 512
SLOW_BITS_PER_S = 400_000_000  # ten seconds for that model
CHUNK_BYTES = 16 * MIB
UNDER_WAY_TIMEOUT_S = 60.0
KILLS = 3


@pytest.mark.needs(Capability.NODES, Capability.STORE)
def test_a_killed_fetch_resumes_and_fetches_little_again(
    tenant: Tenant,
    library: Library,
    release: Release,
    cluster: Cluster,
    figures: Figures,
    nodes: list[str],
) -> None:
    node = nodes[0]
    book = library.book("interrupted", FETCHED_MIB)
    before = cluster.store.sent_bytes()
    with cluster.store.limited(SLOW_BITS_PER_S):
        tenant.declare("interrupted", book.uri, node=node)
        revision = tenant.wait_resolved("interrupted")
        wait_until(
            lambda: release.revision(node, revision).get("bytesPresent", 0) > book.size_bytes // 4,
            "a quarter of the model",
            timeout_s=UNDER_WAY_TIMEOUT_S,
        )
        connections = cluster.connections(node, cluster.store.url)
        release.kill("agent", node)
    tenant.wait_ready("interrupted")
    # what is sent beyond the model counts as fetched again, framing included
    again_bytes = cluster.store.sent_bytes() - before - book.size_bytes
    figures.add(
        f"agent killed in mid-fetch of {FETCHED_MIB} MiB, {connections} connections: fetched again",
        f"{again_bytes / MIB:.0f} MiB",
        f"≤ {connections * CHUNK_BYTES // MIB} MiB",
    )
    assert connections > 0
    assert again_bytes <= connections * CHUNK_BYTES
    reader = Reader(tenant, "after-the-kill", "interrupted", node)
    reader.start(book)
    reader.remove()


@pytest.mark.needs(Capability.NODES)
def test_promise_readers_outlive_us__killed(
    tenant: Tenant, library: Library, release: Release, nodes: list[str]
) -> None:
    book = library.book("read", 64)
    tenant.declare("read", book.uri, node=nodes[1])
    reader = Reader(tenant, "reader", "read", nodes[1])
    reader.start(book)
    [home] = release.pods("operator")
    for _ in range(KILLS):
        release.kill("agent", nodes[1])
        release.kill("csi", nodes[1])
        release.kill("operator", home)
        reader.check()
    assert reader.restarts == 0
    # what was killed serves again: a second pod gets its volume
    second = Reader(tenant, "second", "read", nodes[1])
    second.start(book)
    second.remove()


def test_promise_readers_outlive_us__upgraded(
    tenant: Tenant, library: Library, release: Release, nodes: list[str]
) -> None:
    book = library.book("upgraded", 32)
    tenant.declare("upgraded", book.uri, node=nodes[2])
    reader = Reader(tenant, "through-the-upgrade", "upgraded", nodes[2])
    reader.start(book)
    release.replace_pods("second")
    reader.check()
    assert reader.restarts == 0
    reader.remove()


def test_promise_readers_outlive_us__model_cache_deleted(
    tenant: Tenant, library: Library, release: Release, nodes: list[str]
) -> None:
    book = library.book("deleted", 32)
    tenant.declare("deleted", book.uri, node=nodes[0])
    reader = Reader(tenant, "bereaved", "deleted", nodes[0])
    reader.start(book)
    tenant.kubectl("delete", "modelcache", "deleted")
    reader.check()
    assert reader.restarts == 0
    reader.remove()
