"""Run a program and say what it took: time, CPU of all its processes, memory at its peak."""

import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from _processes import rss_bytes, tree_of

#: Between looks at memory: often enough for runs of a second; a look costs a fraction of a ms.
#: (The kernel's own peak, ru_maxrss, would count our memory as the child's: it spans the fork.)
SAMPLE_S = 0.02


class FailedRunError(Exception):
    """A contender did not do its work; its last words are the text."""


@dataclass(frozen=True)
class Usage:
    """What one run took.

    Attributes:
        cpu_seconds: User and system time of the process and its reaped descendants.
        peak_rss_bytes: Of all its processes together, as often as it was looked at.
        n_bytes: What it moved.
        output: Its standard output.
    """

    seconds: float
    cpu_seconds: float
    peak_rss_bytes: int
    n_bytes: int
    output: str

    @property
    def gb_per_s(self) -> float:
        return self.n_bytes / self.seconds / 1e9

    @property
    def cpu_seconds_per_gb(self) -> float:
        return self.cpu_seconds / (self.n_bytes / 1e9)

    @property
    def peak_rss_mib(self) -> float:
        return self.peak_rss_bytes / 2**20


def run_metered(
    command: Sequence[str],
    n_bytes: int,
    *,
    environment: Mapping[str, str] | None = None,
    timeout_s: float = 600.0,
) -> Usage:
    """Run `command`, which moves `n_bytes`, to its end.

    Args:
        command: Program and arguments.
        n_bytes: What it is known to move.
        environment: Added to ours.
        timeout_s: Then it is killed.

    Raises:
        FailedRunError: it exited with another code than 0, or was killed.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        began_at = time.monotonic()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env={**os.environ, **(environment or {})},
        )
        with _PeakRss(process.pid) as peak:
            killer = threading.Timer(timeout_s, process.kill)
            killer.start()
            _, status, used = os.wait4(process.pid, 0)
            seconds = time.monotonic() - began_at
            killer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        if process.returncode != 0:
            last_words = err.read().decode(errors="replace")[-1000:]
            raise FailedRunError(f"{command[0]} ended with {process.returncode}: {last_words}")
        return Usage(
            seconds,
            used.ru_utime + used.ru_stime,
            peak.n_bytes,
            n_bytes,
            out.read().decode(errors="replace"),
        )


class _PeakRss:
    """Looks at a process tree's memory, in a thread, as long as it is entered."""

    def __init__(self, pid: int) -> None:
        self.n_bytes = 0
        self._pid = pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> "_PeakRss":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(SAMPLE_S):
            self.n_bytes = max(self.n_bytes, rss_bytes(tree_of(self._pid)))
