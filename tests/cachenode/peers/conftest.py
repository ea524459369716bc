"""A node that holds things, and movers that ask it."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from modelcache_node.transfer.limits import MoverLimits
from modelcache_node.transfer.movers import Movers
from support.peers import ASKER, KEYS, Holder
from support.ranges import LIMITS, no_jitter


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[Holder]:
    made = Holder(tmp_path / "holder")
    yield made
    made.store.close()


@pytest.fixture
async def movers() -> AsyncIterator[Movers]:
    """Patient ones: a server's worker may be slow to start."""
    limits = MoverLimits(peer_inactivity_timeout_s=30.0)
    async with Movers(count=1, limits=limits, uniform=no_jitter) as started:
        started.use_cluster_keys(KEYS, asker=ASKER)
        yield started


@pytest.fixture
async def hasty_movers() -> AsyncIterator[Movers]:
    limits = LIMITS._replace(peer_inactivity_timeout_s=1.0)
    async with Movers(count=1, limits=limits, uniform=no_jitter) as started:
        started.use_cluster_keys(KEYS, asker=ASKER)
        yield started


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    path.touch()
    return path
