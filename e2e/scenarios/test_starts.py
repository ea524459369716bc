"""How fast pods start: with the model on the node, without it, and after the last chunk."""

import pytest

from e2e.figures import Figures, percentile, seconds
from e2e.library import Library
from e2e.release import Release
from e2e.starts import Start, start_pod
from e2e.tenants import Tenant

STARTS = 20
ABSENT_MIB = 32
PUBLISH_BAR_MS = 50.0
AFTER_LANDING_BAR_S = 1.0


@pytest.fixture(scope="module")
def local(tenant: Tenant, library: Library, nodes: list[str]) -> list[Start]:
    """Starts of pods whose model is on the node."""
    tenant.declare("local", library.book("local", ABSENT_MIB).uri, node=nodes[0])
    tenant.wait_ready("local")
    names = [f"local-{number}" for number in range(STARTS)]
    found = [start_pod(tenant, name, "local", nodes[0]) for name in names]
    tenant.remove(*names, wait=False)
    return found


@pytest.fixture(scope="module")
def absent(tenant: Tenant, library: Library, nodes: list[str]) -> list[Start]:
    """Starts of pods whose model no node has; each pod is the first to ask for its own."""
    names = [f"absent-{number}" for number in range(STARTS)]
    for name in names:
        tenant.declare(name, library.book(name, ABSENT_MIB).uri, prefetch="OnDemand")
    found = [
        start_pod(tenant, name, name, nodes[number % len(nodes)])
        for number, name in enumerate(names)
    ]
    tenant.remove(*names, wait=False)
    return found


def test_pods_start_with_a_local_model(local: list[Start], figures: Figures) -> None:
    figures.add(
        f"pod start, model local: creation to first byte, {STARTS} pods",
        seconds([start.total_s for start in local]),
    )


def test_pods_start_with_an_absent_model(absent: list[Start], figures: Figures) -> None:
    figures.add(
        f"pod start, model absent ({ABSENT_MIB} MiB): creation to first byte, {STARTS} pods",
        seconds([start.total_s for start in absent]),
    )


def test_publishing_a_local_model_stays_below_its_bar(
    local: list[Start], release: Release, figures: Figures, nodes: list[str]
) -> None:
    durations_ms = [
        publish.duration_ms
        for publish in release.publishes(nodes[0])
        if publish.pod.startswith("local-") and publish.code == "OK"
    ]
    assert len(durations_ms) == len(local)
    p99_ms = percentile(durations_ms, 99)
    figures.add(
        f"NodePublishVolume inside the plugin, model local, {STARTS} calls",
        f"p50 {percentile(durations_ms, 50):.1f} ms, p99 {p99_ms:.1f} ms",
        f"p99 ≤ {PUBLISH_BAR_MS:.0f} ms",
    )
    assert p99_ms <= PUBLISH_BAR_MS


def test_a_waiting_pod_starts_soon_after_the_last_chunk(
    absent: list[Start], figures: Figures
) -> None:
    waits_s = [start.after_landing_s for start in absent]
    figures.add(
        f"last byte on the node's disk to first byte read by the waiting pod, {STARTS} pods",
        seconds(waits_s),
        f"p95 ≤ {AFTER_LANDING_BAR_S:.0f} s",
    )
    assert percentile(waits_s, 95) <= AFTER_LANDING_BAR_S
