"""A node goes and comes back, with its disk and without: pods mount again, nothing stale counts."""

from typing import Any

import pytest

from e2e.cluster import Capability, Cluster
from e2e.lab.commands import wait_until
from e2e.library import Book, Library
from e2e.readers import Reader
from e2e.release import Release
from e2e.tenants import LOOK_INTERVAL_S, Tenant
from e2e.watching import watching

pytestmark = pytest.mark.needs(Capability.NODES)

NAME = "model"
NOTICED_TIMEOUT_S = 120.0  # Kubernetes' own grace for a silent node is 50 s


@pytest.fixture(scope="module")
def book(library: Library) -> Book:
    return library.book("restarted", 64)


@pytest.fixture(scope="module")
def ready(tenant: Tenant, book: Book) -> Tenant:
    tenant.declare(NAME, book.uri)
    tenant.wait_ready(NAME)
    return tenant


@pytest.fixture(scope="module")
def reader(ready: Tenant, book: Book, release: Release, nodes: list[str]) -> Reader:
    """A pod on the node that goes, which Kubernetes starts again there.

    Not the operator's node: what is asked here is how it sees another one go.
    """
    busy = release.pods("operator")
    node = next(name for name in reversed(nodes) if name not in busy)
    found = Reader(ready, "reader", NAME, node)
    found.start(book)
    return found


def ready_nodes(state: dict[str, Any]) -> int:
    return int(state["status"]["nodes"]["ready"])


def store_id(cluster: Cluster, node: str) -> str:
    found: dict[str, Any] = cluster.get("cachenode", node)
    return str(found["status"]["storeId"])


def test_a_node_that_is_away_is_not_ready_and_back_with_its_disk_it_is(
    ready: Tenant, reader: Reader, book: Book, release: Release, cluster: Cluster, nodes: list[str]
) -> None:
    revision = ready.wait_resolved(NAME)
    moved_bytes = release.revision(reader.node, revision)["bytesFromOrigin"]
    cluster.stop_node(reader.node)
    wait_until(
        lambda: ready.status(NAME)["nodes"]["ready"] == len(nodes) - 1,
        "the node to be missed",
        timeout_s=NOTICED_TIMEOUT_S,
        interval_s=LOOK_INTERVAL_S,
    )
    cluster.start_node(reader.node)
    ready.wait_ready(NAME)
    reader.wait_again(book)
    assert release.revision(reader.node, revision)["bytesFromOrigin"] == moved_bytes


def test_a_node_back_with_an_empty_disk_is_ready_only_once_it_has_the_model_again(
    ready: Tenant, reader: Reader, book: Book, cluster: Cluster, nodes: list[str]
) -> None:
    before = store_id(cluster, reader.node)
    cluster.stop_node(reader.node)
    cluster.wipe_models(reader.node)
    wait_until(
        lambda: ready.status(NAME)["nodes"]["ready"] == len(nodes) - 1,
        "the node to be missed",
        timeout_s=NOTICED_TIMEOUT_S,
        interval_s=LOOK_INTERVAL_S,
    )
    with watching(cluster, "modelcache", NAME, ready.namespace) as record:
        cluster.start_node(reader.node)
        ready.wait_ready(NAME)
    assert store_id(cluster, reader.node) != before
    first_ready = next(s for s in record.states() if ready_nodes(s) == len(nodes))
    assert first_ready["status"]["bytes"]["present"] == len(nodes) * book.size_bytes
    reader.wait_again(book)
