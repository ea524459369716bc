"""Chunks of 64 bytes, and directories in memory: thousands of syncs cost nothing there."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.store_models import small_chunks


@pytest.fixture(autouse=True)
def _chunks_are_small() -> Iterator[None]:
    with small_chunks():
        yield


@pytest.fixture
def home() -> Iterator[Path]:
    in_memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(
        prefix="mc-store-", dir=in_memory if in_memory.is_dir() else None
    ) as name:
        yield Path(name)
