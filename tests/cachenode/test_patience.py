"""Trying again: who asks for a pause gets it, and nobody is waited for beyond patience."""

import asyncio

import pytest

from modelcache_api.errors import SourceUnavailableError
from modelcache_node.patience import Patience


def shortest(low: float, _high: float) -> float:
    return low


async def test_a_store_that_asks_for_a_pause_gets_it(looptime):
    patience = Patience(120, clock=asyncio.get_running_loop().time, uniform=shortest)
    await patience.pause_after(SourceUnavailableError("slow down", retry_after_s=30))
    assert looptime == 30


async def test_a_pause_beyond_patience_is_not_sat_out(looptime):
    patience = Patience(20, clock=asyncio.get_running_loop().time, uniform=shortest)
    with pytest.raises(SourceUnavailableError):
        await patience.pause_after(SourceUnavailableError("slow down", retry_after_s=30))
    assert looptime == 0
