"""A swarm: agents on shaped links fetch one model from an origin with one node's rate.

Each agent has a network namespace with a link that is shaped at both ends; the origin's link has
the same rate. T* is the time that nothing can beat, from the goodput that one plain stream has on
these links: max(F/U, F/d, (N-1)F/Σu), for F bytes, the origin's rate U, a node's download rate d
and all uplinks Σu. Links are slow, so that the machine's cores are not the limit; how busy they
were stands beside each result. The model is files of one chunk each.
"""

import math
import statistics
import sys
from collections.abc import Mapping, Sequence

from _flags import Flags, parse_flags, say
from _installing import MissingToolError
from _netlab import network_lab
from _reports import Bar, Report, table
from _scratch import memory_directory
from _swarm_rivals import BITTORRENT_GRID, BITTORRENT_QUICK_GRID, S5CMD_GRID, Rival
from _swarm_runs import DIES_AT, JOINS_AT, SLOW_UPLINK, Bench, Outcome, Plan, Scenario

#: Sixteen nodes have links of half the rate, for two cores to have time for them all, and more
#: chunks: the start, in which nodes have little to pass on, is a tenth of the time with 256.
FULL = (
    Plan(256, 512 << 10, 2.5e6, (4, 8), 8, rounds=3),
    Plan(384, 512 << 10, 1.25e6, (16,), None, rounds=3),
)
QUICK = (Plan(64, 256 << 10, 5e6, (4,), None, rounds=1),)
#: A rival is stopped at so many times our own time: it is slower then, by at least as much.
PATIENCE = 1.25
#: The settings of rivals are chosen with this many nodes, with this much patience.
GRID_NODES = 4
GRID_PATIENCE = 5.0
TIME_BAR, VARIANT_BAR, BYTES_BAR, REQUESTS_BAR = 1.20, 1.35, 1.05, 1.1
HEAD = (
    "swarm", "T* s", "last node s", "T / T*", "origin bytes / model", "requests / chunks",
    "our CPU", "machine's CPU",
)  # fmt: skip


def main() -> None:
    flags = parse_flags(__doc__.partition("\n")[0])
    try:
        _measure(flags).finish(flags)
    except MissingToolError as e:
        sys.exit(str(e))


def _measure(flags: Flags) -> Report:
    report = Report("swarm")
    settings: dict[str, Rival] = {}
    for plan in QUICK if flags.quick else FULL:
        n_bytes = (max(plan.sizes) + 2) * plan.n_bytes
        with memory_directory(n_bytes) as directory, network_lab() as lab:
            bench = Bench(plan, lab, directory)
            at = f"_at_{plan.bytes_per_s / 1e6:g}"
            report.add(f"origin_mb_per_s{at}", bench.links.origin / 1e6)
            report.add(f"node_mb_per_s{at}", bench.links.node / 1e6)
            report.add(f"slow_uplink_mb_per_s{at}", bench.links.slow / 1e6)
            found = _swarms(bench, report)
            if plan.variant_size is not None:
                _variants(bench, report, plan.variant_size)
            settings = settings or _best_rivals(bench, found, is_quick=flags.quick)
            _rivals(bench, report, settings, found)
    return report


def _swarms(bench: Bench, report: Report) -> dict[int, float]:
    """Plain swarms; the median time of the last node, by size."""
    rows, found = [], {}
    for size in bench.plan.sizes:
        scenario = Scenario(f"{size} nodes", size)
        outcomes = _rounds(bench, scenario)
        rows.append(_row(bench, report, f"swarm_{size}", scenario, outcomes))
        found[size] = statistics.median(one.last_s for one in outcomes)
        if size >= 8:
            report.bars += [
                Bar(f"swarm_{size}_vs_ideal", at_most=TIME_BAR),
                Bar(f"swarm_{size}_origin_bytes_vs_model", at_most=BYTES_BAR),
                Bar(f"swarm_{size}_origin_requests_vs_chunks", at_most=REQUESTS_BAR),
            ]
    report.tables.append(table(HEAD, rows))
    return found


def _variants(bench: Bench, report: Report, size: int) -> None:
    variants = {
        "slow": Scenario(f"{size}, one uplink at {SLOW_UPLINK:.0%}", size, SLOW_UPLINK),
        "late": Scenario(f"{size}, one joins at {JOINS_AT:.0%} of T*", size, joins_at=JOINS_AT),
        "killed": Scenario(f"{size}, one killed at {DIES_AT:.0%} of T*", size, dies_at=DIES_AT),
        "throttled": Scenario(f"{size}, origin answers 429", size, is_throttled=True),
    }
    rows = []
    for name, scenario in variants.items():
        outcomes = _rounds(bench, scenario)
        rows.append(_row(bench, report, name, scenario, outcomes))
        report.bars.append(Bar(f"{name}_vs_ideal", at_most=VARIANT_BAR))
        if name == "late":
            ideal_s = max(
                bench.ideal_s(scenario),
                JOINS_AT * bench.ideal_s(scenario) + bench.plan.n_bytes / bench.links.node,
            )
            late_s = statistics.median(one.late_s for one in outcomes)
            ratio = report.add("late_node_vs_its_ideal", late_s / ideal_s)
            rows.append(
                ("that node itself", f"{ideal_s:.1f}", f"{late_s:.1f}", f"{ratio:.2f}", *" " * 4)
            )
            report.bars.append(Bar("late_node_vs_its_ideal", at_most=VARIANT_BAR))
        if name == "throttled":
            throttled = statistics.median(one.asked.throttled for one in outcomes)
            report.add("throttled_answers", throttled)
    report.tables.append(table(HEAD, rows))


