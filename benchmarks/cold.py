"""Cold pull: one node, one object, from nginx on the same machine, over HTTP and TLS.

`modelcache pull` as it comes, its checksums on, against s5cmd and obstore at the best of a grid of
settings, all into memory, so that no disk sets the pace. And a pull of twice the size to a disk,
durable, with memory for an eighth of it. Client and server share the cores: ratios travel to other
machines, GB/s do not. TMPDIR says on which disk.
"""

import math
import sys
import time
from dataclasses import dataclass
from functools import partial

from _ceiling import ceiling_gb_per_s, disk_gb_per_s
from _cgroups import can_limit_memory, memory_limited
from _cold_origins import KINDS, measure_origin
from _flags import Flags, parse_flags, say
from _installing import MissingToolError
from _metering import Usage
from _pullers import (
    OBSTORE_GRID,
    OBSTORE_QUICK_GRID,
    S5CMD_GRID,
    S5CMD_QUICK_GRID,
    Pull,
    modelcache,
    modelcache_command,
)
from _reports import Bar, Report, table
from _rounds import alternate, best_of, median_of, ratio_of
from _scratch import disk_directory, make_file, memory_directory, remove_tree
from _servers import BUCKET, nginx_store
from _warm_memory import warm_memory

OBJECT = "model.safetensors"
#: Memory beside the files: buffers of clients, servers and the kernel. Arbitrary.
SPARE_BYTES = 1 << 30
USAGE_HEAD = ("GB/s", "client CPU s/GB", "peak RSS MiB")
GRIDS = {"s5cmd": S5CMD_GRID, "obstore": OBSTORE_GRID}
QUICK_GRIDS = {"s5cmd": S5CMD_QUICK_GRID, "obstore": OBSTORE_QUICK_GRID}
BARS = [
    Bar("http_speed_vs_s5cmd", at_least=2.0),
    Bar("http_speed_vs_obstore", at_least=1.25),
    Bar("https_speed_vs_s5cmd", at_least=1.2),
    Bar("https_cpu_vs_s5cmd", at_most=0.85),
    Bar("peak_rss_mib", at_most=256.0),
]
MEMORY_BARS = [Bar("limited_oom_kills", at_most=0), Bar("limited_speed_vs_unlimited", at_least=0.9)]


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        until_s: By scheme, seconds after the start; then no other of its rounds begins.
    """

    n_bytes: int
    rounds: int
    until_s: dict[str, float]
    memory_rounds: int
    is_quick: bool

    @property
    def limit_bytes(self) -> int:
        """An eighth of what is pulled under it."""
        return self.n_bytes // 4


FULL = Plan(4 << 30, 5, {"http": math.inf, "https": math.inf}, memory_rounds=3, is_quick=False)
QUICK = Plan(3 << 29, 3, {"http": 16.0, "https": 34.0}, memory_rounds=1, is_quick=True)


def main() -> None:
    flags = parse_flags(__doc__.partition("\n")[0], origins=KINDS)
    plan = QUICK if flags.quick else FULL
    try:
        if flags.origin:
            measure_origin(flags.origin, plan.n_bytes, plan.rounds).finish(flags)
        else:
            _measure(flags).finish(flags)
    except MissingToolError as e:
        sys.exit(str(e))


def _measure(flags: Flags) -> Report:
    plan = QUICK if flags.quick else FULL
    report = Report("cold", bars=list(BARS))
    began_at = time.monotonic()
    with (
        warm_memory(2 * plan.n_bytes + SPARE_BYTES),
        memory_directory(2 * plan.n_bytes) as memory,
        disk_directory() as disk,
    ):
        bucket, state = memory / BUCKET, memory / "server"
        source = make_file(bucket / OBJECT, plan.n_bytes)
        disk_speed = report.add("disk_gb_per_s", disk_gb_per_s(disk, plan.n_bytes // 2))
        state.mkdir()
        with nginx_store(bucket, state) as store:
            for scheme, until_s in plan.until_s.items():
                pull = Pull(store, scheme, OBJECT, plan.n_bytes, memory / "to")
                _compare(plan, pull, report, began_at + until_s)
        report.tables.append(f"The disk alone, until a file is durable: {disk_speed:.2f} GB/s.")
        if can_limit_memory():
            report.bars += MEMORY_BARS
            (bucket / f"twin-{OBJECT}").hardlink_to(source)
            remove_tree(state)
            state.mkdir()
            with nginx_store(bucket, state) as store:
                _limit_memory(
                    plan, Pull(store, "http", OBJECT, 2 * plan.n_bytes, disk / "to"), report
                )
        else:
            say("not root, or no memory controller: the pull under a memory limit is left out")
    return report


def _compare(plan: Plan, pull: Pull, report: Report, until: float) -> None:
    """Ours against the rivals over one scheme."""
    say(f"{pull.scheme}: the server's own ceiling, and the rivals' best settings")
    ceiling = ceiling_gb_per_s(pull.store.object_url(pull.scheme, OBJECT), pull.n_bytes)
    report.add(f"{pull.scheme}_server_ceiling_gb_per_s", ceiling)
    contenders = {"modelcache": partial(modelcache, pull)}
    settings = {"modelcache": "as it comes, checksums on"}
    for name, grid in (QUICK_GRIDS if plan.is_quick else GRIDS).items():
        runs = {str(one): partial(one, pull) for one in grid}
        settings[name] = best_of(runs, _speed)
        contenders[name] = runs[settings[name]]
    found = alternate(contenders, plan.rounds, until=until)
    remove_tree(pull.target)
    _report_comparison(report, pull.scheme, settings, found)
    report.tables[-1] += f"\n\nThe server alone, its bytes thrown away: {ceiling:.2f} GB/s."


def _report_comparison(
    report: Report, scheme: str, settings: dict[str, str], found: dict[str, list[Usage]]
) -> None:
    ours = found["modelcache"]
    rows = []
    for name, usages in found.items():
        speed = report.add(f"{scheme}_speed_vs_{name}", ratio_of(ours, usages, _speed))
        cpu = report.add(f"{scheme}_cpu_vs_{name}", ratio_of(ours, usages, _cpu))
        figures = _figures(report, f"{scheme}_{name}", usages)
        rows.append((name, settings[name], *figures, f"{speed:.2f}", f"{cpu:.2f}"))
    rss = report.figures.get("peak_rss_mib", 0.0)
    report.add("peak_rss_mib", max(rss, *(usage.peak_rss_mib for usage in ours)))
    head = (scheme, "settings", *USAGE_HEAD, "we are × as fast", "with × its CPU")
    report.tables.append(table(head, rows))


def _figures(report: Report, prefix: str, usages: list[Usage]) -> tuple[str, str, str]:
    """The medians of one contender, for `USAGE_HEAD`."""
    speed = report.add(f"{prefix}_gb_per_s", median_of(usages, _speed))
    cpu = report.add(f"{prefix}_cpu_s_per_gb", median_of(usages, _cpu))
    rss = report.add(f"{prefix}_peak_rss_mib", median_of(usages, lambda usage: usage.peak_rss_mib))
    return f"{speed:.2f}", f"{cpu:.2f}", f"{rss:.0f}"


def _limit_memory(plan: Plan, pull: Pull, report: Report) -> None:
    """Twice the object, with and without a limit of an eighth of that, page cache included."""
    pulled_mib, limit_mib = pull.n_bytes >> 20, plan.limit_bytes >> 20
    say(f"a pull of {pulled_mib} MiB with {limit_mib} MiB of memory")
    command = modelcache_command(pull)
    with memory_limited(plan.limit_bytes) as group:
        found = alternate(
            {
                "unlimited": partial(pull.run, command),
                "limited": partial(pull.run, group.command(command)),
            },
            plan.memory_rounds,
        )
        report.add("limited_oom_kills", group.n_oom_kills)
    report.add("limited_speed_vs_unlimited", ratio_of(found["limited"], found["unlimited"], _speed))
    rows = [(name, *_figures(report, name, usages)) for name, usages in found.items()]
    report.tables.append(table((f"{pulled_mib} MiB, limit {limit_mib} MiB", *USAGE_HEAD), rows))


def _speed(usage: Usage) -> float:
    return usage.gb_per_s


def _cpu(usage: Usage) -> float:
    return usage.cpu_seconds_per_gb


if __name__ == "__main__":
    main()
