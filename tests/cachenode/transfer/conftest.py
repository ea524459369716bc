"""An origin that can misbehave, and movers that give up soon enough for a test."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from modelcache_node.transfer.movers import Movers
from support.fault_origin import FaultOrigin
from support.ranges import LIMITS, no_jitter


@pytest.fixture
def origin() -> Iterator[FaultOrigin]:
    with FaultOrigin() as started:
        yield started


@pytest.fixture
async def movers() -> AsyncIterator[Movers]:
    async with Movers(count=1, limits=LIMITS, uniform=no_jitter) as started:
        yield started


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    path.touch()
    return path
