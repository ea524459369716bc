"""How fast pods start: with the model on the node, without it, and after the last chunk.

What is asserted is that they do, and that every call is accounted for. Times are printed beside
their bars, met or missed: what else runs on the machine adds to them, so no test asserts them.
"""

from collections.abc import Sequence

import pytest

from e2e.figures import Figures, percentile, seconds, verdict
from e2e.library import Library
from e2e.release import Publish, Release
from e2e.starts import Start, Wanted, start_pods
from e2e.tenants import Tenant

#: Twenty pods one after the other, on a machine that may be busy.
pytestmark = pytest.mark.timeout(900, func_only=True)

STARTS = 20
MODEL_MIB = 32
PUBLISH_BAR_MS = 50.0
AFTER_LANDING_BAR_S = 1.0


@pytest.fixture(scope="module")
def local(tenant: Tenant, library: Library, nodes: list[str]) -> Sequence[Start]:
    """Starts of pods whose model is on the node."""
    tenant.declare("local", library.book("local", MODEL_MIB).uri, node=nodes[0])
    tenant.wait_ready("local")
    return start_pods(tenant, [Wanted(f"local-{i}", "local", nodes[0]) for i in range(STARTS)])


@pytest.fixture(scope="module")
def absent(tenant: Tenant, library: Library, nodes: list[str]) -> Sequence[Start]:
    """Starts of pods whose model no node has; each pod is the first to ask for its own."""
    names = [f"absent-{i}" for i in range(STARTS)]
    books = [library.book(name, MODEL_MIB) for name in names]
    tenant.start(
        *(
            tenant.model_cache(name, book.uri, prefetch="OnDemand")
            for name, book in zip(names, books, strict=True)
        )
    )
    return start_pods(
        tenant, [Wanted(name, name, nodes[i % len(nodes)]) for i, name in enumerate(names)]
    )


def published(release: Release, starts: Sequence[Start], nodes: list[str]) -> dict[str, Publish]:
    """The call that gave each of these pods its volume."""
    pods = {start.pod for start in starts}
    calls = [call for node in nodes for call in release.publishes(node)]
    found = {call.pod: call for call in calls if call.pod in pods and call.code == "OK"}
    assert found.keys() == pods
    return found


def test_pods_start_with_a_local_model(
    local: Sequence[Start], release: Release, figures: Figures, nodes: list[str]
) -> None:
    figures.add(
        f"{STARTS} pods, model local: creation to first byte",
        seconds([start.total_s for start in local]),
    )
    calls = published(release, local, nodes[:1]).values()
    durations_ms = [call.duration_ms for call in calls]
    p50_ms, p99_ms = percentile(durations_ms, 50), percentile(durations_ms, 99)
    figures.add(
        f"{STARTS} calls, model local: NodePublishVolume inside the plugin",
        f"p50 {p50_ms:.0f} ms, p99 {p99_ms:.0f} ms",
        verdict(f"p99 ≤ {PUBLISH_BAR_MS:.0f} ms", is_met=p99_ms <= PUBLISH_BAR_MS),
    )


def test_pods_start_with_an_absent_model(
    absent: Sequence[Start], release: Release, figures: Figures, nodes: list[str]
) -> None:
    figures.add(
        f"{STARTS} pods, model absent ({MODEL_MIB} MiB): creation to first byte",
        seconds([start.total_s for start in absent]),
    )
    calls = published(release, absent, nodes)
    answered_s = [calls[start.pod].ended_at - start.landed_at for start in absent]
    first_byte_s = [start.after_landing_s for start in absent]
    for what, samples in (
        ("last byte on disk to answered publish", answered_s),
        ("last byte on disk to first byte read", first_byte_s),
    ):
        figures.add(
            f"{STARTS} waiting pods: {what}",
            seconds(samples),
            verdict(
                f"p95 ≤ {AFTER_LANDING_BAR_S:.0f} s",
                is_met=percentile(samples, 95) <= AFTER_LANDING_BAR_S,
            ),
        )
