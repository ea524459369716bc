"""Mounts: reading a complete model, and reading while it comes. Needs root and Linux 6.9.

One file through our bind mount, our lazy mounts, rclone and s3fs, as ratios to reading it where it
lies: warm and dropped page cache, one to eight readers, read, mmap and O_DIRECT, in order and in
random pieces, and a safetensors load of all tensors. Then a lazy mount of a model that comes from
an origin of limited rate: how long a reader in order takes beside the download, and how soon the
last file's first byte is there.
"""

import itertools
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from _flags import Flags, parse_flags, say
from _installing import MissingToolError
from _mount_model import write_model
from _mounts import every_mount
from _reading_along import first_byte, read_along
from _reports import Bar, Report, table
from _rounds import alternate, ratio_of
from _scratch import disk_directory

from support.mount_namespace import unshare_mounts

MODEL = "model.safetensors"
OURS = ("bind", "lazy", "lazy, served")
BARS = [
    Bar("bind_vs_native", at_least=0.98),
    Bar("lazy_vs_native", at_least=0.95),
    Bar("served_vs_rclone", at_least=1.5),
    Bar("read_along_vs_download", at_most=1.05),
    Bar("first_byte_vs_chunk", at_most=3.0),
]
_LOAD = """
import sys, time
from safetensors import safe_open
begun = time.monotonic()
n_bytes = 0
with safe_open(sys.argv[1], framework="np") as file:
    for name in file.keys():
        n_bytes += file.get_tensor(name).nbytes
print(n_bytes / (time.monotonic() - begun))
"""


@dataclass(frozen=True)
class Workload:
    """One way to read; `how` "load" is safetensors'."""

    how: str
    pattern: str
    readers: int
    is_cold: bool

    def __str__(self) -> str:
        cache = "dropped" if self.is_cold else "warm"
        if self.how == "load":
            return f"safetensors load, {cache}"
        return f"{self.how}, {self.pattern}, {self.readers} readers, {cache}"


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        passes: Over a file in the page cache, in one run: else it is over before it is measured.
        rate: The origin's, in bytes per second.
    """

    n_bytes: int
    rounds: int
    passes: int
    readers: tuple[int, ...]
    hows: tuple[str, ...]
    along_bytes: int
    last_bytes: int
    rate: int


FULL = Plan(1 << 29, 3, 1, (1, 4, 8), ("read", "mmap", "direct"), 1 << 30, 4 << 30, 100 << 20)
QUICK = Plan(128 << 20, 2, 4, (4,), ("read", "mmap"), 128 << 20, 512 << 20, 50 << 20)


def main() -> None:
    flags = parse_flags(__doc__.partition("\n")[0])
    if os.geteuid() != 0:
        sys.exit("mounting needs root")
    unshare_mounts()
    try:
        _measure(flags).finish(flags)
    except MissingToolError as e:
        sys.exit(str(e))


def _measure(flags: Flags) -> Report:
    plan = QUICK if flags.quick else FULL
    report = Report("mount", bars=BARS)
    with disk_directory() as scratch:
        bucket = scratch / "models"
        bucket.mkdir()
        write_model(bucket / MODEL, plan.n_bytes)
        (scratch / "state").mkdir()
        with every_mount(bucket, scratch / "state", with_rivals=True) as mounts:
            _compare(report, plan, bucket, mounts)
        (bucket / MODEL).unlink()
    with disk_directory() as scratch:
        _along(report, plan, scratch)
    return report


def workloads(plan: Plan) -> Iterator[Workload]:
    for is_cold in (False, True):
        for how, pattern, n in itertools.product(plan.hows, ("sequential", "random"), plan.readers):
            if not (how == "direct" and is_cold):  # it knows no cache
                yield Workload(how, pattern, n, is_cold)
        yield Workload("load", "sequential", 1, is_cold)


def _compare(report: Report, plan: Plan, bucket: Path, mounts: dict[str, Path]) -> None:
    for path in mounts.values():
        _run(Workload("read", "sequential", 1, is_cold=False), path, bucket, 1)
    ratios: dict[str, list[float]] = {name: [] for name in mounts if name != "native"}
    versus_rclone: list[float] = []
    rows = []
    for workload in workloads(plan):
        say(str(workload))
        runs = alternate(
            {
                name: partial(_run, workload, path, bucket, 1 if workload.is_cold else plan.passes)
                for name, path in mounts.items()
            },
            plan.rounds,
        )
        native = statistics.median(runs["native"]) / 1e9
        found = {name: ratio_of(runs[name], runs["native"], float) for name in ratios}
        for name, ratio in found.items():
            ratios[name].append(ratio)
        versus_rclone.append(ratio_of(runs["lazy, served"], runs["rclone"], float))
        rows.append((workload, f"{native:.2f}", *(f"{found[name]:.2f}" for name in ratios)))
    report.tables.append(table(("workload", "native GB/s", *ratios), rows))
    for name, figure in (("bind", "bind"), ("lazy", "lazy"), ("lazy, served", "served")):
        report.add(f"{figure}_vs_native", statistics.median(ratios[name]))
        report.add(f"{figure}_vs_native_least", min(ratios[name]))
    report.add("served_vs_rclone", statistics.median(versus_rclone))
    for rival in ("rclone", "s3fs"):
        report.add(f"{rival}_vs_native", statistics.median(ratios[rival]))


def _run(workload: Workload, directory: Path, bucket: Path, passes: int) -> float:
    """Bytes per second."""
    path = directory / MODEL
    if workload.is_cold:
        for one in (path, bucket / MODEL):
            fd = os.open(one, os.O_RDONLY)
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)
    if workload.how == "load":
        command = [sys.executable, "-c", _LOAD, str(path)]
    else:
        reader = Path(__file__).with_name("_mount_reader.py")
        shape = (workload.how, workload.pattern, str(workload.readers), str(passes))
        command = [sys.executable, "-I", "-S", str(reader), str(path), *shape]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


def _along(report: Report, plan: Plan, scratch: Path) -> None:
    say("reading while the model comes")
    along = read_along(scratch, plan.along_bytes, plan.rate)
    report.add("download_s", along.download_s)
    report.add("read_along_s", along.read_s)
    report.add("read_along_vs_download", along.read_s / along.download_s)
    say("the first byte of the last file")
    first = first_byte(scratch, plan.last_bytes, plan.rate)
    report.add("one_chunk_s", first.chunk_s)
    report.add("first_byte_s", first.first_byte_s)
    report.add("first_byte_vs_chunk", first.first_byte_s / first.chunk_s)
    report.tables.append(
        table(
            ("origin of limited rate", "s"),
            [
                ("download, by itself", f"{along.download_s:.2f}"),
                ("a reader in order, from the mount on", f"{along.read_s:.2f}"),
                ("one chunk from the idle origin", f"{first.chunk_s:.3f}"),
                ("first byte of the last file, cold", f"{first.first_byte_s:.3f}"),
            ],
        )
    )


if __name__ == "__main__":
    main()
