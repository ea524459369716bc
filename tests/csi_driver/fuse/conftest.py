"""Folders for lazy mounts: short names, in a mount namespace of the test process's own."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.mount_namespace import detach, mount_tmpfs


@pytest.fixture
def lazy_root(private_mounts: None) -> Iterator[Path]:
    """A file system of its own: the kernel reads through to plain ones only, not to stacked."""
    if not os.path.exists("/dev/fuse"):
        pytest.skip("this kernel has no /dev/fuse")
    path = Path(tempfile.mkdtemp(prefix="mc-"))
    mount_tmpfs(path)
    yield path
    detach(path)
    shutil.rmtree(path)
