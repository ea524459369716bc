"""How long each decoder was fuzzed and over how many inputs, at the end of the run."""

import re
import time
from collections.abc import Callable, Iterator

import pytest

_RUNS: dict[str, tuple[int, float]] = {}


class Counter:
    """Counts inputs of one decoder."""

    def __init__(self) -> None:
        self.n_inputs = 0

    def __call__(self) -> None:
        self.n_inputs += 1


@pytest.fixture
def count(request: pytest.FixtureRequest) -> Iterator[Callable[[], None]]:
    counter = Counter()
    began_at = time.monotonic()
    yield counter
    name = re.split("_(?:is|are)_fuzzed", request.node.name.removeprefix("test_"))[0]
    _RUNS[name] = counter.n_inputs, time.monotonic() - began_at


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _RUNS:
        return
    terminalreporter.section("fuzzed decoders")
    for name, (n_inputs, seconds) in _RUNS.items():
        line = f"{name.replace('_', ' '):<24} {n_inputs:>6} inputs {seconds:>6.1f} s"
        terminalreporter.write_line(line)
