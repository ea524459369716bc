"""Contenders take turns, so that a machine that is busy for a while is so for all of them."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from _flags import say

T = TypeVar("T")


def alternate(
    contenders: Mapping[str, Callable[[], T]], rounds: int, *, until: float | None = None
) -> dict[str, list[T]]:
    """Run each contender once per round, in an order that rotates; results by contender.

    Args:
        contenders: What runs, by name.
        rounds: How many, but for
        until: a monotonic time after which no other round begins; one is run in any case.
    """
    names = list(contenders)
    results: dict[str, list[T]] = {name: [] for name in names}
    for number in range(rounds):
        say(f"  round {number + 1} of {rounds}")
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            results[name].append(contenders[name]())
        if until is not None and time.monotonic() >= until:
            break
    return results


def median_of(results: Sequence[T], figure: Callable[[T], float]) -> float:
    return statistics.median(figure(one) for one in results)


def ratio_of(ours: Sequence[T], theirs: Sequence[T], figure: Callable[[T], float]) -> float:
    """The median of the rounds' ratios: a round's runs share the machine's mood."""
    return statistics.median(
        figure(one) / figure(other) for one, other in zip(ours, theirs, strict=True)
    )


def best_of(settings: Mapping[str, Callable[[], T]], score: Callable[[T], float]) -> str:
    """The setting with the highest score in one run each."""
    scores = {name: score(run()) for name, run in settings.items()}
    for name, found in scores.items():
        say(f"  {name}: {found:.3g}")
    return max(scores, key=scores.__getitem__)
