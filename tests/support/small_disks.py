"""Small disks of a test, in a mount namespace of the test process's own. Needs root."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.mount_namespace import detach, unshare_mounts

SmallDisk = Callable[[Path, int], None]


@contextmanager
def small_disks() -> Iterator[SmallDisk]:
    """Puts a disk of so many MiB at a path, or makes the one there so large."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    unshare_mounts()
    mounted: list[Path] = []

    def resize(path: Path, mebibytes: int) -> None:
        size = f"size={mebibytes}m"
        how = ("-o", f"remount,{size}") if path in mounted else ("-t", "tmpfs", "-o", size, "test")
        subprocess.run(["mount", *how, str(path)], check=True, timeout=10)
        if path not in mounted:
            mounted.append(path)

    try:
        yield resize
    finally:
        for path in mounted:
            detach(path)
