"""What a benchmark found: figures under fixed names, tables of them, bars they must pass."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from _flags import Flags, say


@dataclass(frozen=True)
class Bar:
    """What a figure must be; one of the two bounds is given."""

    figure: str
    at_least: float | None = None
    at_most: float | None = None

    def is_passed_by(self, value: float) -> bool:
        if self.at_least is not None and value < self.at_least:
            return False
        return self.at_most is None or value <= self.at_most

    def __str__(self) -> str:
        return f"≥ {self.at_least:g}" if self.at_least is not None else f"≤ {self.at_most:g}"


@dataclass
class Report:
    """Collects what is found; `finish` ends the program with it.

    Attributes:
        figures: By name; the names are kept stable, since scripts compare runs by them.
        tables: Text for people, in the order it is to be read.
    """

    benchmark: str
    figures: dict[str, float] = field(default_factory=dict)
    tables: list[str] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)

    def add(self, name: str, value: float) -> float:
        """Keep a figure, to four significant digits."""
        self.figures[name] = float(f"{value:.4g}")
        return value

    def finish(self, flags: Flags) -> NoReturn:
        missed = [bar for bar in self.bars if not bar.is_passed_by(self.figures[bar.figure])]
        if self.bars:
            self.tables.append(_bar_table(self.bars, self.figures))
        text = "\n\n".join(self.tables)
        if flags.json:
            say(text)
            print(
                json.dumps(
                    {
                        "benchmark": self.benchmark,
                        "quick": flags.quick,
                        **self.figures,
                        "missed": [bar.figure for bar in missed],
                    }
                )
            )
        else:
            print(text)
        for bar in missed:
            say(f"below its bar: {bar.figure} is {self.figures[bar.figure]:g}, must be {bar}")
        sys.exit(1 if missed and flags.check else 0)


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Markdown, aligned: readable on a terminal, and fit for the documentation as it is."""
    lines = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    text = []
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        text.append(f"| {' | '.join(cells)} |")
    text.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(text)


def _bar_table(bars: Sequence[Bar], figures: dict[str, float]) -> str:
    return table(
        ("figure", "found", "bar", ""),
        [
            (
                bar.figure,
                f"{figures[bar.figure]:g}",
                str(bar),
                "ok" if bar.is_passed_by(figures[bar.figure]) else "MISSED",
            )
            for bar in bars
        ],
    )