def _rounds(bench: Bench, scenario: Scenario) -> list[Outcome]:
    say(scenario.name)
    outcomes = []
    for _ in range(bench.plan.rounds):
        outcomes.append(bench.run(scenario))
        say(f"  {outcomes[-1].last_s:.1f} s, T* {bench.ideal_s(scenario):.1f} s")
    return outcomes


def _row(
    bench: Bench, report: Report, name: str, scenario: Scenario, outcomes: Sequence[Outcome]
) -> tuple[str, ...]:
    plan, ideal_s = bench.plan, bench.ideal_s(scenario)
    last_s = statistics.median(one.last_s for one in outcomes)
    n_bytes = statistics.median(one.asked.n_bytes / plan.n_bytes for one in outcomes)
    requests = statistics.median(one.asked.data_requests / plan.n_files for one in outcomes)
    own_cpu = statistics.median(one.own_cpu for one in outcomes)
    machine_cpu = statistics.median(one.machine_cpu for one in outcomes)
    report.add(f"{name}_last_s", last_s)
    report.add(f"{name}_ideal_s", ideal_s)
    report.add(f"{name}_vs_ideal", last_s / ideal_s)
    report.add(f"{name}_origin_bytes_vs_model", n_bytes)
    report.add(f"{name}_origin_requests_vs_chunks", requests)
    report.add(f"{name}_own_cpu", own_cpu)
    report.add(f"{name}_machine_cpu", machine_cpu)
    row = (
        scenario.name,
        f"{ideal_s:.1f}",
        f"{last_s:.1f}",
        f"{last_s / ideal_s:.2f}",
        f"{n_bytes:.3f}",
        f"{requests:.2f}",
        f"{own_cpu:.0%}",
        f"{machine_cpu:.0%}",
    )
    say(f"  {' | '.join(row)}")  # a run takes more than an hour: nothing of it should be lost
    return row


def _best_rivals(bench: Bench, ours: dict[int, float], *, is_quick: bool) -> dict[str, Rival]:
    """By rival's name, the fastest of its settings with few nodes."""
    grids: dict[str, Sequence[Rival]] = {
        "s5cmd": S5CMD_GRID,
        "bittorrent": BITTORRENT_QUICK_GRID if is_quick else BITTORRENT_GRID,
    }
    found: dict[str, Rival] = {}
    for name, grid in grids.items():
        say(f"{name}: the best settings with {GRID_NODES} nodes")
        best_s = GRID_PATIENCE * ours[GRID_NODES]
        found[name] = grid[0]
        for setting in grid:
            seconds = bench.rival_s(setting, GRID_NODES, best_s)  # who takes longer is not the best
            say(f"  {setting}: {seconds:.1f} s")
            if seconds < best_s:
                found[name], best_s = setting, seconds
    return found


def _rivals(
    bench: Bench, report: Report, settings: Mapping[str, Rival], ours: dict[int, float]
) -> None:
    """Each rival at its best setting, against our median of the same run."""
    rows = []
    for name, setting in settings.items():
        for size in bench.plan.sizes:
            say(f"{name}: {size} nodes")
            patience_s = PATIENCE * ours[size]
            seconds = _median_s(bench, setting, size, patience_s)
            shown_s = min(seconds, patience_s)
            report.add(f"{name}_{size}_last_s", shown_s)
            ratio = report.add(f"{name}_{size}_times_ours", shown_s / ours[size])
            sign = "> " if math.isinf(seconds) else ""
            rows.append((name, setting, size, f"{sign}{shown_s:.1f}", f"{sign}{ratio:.2f}"))
            report.bars.append(Bar(f"{name}_{size}_times_ours", at_least=1.0))
    report.tables.append(table(("rival", "settings", "nodes", "last node s", "× ours"), rows))


def _median_s(bench: Bench, rival: Rival, size: int, patience_s: float) -> float:
    """The median of all rounds; of fewer where it is known before: infinity."""
    found: list[float] = []
    while len(found) < bench.plan.rounds:
        found.append(bench.rival_s(rival, size, patience_s))
        say(f"  {found[-1]:.1f} s")
        if sum(map(math.isinf, found)) > bench.plan.rounds / 2:
            return math.inf
    return statistics.median(found)


if __name__ == "__main__":
    main()
