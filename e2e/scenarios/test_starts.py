"""How fast pods start: with the model on the node, without it, and after the last chunk.

Bars are judged by the best of a few rounds: what else runs on the machine only ever adds time. Of
the time from the last chunk to the first byte the plugin's part is judged by its 95th percentile,
the whole by its median: the rest of it is the kubelet's and the container runtime's.
"""

from collections.abc import Callable, Sequence
from functools import cache

import pytest

from e2e.figures import Figures, percentile, seconds
from e2e.library import Library
from e2e.release import Publish, Release
from e2e.starts import Start, Wanted, start_pods
from e2e.tenants import Tenant

#: Twenty pods one after the other, twice if need be, on a machine that may be busy.
pytestmark = pytest.mark.timeout(900, func_only=True)

STARTS = 20
ROUNDS = 2
MODEL_MIB = 32
PUBLISH_BAR_MS = 50.0
AFTER_LANDING_BAR_S = 1.0

Round = Callable[[int], Sequence[Start]]


@pytest.fixture(scope="module")
def local(tenant: Tenant, library: Library, nodes: list[str]) -> Round:
    """Starts of pods whose model is on the node."""
    tenant.declare("local", library.book("local", MODEL_MIB).uri, node=nodes[0])
    tenant.wait_ready("local")

    @cache
    def measure(number: int) -> Sequence[Start]:
        names = [f"local-{number}-{i}" for i in range(STARTS)]
        wanted = [Wanted(name, "local", nodes[0]) for name in names]
        return start_pods(tenant, wanted)

    return measure


@pytest.fixture(scope="module")
def absent(tenant: Tenant, library: Library, nodes: list[str]) -> Round:
    """Starts of pods whose model no node has; each pod is the first to ask for its own."""

    @cache
    def measure(number: int) -> Sequence[Start]:
        names = [f"absent-{number}-{i}" for i in range(STARTS)]
        books = [library.book(name, MODEL_MIB) for name in names]
        tenant.start(
            *(
                tenant.model_cache(name, book.uri, prefetch="OnDemand")
                for name, book in zip(names, books, strict=True)
            )
        )
        wanted = [Wanted(name, name, nodes[i % len(nodes)]) for i, name in enumerate(names)]
        return start_pods(tenant, wanted)

    return measure


def published(release: Release, starts: Sequence[Start], nodes: list[str]) -> dict[str, Publish]:
    """The call that gave each of these pods its volume."""
    pods = {start.pod for start in starts}
    calls = [call for node in nodes for call in release.publishes(node)]
    found = {call.pod: call for call in calls if call.pod in pods and call.code == "OK"}
    assert found.keys() == pods
    return found


def best_round(measure: Callable[[int], float], bar: float) -> float:
    """The lowest of a few rounds; none more than the bar needs."""
    best = measure(0)
    for number in range(1, ROUNDS):
        if best <= bar:
            break
        best = min(best, measure(number))
    return best


def test_pods_start_with_a_local_model(local: Round, figures: Figures) -> None:
    figures.add(
        f"{STARTS} pods, model local: creation to first byte",
        seconds([start.total_s for start in local(0)]),
    )


def test_pods_start_with_an_absent_model(absent: Round, figures: Figures) -> None:
    figures.add(
        f"{STARTS} pods, model absent ({MODEL_MIB} MiB): creation to first byte",
        seconds([start.total_s for start in absent(0)]),
    )


def test_publishing_a_local_model_stays_below_its_bar(
    local: Round, release: Release, figures: Figures, nodes: list[str]
) -> None:
    def measure(number: int) -> float:
        calls = published(release, local(number), nodes[:1]).values()
        durations_ms = [call.duration_ms for call in calls]
        p50_ms, p99_ms = percentile(durations_ms, 50), percentile(durations_ms, 99)
        figures.add(
            f"{STARTS} calls, model local: NodePublishVolume inside the plugin, round {number + 1}",
            f"p50 {p50_ms:.0f} ms, p99 {p99_ms:.0f} ms",
            f"p99 ≤ {PUBLISH_BAR_MS:.0f} ms",
        )
        return p99_ms

    assert best_round(measure, PUBLISH_BAR_MS) <= PUBLISH_BAR_MS


def test_a_waiting_pod_starts_soon_after_the_last_chunk(
    absent: Round, release: Release, figures: Figures, nodes: list[str]
) -> None:
    def measure(number: int) -> float:
        starts = absent(number)
        calls = published(release, starts, nodes)
        answered_s = [calls[start.pod].ended_at - start.landed_at for start in starts]
        first_byte_s = [start.after_landing_s for start in starts]
        for what, samples, judged in (
            ("last byte on disk to answered publish", answered_s, 95),
            ("last byte on disk to first byte read", first_byte_s, 50),
        ):
            figures.add(
                f"{STARTS} waiting pods: {what}, round {number + 1}",
                seconds(samples),
                f"p{judged} ≤ {AFTER_LANDING_BAR_S:.0f} s",
            )
        return max(percentile(answered_s, 95), percentile(first_byte_s, 50))

    assert best_round(measure, AFTER_LANDING_BAR_S) <= AFTER_LANDING_BAR_S
