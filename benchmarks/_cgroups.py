"""A memory limit around a program: a control group, version 1 or 2, made and removed as root."""

import os
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
#: The kernel lets go of a group a little after its last process.
_REMOVAL_S = 10.0


class MemoryGroup:
    """One group with a limit."""

    def __init__(self, path: Path, *, is_unified: bool) -> None:
        self._path = path
        self._is_unified = is_unified

    def command(self, command: Sequence[str]) -> list[str]:
        """The command, run inside from its first instruction on."""
        return ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(self._path), *command]

    @property
    def n_oom_kills(self) -> int:
        """Processes that the kernel killed for memory in it."""
        name = "memory.events" if self._is_unified else "memory.oom_control"
        for line in (self._path / name).read_text().splitlines():
            key, _, value = line.partition(" ")
            if key == "oom_kill":
                return int(value)
        return 0


def can_limit_memory() -> bool:
    """Whether this user may make groups, and the memory controller is there."""
    base = _memory_base()
    return base is not None and os.access(base, os.W_OK)


@contextmanager
def memory_limited(limit_bytes: int) -> Iterator[MemoryGroup]:
    """A group that may use so much memory, page cache included, and no swap."""
    base = _memory_base()
    assert base is not None
    is_unified = base == _ROOT
    if is_unified:
        (base / "cgroup.subtree_control").write_text("+memory")
    path = base / f"modelcache-bench-{secrets.token_hex(4)}"
    path.mkdir()
    try:
        if is_unified:
            (path / "memory.max").write_text(str(limit_bytes))
            _write_if_there(path / "memory.swap.max", "0")
        else:
            (path / "memory.limit_in_bytes").write_text(str(limit_bytes))
            _write_if_there(path / "memory.memsw.limit_in_bytes", str(limit_bytes))
        yield MemoryGroup(path, is_unified=is_unified)
    finally:
        _remove(path)


def _memory_base() -> Path | None:
    if (_ROOT / "cgroup.controllers").exists():
        controllers = (_ROOT / "cgroup.controllers").read_text().split()
        return _ROOT if "memory" in controllers else None
    memory = _ROOT / "memory"
    return memory if (memory / "cgroup.procs").exists() else None


def _write_if_there(path: Path, text: str) -> None:
    if path.exists():
        path.write_text(text)


def _remove(path: Path) -> None:
    deadline = time.monotonic() + _REMOVAL_S
    while True:
        try:
            path.rmdir()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return
