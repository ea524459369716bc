"""A range that somebody waits for, while every connection is busy with others."""

import asyncio
import threading

import pytest

from modelcache_api.units import MIB
from modelcache_node.transfer.movers import Movers
from modelcache_node.transfer.ranges import URGENT_PRIORITY
from support import faults
from support.fault_origin import Zeros
from support.ranges import PATIENT, no_jitter, request_for

pytestmark = pytest.mark.looptime(False)


async def test_an_urgent_range_needs_no_free_connection(origin, target):
    origin.put("models/a", bytes(1000))
    gate = threading.Event()
    origin.script(faults.Held(gate))
    limits = PATIENT._replace(connections=1)
    async with Movers(count=1, limits=limits, uniform=no_jitter) as movers:
        others = [
            asyncio.create_task(movers.fetch(request_for(origin, "models/a", target, at, 1)))
            for at in range(10)
        ]
        await asyncio.to_thread(origin.wait_for, lambda: origin.count() == 1)
        urgent = request_for(origin, "models/a", target, 999, 1, priority=URGENT_PRIORITY)
        await movers.fetch(urgent)
        assert not any(one.done() for one in others)
        gate.set()
        await asyncio.gather(*others)


async def test_what_is_under_way_pauses_for_an_urgent_range_and_goes_on(origin, target):
    size = 64 * MIB  # more than all buffers on the way hold
    origin.put("models/a", Zeros(size))
    gate = threading.Event()
    async with Movers(count=1, limits=PATIENT, uniform=no_jitter) as movers:
        large = asyncio.create_task(
            movers.fetch(request_for(origin, "models/a", None, 0, size - 1))
        )
        await asyncio.to_thread(origin.wait_for, lambda: origin.body_bytes > MIB)
        origin.script(faults.Held(gate))
        urgent = asyncio.create_task(
            movers.fetch(
                request_for(origin, "models/a", None, size - 1, 1, priority=URGENT_PRIORITY)
            )
        )
        await asyncio.to_thread(origin.wait_for, lambda: origin.count() == 2)
        assert not large.done()
        gate.set()
        await asyncio.gather(large, urgent)
