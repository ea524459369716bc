"""What the plugin counts, in Prometheus's text format (version 0.0.4)."""

from collections import Counter
from enum import StrEnum

#: Upper bounds, seconds. From a mount alone to the kubelet's deadline.
BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 120.0)
_NAME = "modelcache_publish_duration_seconds"


class PublishOutcome(StrEnum):
    """How a publish ended: with the model there before it began, after a wait, or not at all."""

    LOCAL = "local"
    WAITED = "waited"
    FAILED = "failed"


class PublishDurations:
    """A histogram per outcome. For one event loop."""

    def __init__(self) -> None:
        self._buckets: Counter[tuple[PublishOutcome, float]] = Counter()
        self._n: Counter[PublishOutcome] = Counter()
        self._sum_s: dict[PublishOutcome, float] = dict.fromkeys(PublishOutcome, 0.0)

    def observe(self, outcome: PublishOutcome, duration_s: float) -> None:
        self._n[outcome] += 1
        self._sum_s[outcome] += duration_s
        for bound_s in BUCKETS_S:
            if duration_s <= bound_s:
                self._buckets[outcome, bound_s] += 1

    def exposition(self) -> str:
        lines = [
            f"# HELP {_NAME} Duration of NodePublishVolume inside the plugin.",
            f"# TYPE {_NAME} histogram",
        ]
        for outcome in PublishOutcome:
            label = f'outcome="{outcome}"'
            lines += [
                f'{_NAME}_bucket{{{label},le="{bound_s:g}"}} {self._buckets[outcome, bound_s]}'
                for bound_s in BUCKETS_S
            ]
            lines += [
                f'{_NAME}_bucket{{{label},le="+Inf"}} {self._n[outcome]}',
                f"{_NAME}_sum{{{label}}} {self._sum_s[outcome]:.6f}",
                f"{_NAME}_count{{{label}}} {self._n[outcome]}",
            ]
        return "\n".join(lines) + "\n"
