"""Stores on tmpfs, where room is looked for and not taken."""

import errno
import os
from pathlib import Path
from uuid import uuid4

import pytest

from modelcache_node.store.blob_dirs import begin
from modelcache_node.store.disks import is_memory

SHARED_MEMORY = Path("/dev/shm")


@pytest.fixture
def directory(tmp_path):
    if not (SHARED_MEMORY.is_dir() and is_memory(SHARED_MEMORY)):
        pytest.skip("no tmpfs at /dev/shm")
    found = SHARED_MEMORY / f"modelcache-test-{uuid4().hex}"
    found.mkdir()
    yield found
    for path, _, names in os.walk(found, topdown=False):
        for name in names:
            os.unlink(Path(path, name))
        os.rmdir(path)


def test_a_new_blob_has_its_size_and_takes_no_room_before_it_is_written(directory):
    begin(directory / "aa" / "key", 64 << 20, uuid4()).close()

    data = os.stat(directory / "aa" / "key" / "data")
    assert (data.st_size, data.st_blocks) == (64 << 20, 0)


def test_a_blob_that_memory_has_no_room_for_is_refused_and_leaves_nothing(directory):
    with pytest.raises(OSError, match="No space left") as refused:
        begin(directory / "aa" / "key", 1 << 60, uuid4())

    assert refused.value.errno == errno.ENOSPC
    assert not (directory / "aa" / "key").exists()
