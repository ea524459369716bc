"""What a run measured: rows for people, printed when it ends."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import quantiles


@dataclass
class Figures:
    """Rows in the order in which scenarios gave them."""

    rows: list[tuple[str, str, str]] = field(default_factory=list)

    def add(self, what: str, value: str, bar: str = "") -> None:
        self.rows.append((what, value, bar))

    def table(self) -> list[str]:
        """The rows as lines of a Markdown table."""
        head = [("what", "measured", "bar"), ("---", "---", "---")]
        return [f"| {what} | {value} | {bar} |" for what, value, bar in (*head, *self.rows)]


def percentile(samples: Sequence[float], percent: int) -> float:
    """The sample below which so many percent lie, between the two nearest where none does."""
    return quantiles(samples, n=100, method="inclusive")[percent - 1]


def seconds(samples: Sequence[float]) -> str:
    """Median and 95th percentile, for a table."""
    return f"p50 {percentile(samples, 50):.2f} s, p95 {percentile(samples, 95):.2f} s"


def verdict(bar: str, *, is_met: bool) -> str:
    """A bar with what came of it, for a table."""
    return f"{bar}: {'met' if is_met else 'missed'}"
