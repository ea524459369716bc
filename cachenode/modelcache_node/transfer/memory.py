"""How much memory this process may use: its cgroup's limit, version 1 or 2."""

from pathlib import Path

#: Larger figures mean "no limit" (version 1 writes 2^63 less a page).
_UNLIMITED_BYTES = 1 << 60


def memory_limit_bytes(root: Path = Path("/")) -> int | None:
    """The tightest limit of this process's memory cgroup and those above it; None without one.

    Args:
        root: Where ``proc`` and ``sys`` are.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    found: list[int] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            found += _limits_up(root / "sys/fs/cgroup", path, "memory.max")
        elif "memory" in controllers.split(","):
            found += _limits_up(root / "sys/fs/cgroup/memory", path, "memory.limit_in_bytes")
    return min(found, default=None)


def _limits_up(mount: Path, path: str, name: str) -> list[int]:
    """Limits from a cgroup up to its mount.

    In a container the path may name a place outside what is mounted: only the mount is left.
    """
    inner = mount / path.lstrip("/")
    folders = [inner, *inner.parents]
    limits = []
    for folder in folders[: folders.index(mount) + 1]:
        try:
            text = (folder / name).read_text().strip()
        except OSError:
            continue
        if text.isdigit() and int(text) < _UNLIMITED_BYTES:
            limits.append(int(text))
    return limits
