"""What a process and its descendants use, read from /proc."""

import os
from pathlib import Path

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def tree_of(pid: int) -> list[int]:
    """The process and all its descendants that live now."""
    found = [pid]
    for parent in found:
        found += _children_of(parent)
    return found


def rss_bytes(pids: list[int]) -> int:
    """Resident memory, added up; pages that two of them share count twice."""
    return sum(_resident_bytes(pid) for pid in pids)


def cpu_seconds(pids: list[int]) -> float:
    """User and system time, with that of children already reaped."""
    return sum(_cpu_ticks(pid) for pid in pids) / _TICKS_PER_S


def _children_of(pid: int) -> list[int]:
    text = ""
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        text += _read(task)
    return [int(child) for child in text.split()]


def _resident_bytes(pid: int) -> int:
    fields = _read(Path(f"/proc/{pid}/statm")).split()
    return int(fields[1]) * _PAGE_BYTES if fields else 0


def _cpu_ticks(pid: int) -> int:
    fields = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return sum(int(ticks) for ticks in fields[11:15])  # utime, stime, cutime, cstime


def _read(path: Path) -> str:
    """Nothing of a process that ended meanwhile."""
    try:
        return path.read_text()
    except OSError:
        return ""
