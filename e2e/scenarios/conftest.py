"""What scenarios share: one cluster, the chart on it, models in its store, tenants.

    cluster      the cluster of this run; `needs(Capability.NODES)` leaves a test out elsewhere
    release      the installed chart, ready on every node
    library      models in the store, made when first asked for
    tenant       a namespace of the module's own, with access to the store
    figures      rows for the table that the run ends with

One installation serves all modules; a test marked `last` runs when all others have.
"""

import asyncio
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from e2e.cluster import Cluster
from e2e.figures import Figures
from e2e.last_words import last_words
from e2e.library import Library
from e2e.opening import opened
from e2e.release import Release
from e2e.tenants import Tenant

SCENARIO_TIMEOUT_S = 420
_FIGURES = pytest.StashKey[Figures]()
_TENANTS = pytest.StashKey[list[Tenant]]()


def pytest_configure(config: pytest.Config) -> None:
    asyncio.set_event_loop(None)  # looptime would make one that nobody closes
    config.addinivalue_line("markers", "last: runs when all other scenarios have")
    config.addinivalue_line("markers", "needs(*capabilities): left out where they are missing")
    config.stash[_FIGURES] = Figures()
    config.stash[_TENANTS] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The first scenario waits for a cluster, which may have to be built: that is not its time.
    limit = pytest.mark.timeout(SCENARIO_TIMEOUT_S, func_only=True)
    for item in items:
        if item.get_closest_marker("timeout") is None:
            item.add_marker(limit)
    items.sort(key=lambda item: item.get_closest_marker("last") is not None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    cluster = getattr(item, "funcargs", {}).get("cluster")
    if report.failed and cluster is not None:
        report.sections += list(last_words(cluster))
    return report


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    figures = config.stash[_FIGURES]
    if figures.rows:
        terminalreporter.section("figures")
        for line in figures.table():
            terminalreporter.line(line)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    with opened() as found:
        yield found


@pytest.fixture(autouse=True)
def _what_it_needs(request: pytest.FixtureRequest) -> None:
    for marker in request.node.iter_markers("needs"):
        cluster: Cluster = request.getfixturevalue("cluster")
        missing = [need.name for need in marker.args if need not in cluster.capabilities]
        if missing:
            pytest.skip(f"{cluster.name} does not offer {', '.join(missing)}")


@pytest.fixture(scope="session")
def release(cluster: Cluster) -> Iterator[Release]:
    found = Release(cluster)
    found.install()
    yield found
    found.uninstall()


@pytest.fixture(scope="session")
def library(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Library:
    return Library(cluster.store, tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def figures(pytestconfig: pytest.Config) -> Figures:
    return pytestconfig.stash[_FIGURES]


@pytest.fixture(scope="session")
def tenants(release: Release, pytestconfig: pytest.Config) -> Iterator[list[Tenant]]:
    """Every tenant that was made; they are gone before the chart is."""
    made = pytestconfig.stash[_TENANTS]
    yield made
    for tenant in made:
        tenant.delete()


@pytest.fixture(scope="session")
def new_tenant(release: Release, tenants: list[Tenant]) -> Callable[..., Tenant]:
    """Makes a tenant: `new_tenant("name", label="value")`."""

    def make(namespace: str, **labels: str) -> Tenant:
        tenant = Tenant(release.cluster, namespace)
        tenants.append(tenant)
        tenant.create(**labels)
        return tenant

    return make


@pytest.fixture(scope="module")
def tenant(request: pytest.FixtureRequest, new_tenant: Callable[..., Tenant]) -> Iterator[Tenant]:
    """A tenant of the module's name; its pods go when the module is done."""
    name = Path(request.path).stem.removeprefix("test_").replace("_", "-")
    made = new_tenant(name)
    yield made
    made.delete(wait=False)


@pytest.fixture(scope="session")
def nodes(cluster: Cluster) -> list[str]:
    """The nodes that take pods: three at least."""
    found = cluster.node_names()
    assert len(found) >= 3
    return found
