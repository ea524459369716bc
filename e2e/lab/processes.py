"""Starts processes that outlive the command, and stops exactly those again.

Each is recorded as pid and start time: a pid that the kernel has given to somebody else since
does not match its record, and is left alone.
"""

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from e2e.lab.commands import LabError, wait_until

STOP_TIMEOUT_S = 10.0  # then SIGKILL; arbitrary, nothing here needs that long
START_TIME_FIELD = 19  # of /proc/PID/stat after the command's name: field 22 of proc(5)


@dataclass(frozen=True)
class Record:
    """One process that was started: enough to recognise it, and to start it again."""

    pid: int
    start_ticks: int
    argv: tuple[str, ...]
    log: str


def start_ticks(pid: int, proc: Path = Path("/proc")) -> int | None:
    """When a process was started, in clock ticks since boot; None where there is no such one."""
    try:
        stat = (proc / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat[stat.rindex(")") + 2 :].split()
    return None if fields[0] in {"Z", "X"} else int(fields[START_TIME_FIELD])


def is_running(record: Record, proc: Path = Path("/proc")) -> bool:
    """Whether the recorded process is still that process."""
    return start_ticks(record.pid, proc) == record.start_ticks


class Processes:
    """The recorded processes of one lab, by name."""

    def __init__(self, records: Path, logs: Path) -> None:
        self._records = records
        self._logs = logs

    def start(self, name: str, argv: Sequence[str | Path]) -> Record:
        """Start a process of its own session, its output appended to ``<logs>/<name>.log``.

        Raises:
            LabError: One of that name is running already.
        """
        known = self.find(name)
        if known is not None and is_running(known):
            raise LabError(f"{name} is running already, as process {known.pid}")
        log = self._logs / f"{name}.log"
        words = [str(word) for word in argv]
        with log.open("ab") as out:
            process = subprocess.Popen(  # the record, not this object, is its owner
                words,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        record = Record(process.pid, start_ticks(process.pid) or 0, tuple(words), str(log))
        process.returncode = 0  # keeps the interpreter from warning about a child it must not reap
        self._write(name, record)
        return record

    def restart(self, name: str) -> Record:
        """Start a stopped process as it was started before."""
        return self.start(name, self.record(name).argv)

    def stop(self, name: str, *, kill: bool = False) -> None:
        """Stop a process, with SIGKILL at once or after a grace; keep its record for a restart."""
        record = self.find(name)
        if record is None or not is_running(record):
            return
        os.kill(record.pid, signal.SIGKILL if kill else signal.SIGTERM)
        try:
            wait_until(lambda: not alive(record), f"{name} to end", timeout_s=STOP_TIMEOUT_S)
        except LabError:
            os.kill(record.pid, signal.SIGKILL)
            wait_until(lambda: not alive(record), f"{name} to die", timeout_s=STOP_TIMEOUT_S)

    def names(self) -> list[str]:
        """All that were ever started in this lab."""
        return sorted(path.stem for path in self._records.glob("*.json"))

    def find(self, name: str) -> Record | None:
        """The record of a process, running or not."""
        try:
            fields = json.loads((self._records / f"{name}.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return Record(fields["pid"], fields["start_ticks"], tuple(fields["argv"]), fields["log"])

    def record(self, name: str) -> Record:
        """As `find`, for what must be there.

        Raises:
            LabError: Nothing of that name was ever started here.
        """
        found = self.find(name)
        if found is None:
            raise LabError(f"this lab never started {name}")
        return found

    def is_running(self, name: str) -> bool:
        found = self.find(name)
        return found is not None and is_running(found)

    def _write(self, name: str, record: Record) -> None:
        self._records.mkdir(parents=True, exist_ok=True)
        path = self._records / f"{name}.json"
        path.with_suffix(".tmp").write_text(json.dumps(asdict(record)), encoding="utf-8")
        path.with_suffix(".tmp").replace(path)


def alive(record: Record) -> bool:
    """Whether it runs, after collecting it if it is a dead child of this very process."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(record.pid, os.WNOHANG)
    return is_running(record)
