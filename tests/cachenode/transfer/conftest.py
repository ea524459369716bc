"""An origin that can misbehave, and movers that wait for it as long as a test lasts."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from modelcache_node.transfer.movers import Movers
from support.fault_origin import FaultOrigin
from support.ranges import PATIENT, no_jitter


@pytest.fixture
def origin() -> Iterator[FaultOrigin]:
    with FaultOrigin() as started:
        yield started


@pytest.fixture
async def movers() -> AsyncIterator[Movers]:
    async with Movers(count=1, limits=PATIENT, uniform=no_jitter) as started:
        yield started


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    path.touch()
    return path
