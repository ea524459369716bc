"""Movers are processes: they may be killed, cancelled, starved; nothing is lost or left over."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from modelcache_api.units import KIB, MIB
from modelcache_node.transfer.movers import Movers
from support import faults
from support.fault_origin import Zeros
from support.ranges import LIMITS, no_jitter, request_for

pytestmark = pytest.mark.looptime(False)


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def test_the_ranges_of_a_killed_mover_are_fetched_by_its_successor(origin, movers, target):
    data = os.urandom(2 * MIB)
    origin.put("models/a", data)
    origin.script(*[faults.Stalled(after_bytes=1000)] * LIMITS.connections)
    chunk = 64 * KIB
    heard = []
    fetching = [
        asyncio.create_task(
            movers.fetch(request_for(origin, "models/a", target, at, chunk), on_retry=heard.append)
        )
        for at in range(0, len(data), chunk)
    ]
    await asyncio.to_thread(origin.wait_for, lambda: origin.count() >= LIMITS.connections)
    (victim,) = movers.worker_pids
    os.kill(victim, signal.SIGKILL)
    await asyncio.gather(*fetching)
    assert target.read_bytes() == data
    assert movers.stats().restarts == 1
    assert movers.worker_pids != [victim]
    assert set(heard) == {"a mover process ended"}


async def test_a_cancelled_fetch_frees_its_connection_for_others(origin, target):
    origin.put("models/a", bytes(MIB))
    origin.script(faults.Stalled(after_bytes=1000))
    limits = LIMITS._replace(connections=1, inactivity_timeout_s=1000.0, speed_window_s=1000.0)
    async with Movers(count=1, limits=limits) as movers:
        stalled = asyncio.create_task(movers.fetch(request_for(origin, "models/a", target, 0, MIB)))
        await asyncio.to_thread(origin.wait_for, lambda: origin.body_bytes >= 1000)
        stalled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stalled
        await movers.fetch(request_for(origin, "models/a", target, 0, MIB))
    assert movers.stats().ranges == 1


async def test_cancelling_everything_leaves_movers_ready_for_more(origin, movers, target):
    origin.put("models/a", bytes(MIB))
    origin.always(faults.Stalled(after_bytes=10))
    fetching = [
        asyncio.create_task(movers.fetch(request_for(origin, "models/a", target, at, 1000)))
        for at in range(0, 100_000, 1000)
    ]
    await asyncio.to_thread(origin.wait_for, lambda: origin.count() >= LIMITS.connections)
    for one in fetching:
        one.cancel()
    await asyncio.wait(fetching)
    assert all(one.cancelled() for one in fetching)
    origin.always(None)
    await movers.fetch(request_for(origin, "models/a", target, 0, 1000))


async def test_a_worker_stays_small_however_large_the_model(origin):
    size = 400 * MIB
    origin.put("models/large", Zeros(size))
    async with Movers(count=1) as movers:
        chunk = 16 * MIB
        await asyncio.gather(
            *(
                movers.fetch(request_for(origin, "models/large", None, at, chunk))
                for at in range(0, size, chunk)
            )
        )
        (pid,) = movers.worker_pids
        status = Path(f"/proc/{pid}/status").read_text()
    peak_kib = int(status.split("VmHWM:")[1].split()[0])
    assert peak_kib < 40 * KIB


@pytest.mark.parametrize("keep_cached_bytes", [None, 64 * MIB])
async def test_an_idle_mover_keeps_no_file_open(origin, target, keep_cached_bytes):
    """Else a file that is evicted would keep its blocks, and a full disk stay full."""
    origin.put("models/a", bytes(MIB))
    limits = LIMITS._replace(keep_cached_bytes=keep_cached_bytes)
    async with Movers(count=1, limits=limits) as movers:
        await movers.fetch(request_for(origin, "models/a", target, 0, MIB))
        (worker,) = movers.worker_pids
        await until(lambda: target not in open_files(worker))


def open_files(pid):
    return {one.readlink() for one in Path(f"/proc/{pid}/fd").iterdir() if one.is_symlink()}


async def test_movers_end_with_their_context_and_are_reaped(movers):
    async with Movers(count=2) as others:
        pids = others.worker_pids
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []


async def test_movers_end_with_their_parent_however_it_ends():
    script = (
        "import asyncio, os\n"
        "from modelcache_node.transfer.movers import Movers\n"
        "async def main():\n"
        "    async with Movers(count=2) as movers:\n"
        "        print(*movers.worker_pids, flush=True)\n"
        "        await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        parent.kill()
    await until(lambda: not any(is_running(pid) for pid in pids))


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def test_a_mover_that_cannot_start_is_tried_again_and_does_not_spin(origin, monkeypatch):
    origin.put("models/a", b"hello")
    monkeypatch.setattr(sys, "executable", "/bin/false")
    async with Movers(count=1, uniform=lambda _low, high: high) as movers:
        fetching = asyncio.create_task(movers.fetch(request_for(origin, "models/a", None, 0, 5)))
        await until(lambda: movers.stats().restarts >= 2)
        monkeypatch.undo()
        await fetching


async def test_usage_is_told(origin):
    origin.put("models/a", Zeros(64 * MIB))
    async with Movers(count=1, uniform=no_jitter) as movers:
        for at in range(0, 64 * MIB, 16 * MIB):
            await movers.fetch(request_for(origin, "models/a", None, at, 16 * MIB))
        await until(lambda: movers.stats().bytes_received == 64 * MIB)
        assert movers.stats().cpu_seconds > 0
