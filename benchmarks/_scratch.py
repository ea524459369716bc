"""Where benchmarks put their files, and the files they move."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MEMORY = Path("/dev/shm")
_BLOCK_BYTES = 32 << 20


@contextmanager
def memory_directory(n_bytes: int) -> Iterator[Path]:
    """A directory in memory, so that no disk sets the pace; on the disk where memory is short.

    Args:
        n_bytes: What will be in it at most.
    """
    has_room = _MEMORY.is_dir() and min(_free_bytes(_MEMORY), _available_bytes()) > 1.2 * n_bytes
    with _directory(_MEMORY if has_room else Path(tempfile.gettempdir())) as found:
        yield found


@contextmanager
def disk_directory() -> Iterator[Path]:
    """A directory on a disk; TMPDIR says on which."""
    with _directory(Path(os.environ.get("TMPDIR", "/var/tmp"))) as found:
        yield found


def make_file(path: Path, n_bytes: int) -> Path:
    """A file whose every block differs, made about as fast as memory allows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    block = os.urandom(_BLOCK_BYTES - 8)
    with path.open("wb") as file:
        for offset in range(0, n_bytes, _BLOCK_BYTES):
            piece = offset.to_bytes(8, "little") + block
            file.write(piece[: n_bytes - offset])
    return path


@contextmanager
def _directory(base: Path) -> Iterator[Path]:
    found = Path(tempfile.mkdtemp(prefix="modelcache-bench-", dir=base))
    try:
        yield found
    finally:
        remove_tree(found)


def remove_tree(path: Path) -> None:
    """Remove all of it; a pulled tree's directories are read-only."""
    for folder, _, _ in os.walk(path):
        os.chmod(folder, 0o700)
    shutil.rmtree(path, ignore_errors=True)


def _free_bytes(path: Path) -> int:
    return shutil.disk_usage(path).free


def _available_bytes() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0
