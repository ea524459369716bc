"""The lab's control groups: one per node in every hierarchy, removed again when it is over."""

import os
import signal
from pathlib import Path

from e2e.lab.commands import POLL_INTERVAL_S, LabError, wait_until

ROOT = Path("/sys/fs/cgroup")
EMPTY_TIMEOUT_S = 10.0


def is_unified(root: Path = ROOT) -> bool:
    """Whether the host has cgroup v2 alone."""
    return (root / "cgroup.controllers").exists()


def hierarchies(root: Path = ROOT) -> list[Path]:
    """Every hierarchy; beside those of v1 there may be one of v2, without controllers."""
    if is_unified(root):
        return [root]
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.is_symlink())


def create(name: str, root: Path = ROOT) -> None:
    """Make a node's groups."""
    if is_unified(root):
        controllers = (root / "cgroup.controllers").read_text(encoding="ascii").split()
        wanted = " ".join(f"+{controller}" for controller in controllers)
        (root / "cgroup.subtree_control").write_text(wanted, encoding="ascii")
    for hierarchy in hierarchies(root):
        group = hierarchy / name
        group.mkdir(exist_ok=True)
        for file in ("cpuset.cpus", "cpuset.mems"):
            if not is_unified(root) and (hierarchy / file).exists():  # v1: a new group has none
                (group / file).write_text((hierarchy / file).read_text(encoding="ascii"), "ascii")


def delete(prefix: str, root: Path = ROOT) -> None:
    """Kill what is left in groups whose name starts so, and remove them."""
    for hierarchy in hierarchies(root):
        for group in sorted(hierarchy.glob(f"{prefix}*")):
            if group.is_dir():
                _delete(group)


def _delete(group: Path) -> None:
    wait_until(lambda: not _kill_members(group), f"{group} to be empty", timeout_s=EMPTY_TIMEOUT_S)
    groups = sorted(_groups(group), key=lambda path: len(path.parts), reverse=True)
    try:
        wait_until(
            lambda: _remove(groups), f"{group} to go", timeout_s=EMPTY_TIMEOUT_S + POLL_INTERVAL_S
        )
    except LabError as error:
        raise LabError(f"cannot remove the control group {group}: something is in it") from error


def _groups(group: Path) -> list[Path]:
    return [group, *(path for path in group.rglob("*") if path.is_dir())]


def _kill_members(group: Path) -> bool:
    pids = [
        int(pid)
        for directory in _groups(group)
        for pid in (directory / "cgroup.procs").read_text(encoding="ascii").split()
    ]
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return bool(pids)


def _remove(groups: list[Path]) -> bool:
    """Remove them, deepest first; whether all are gone (the kernel lets go a little late)."""
    for group in groups:
        try:
            group.rmdir()
        except FileNotFoundError:
            continue
        except OSError:
            return False
    return True
