"""Simulated swarms: the agents' own policy on up to 1,000 nodes, in virtual time.

Figures are ratios to what no system can beat (T*), and so do not depend on this machine: equal
seeds give equal results. What they cannot tell, TCP, disks and CPU, `swarm.py` measures. The full
run moves ten million chunks and takes the better part of an hour.
"""

import resource
import statistics
import sys
import time
from pathlib import Path

from _flags import Flags, parse_flags, say
from _reports import Bar, Report, table

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from support.swarm_scenarios import Result, Scenario
from support.swarm_simulator import Simulator

SMALL_CHUNKS = 256
SEEDS = range(5)
QUICK_SEEDS = range(2)
#: A node's rate, chunks of 16 MiB per second: 25 Gbit/s.
RATE = 186.0
HEAD = ("scenario", "nodes", "chunks", "T / T*", "origin / model", "messages per chunk", "CPU s")
SMALL = {
    "cold": {},
    "uplink_quarter": {"slow_up": {0: 0.25}},
    "killed": {"dies_at": {3: 0.3}},
    "late": {"joins_at": {3: 0.5}},
    "throttled": {"origin_requests_per_s": 22.0},
}


def main() -> None:
    flags = parse_flags(__doc__.partition("\n")[0])
    report = Report("swarm_sim")
    rows = _small(flags, report) + _large(flags, report)
    report.tables.append(table(HEAD, rows))
    report.finish(flags)


def _small(flags: Flags, report: Report) -> list[tuple[str, ...]]:
    rows = []
    for name, changes in SMALL.items():
        for n_nodes in (8, 16):
            say(f"{name}, {n_nodes} nodes")
            runs = [
                _run(Scenario(n_nodes, SMALL_CHUNKS, seed=seed, **changes))
                for seed in (QUICK_SEEDS if flags.quick else SEEDS)
            ]
            ratio = report.add(f"{name}_{n_nodes}_t", statistics.median(r.ratio for r, _ in runs))
            report.bars.append(Bar(f"{name}_{n_nodes}_t", at_most=1.2 if name == "cold" else 1.35))
            if name == "cold":
                origin = max(result.origin_fetches for result, _ in runs) / SMALL_CHUNKS
                report.add(f"cold_{n_nodes}_origin", origin)
                report.bars.append(Bar(f"cold_{n_nodes}_origin", at_most=1.05))
            rows.append(_row(name, n_nodes, SMALL_CHUNKS, ratio, runs))
    return rows


def _large(flags: Flags, report: Report) -> list[tuple[str, ...]]:
    """The same per node with 33 nodes as with 1,000?"""
    few, many, n_chunks = (33, 132, 500) if flags.quick else (33, 1000, 10_000)
    rows, messages, memory = [], {}, {}
    for n_nodes in (few, many):
        say(f"{n_nodes} nodes, {n_chunks} chunks")
        before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        run = result, _ = _run(Scenario(n_nodes, n_chunks, rate=RATE))
        peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib
        report.add(f"large_{n_nodes}_t", result.ratio)
        report.add(f"large_{n_nodes}_origin", result.origin_fetches / n_chunks)
        messages[n_nodes] = report.add(f"large_{n_nodes}_messages", result.messages_per_node)
        memory[n_nodes] = report.add(f"large_{n_nodes}_kib_per_node", peak_kib / n_nodes)
        rows.append(_row("large", n_nodes, n_chunks, result.ratio, [run]))
    report.add("messages_growth", messages[many] / messages[few])
    report.add("memory_growth", memory[many] / max(memory[few], 1.0))
    if not flags.quick:
        report.bars += [
            Bar(f"large_{many}_t", at_most=1.25),
            Bar(f"large_{many}_origin", at_most=1.05),
        ]
    report.bars.append(Bar("messages_growth", at_most=1.25))
    return rows


def _run(scenario: Scenario) -> tuple[Result, float]:
    begun_s = time.process_time()
    result = Simulator(scenario).run()
    if not result.ended or result.wrong_sends:
        sys.exit(f"{scenario}: did not end well: {result}")
    return result, time.process_time() - begun_s


def _row(
    name: str, n_nodes: int, n_chunks: int, ratio: float, runs: list[tuple[Result, float]]
) -> tuple[str, ...]:
    origin = statistics.median(result.origin_fetches / n_chunks for result, _ in runs)
    messages = statistics.median(result.messages_per_node / n_chunks for result, _ in runs)
    cpu_s = sum(seconds for _, seconds in runs)
    return (
        name,
        str(n_nodes),
        str(n_chunks),
        f"{ratio:.3f}",
        f"{origin:.3f}",
        f"{messages:.1f}",
        f"{cpu_s:.0f}",
    )


if __name__ == "__main__":
    main()
