"""The work queue: each key at most once, never twice at a time, back after a pause that grows."""

import asyncio
import contextlib
import itertools

import pytest

from modelcache_operator.handlers.work_queue import WorkQueue


@contextlib.asynccontextmanager
async def working(queue, work, *, workers=2):
    task = asyncio.create_task(queue.run(work, workers=workers))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _rest(seconds=0.0):
    await asyncio.sleep(seconds)


async def test_a_key_added_often_is_worked_on_once():
    done = []

    async def work(key):
        done.append(key)

    queue = WorkQueue()
    for key in "aabba":
        queue.add(key)
    async with working(queue, work):
        await _rest(1)
    assert sorted(done) == ["a", "b"]
    assert queue.is_idle


async def test_a_key_added_while_worked_on_comes_again_and_never_twice_at_a_time():
    running, most, done = 0, 0, 0

    async def work(key):
        nonlocal running, most, done
        running += 1
        most = max(most, running)
        await asyncio.sleep(1)
        running -= 1
        done += 1

    queue = WorkQueue()
    async with working(queue, work, workers=4):
        queue.add("a")
        await _rest(0.5)
        queue.add("a")
        queue.add("a")
        await _rest(5)
    assert (most, done) == (1, 2)


async def test_other_keys_go_on_beside_one_that_takes_long():
    done = []

    async def work(key):
        await asyncio.sleep(100 if key == "slow" else 1)
        done.append(key)

    queue = WorkQueue()
    async with working(queue, work):
        for key in ("slow", "a", "b"):
            queue.add(key)
        await _rest(10)
    assert done == ["a", "b"]


async def test_a_key_that_fails_comes_back_after_a_pause_that_doubles(caplog):
    at = []

    async def work(key):
        at.append(asyncio.get_running_loop().time())
        raise RuntimeError("away")

    queue = WorkQueue()
    async with working(queue, work):
        queue.add("a")
        await _rest(10_000)
    pauses = [later - earlier for earlier, later in itertools.pairwise(at)]
    assert pauses[0] <= 1.0
    assert 4 <= pauses[4] <= 17
    assert max(pauses) <= 301
    assert len(at) < 100
    assert "away" in caplog.text


async def test_a_success_forgets_the_failures():
    failures = iter([True, True, False, True])
    at = []

    async def work(key):
        at.append(asyncio.get_running_loop().time())
        if next(failures, False):
            raise RuntimeError("away")

    queue = WorkQueue()
    async with working(queue, work):
        queue.add("a")
        await _rest(100)
        queue.add("a")
        await _rest(100)
    assert len(at) == 5
    assert at[4] - at[3] <= 1.0


async def test_later_is_the_earliest_that_was_asked_for():
    at = []

    async def work(key):
        at.append(asyncio.get_running_loop().time())

    queue = WorkQueue()
    async with working(queue, work):
        start = asyncio.get_running_loop().time()
        queue.add_later("a", 50)
        queue.add_later("a", 10)
        queue.add_later("a", 30)
        await _rest(100)
    assert [moment - start for moment in at] == [pytest.approx(10)]


async def test_now_makes_later_needless():
    count = 0

    async def work(key):
        nonlocal count
        count += 1

    queue = WorkQueue()
    async with working(queue, work):
        queue.add_later("a", 10)
        queue.add("a")
        await _rest(100)
    assert count == 1
