"""Servers of every kind, started with the first test of their kind; and a table at the end."""

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack

import pytest

from modelcache_node.transfer.limits import MoverLimits
from modelcache_node.transfer.movers import Movers
from support.origins.harness import Harness
from support.origins.kinds import STORES, Stores
from support.ranges import no_jitter

_TABLE: dict[tuple[str, str], Counter[str]] = {}


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    with ExitStack() as stack:
        yield Stores(stack, tmp_path_factory)


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, stores: Stores) -> Harness:
    return stores.get(request.param)


@pytest.fixture
async def movers() -> AsyncIterator[Movers]:
    limits = MoverLimits(connections=4)
    async with Movers(count=1, limits=limits, uniform=no_jitter) as started:
        yield started


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Count what the contract's tests came to, by kind and case."""
    path, _, name = report.nodeid.partition("::test_origin_")
    if not path.endswith("test_contract.py") or not name:
        return
    if report.when == "call" or report.skipped:
        case, _, parameters = name.rstrip("]").partition("[")
        kind, _, detail = parameters.partition("-")
        _TABLE.setdefault((f"{case} {detail}".strip(), kind), Counter())[report.outcome] += 1


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _TABLE:
        return
    cases = list(dict.fromkeys(case for case, _ in _TABLE))
    terminalreporter.section("origins × cases (passed/run)")
    width = max(map(len, cases)) + 2
    terminalreporter.write_line(" " * width + "".join(f"{kind:>8}" for kind in STORES))
    for case in cases:
        counts = [_TABLE.get((case, kind), Counter()) for kind in STORES]
        cells = [f"{one['passed']}/{sum(one.values())}" if one else "-" for one in counts]
        line = f"{case.replace('_', ' '):<{width}}" + "".join(f"{cell:>8}" for cell in cells)
        terminalreporter.write_line(line)
    total = sum(_TABLE.values(), Counter())
    terminalreporter.write_line(f"{total['passed']} of {sum(total.values())} passed")
