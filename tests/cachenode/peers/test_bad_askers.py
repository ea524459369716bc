"""Who asks wrongly: he is served nothing, and holds nothing that others need."""

import asyncio
import os
import resource
import signal
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from modelcache_api.chunks import CHUNK_BYTES
from modelcache_api.peer_auth import Asked
from modelcache_node.peers.limits import UploadLimits
from modelcache_node.peers.requests import MAX_HEAD_BYTES
from modelcache_node.transfer.starting import wall_clock
from support.peers import (
    KEY,
    OTHER_KEYS,
    RawConnection,
    ask_for,
    chunk_of,
    chunk_path,
    exchange,
    new_nonce,
    serving,
    shown,
)

pytestmark = pytest.mark.looptime(False)

DATA = os.urandom(100_000)
BOUND = UploadLimits().connections


@pytest.fixture
def full(holder):
    holder.put(DATA)
    return holder


async def until(condition):
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


UNSIGNED = f"GET {chunk_path()} HTTP/1.1\r\nHost: h\r\n\r\n".encode()
OTHER_CHUNK = Asked("GET", chunk_path(index=1))


UNTRUSTED = {
    "unsigned": UNSIGNED,
    "other cluster": ask_for(chunk_path(), keys=OTHER_KEYS),
    "target": ask_for(chunk_path(), asked=OTHER_CHUNK),
    "range": ask_for(chunk_path(), headers="Range: bytes=0-9\r\n"),
    "asker": ask_for(chunk_path()).replace(b"127.0.0.1:1 ", b"127.0.0.1:2 "),
    "version": ask_for(chunk_path()).replace(b"Peer: 1 ", b"Peer: 2 "),
    "manifest": ask_for(f"/peer/v1/revisions/{KEY}/manifest", keys=OTHER_KEYS),
}


async def test_a_request_that_is_tampered_with_or_unsigned_is_served_nothing(full):
    async with serving(full) as server:
        for what, raw in UNTRUSTED.items():
            with RawConnection(server.address) as connection:
                connection.send(raw)
                answer = connection.receive()
                assert answer.status == 401, what
                assert DATA[:100] not in answer.body
                assert connection.ends()
        await until(lambda: server.stats().refused == len(UNTRUSTED))
        assert server.stats().bytes_sent == 0


async def test_a_replayed_request_is_served_nothing_by_any_worker(full):
    raw = ask_for(chunk_path())
    async with serving(full, workers=2) as server:
        assert exchange(server.address, raw).status == 206
        with ExitStack() as stack:
            held = [stack.enter_context(RawConnection(server.address)) for _ in range(12)]
            for connection in held:
                connection.send(raw)
            answers = [connection.receive() for connection in held]
    assert {answer.status for answer in answers} == {401}
    assert b"came before" in answers[0].body


async def test_a_replayed_request_is_served_nothing_after_a_workers_death(full):
    raw = ask_for(chunk_path())
    async with serving(full) as server:
        assert exchange(server.address, raw).status == 206
        old = server.worker_pids
        os.kill(old[0], signal.SIGKILL)
        await until(lambda: server.worker_pids and server.worker_pids != old)
        assert exchange(server.address, raw).status == 401


async def test_clock_skew_is_refused_with_the_skew_in_the_words(full):
    async with serving(full) as server:
        for skew_s, word in ((312.5, "ahead of"), (-311.5, "behind")):
            raw = ask_for(chunk_path(), now=wall_clock() + skew_s)
            answer = exchange(server.address, raw)
            assert answer.status == 401
            said = answer.body.decode()
            assert said.startswith("clock skew: the asking node's clock is 31")
            assert f" s {word} this node's" in said
            assert "NTP" in said


PATH_TRICKS = [
    "/peer/v1/chunks/../../VERSION/0",
    f"/peer/v1/chunks/{KEY}/../../../../VERSION",
    f"/peer/v1/chunks/..%2f..%2f{KEY}/0",
    f"/peer/v1/chunks/{KEY}%00/0",
    f"/peer/v1/chunks/{KEY.upper()}/0",
    f"/peer/v1/chunks/{KEY}.../0",
    f"/peer/v1/chunks/{KEY}.0123456789abcde/0",
    f"/peer/v1/chunks/{KEY}.0123456789abcdef/../{KEY}/0",
    f"/peer/v1/chunks/{KEY}/00",
    f"/peer/v1/chunks/{KEY}/-1",
    f"/peer/v1/chunks/{KEY}/99999999999999999999",
    f"/peer/v1/chunks/{KEY}/0?x",
    f"/peer/v1/chunks/{KEY}/999999999",
    "/peer/v1/chunks//etc/passwd/0",
    f"//peer/v1/chunks/{KEY}/0",
    "/peer/v1/revisions/../../state.db/manifest",
    "/etc/passwd",
    "/",
]


async def test_path_tricks_in_ids_reach_no_file(full):
    async with serving(full) as server:
        for target in PATH_TRICKS:
            answer = await asyncio.to_thread(exchange, server.address, ask_for(target))
            assert answer.status in {400, 404}, target
            assert len(answer.body) < 200


NO_REQUESTS = [
    b"GET / HTTP/1.0\r\n\r\n",
    b"DELETE / HTTP/1.1\r\n\r\n",
    b"nonsense\r\n\r\n",
    b"GET /\x00 HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\nHost: h\r\n\r\n",
    b"GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
    b"POST / HTTP/1.1\r\nContent-Length: 999999999\r\n\r\n",
    b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n",
    b"GET /" + b"a" * MAX_HEAD_BYTES + b" HTTP/1.1\r\n\r\n",
    b"X" * (MAX_HEAD_BYTES + 1),
    b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
]


async def test_what_is_no_request_is_refused_and_the_connection_closed(full):
    async with serving(full) as server:
        for raw in NO_REQUESTS:
            with RawConnection(server.address) as connection:
                connection.send(raw)
                assert connection.receive().status == 400, raw[:60]
                assert connection.ends()


async def test_a_slow_loris_that_sends_its_head_byte_by_byte_is_cut_off(full):
    limits = UploadLimits(head_timeout_s=0.5)
    async with serving(full, limits=limits) as server:
        with RawConnection(server.address) as silent, RawConnection(server.address) as slow:
            slow.send(ask_for(chunk_path())[:-10])
            assert slow.ends()
            assert silent.ends()
        await until(lambda: server.stats().connections == 0)


async def test_who_reads_nothing_of_his_answer_loses_his_place(holder, movers, target):
    data = os.urandom(CHUNK_BYTES)
    holder.put(data)
    limits = UploadLimits(uploads=1, inactivity_timeout_s=0.5)
    async with serving(holder, limits=limits) as server:
        with RawConnection(server.address) as lazy:
            lazy.send(ask_for(chunk_path()))
            assert lazy.socket.recv(1) == b"H"
            assert server.uploads_under_way() == 1
            await until(lambda: server.uploads_under_way() == 0)
            await movers.fetch_from_peer(chunk_of(shown(server.address), data, target))
    assert target.read_bytes() == data


async def test_who_leaves_in_the_middle_leaves_nothing_behind(holder):
    data = os.urandom(CHUNK_BYTES)
    holder.put(data)
    async with serving(holder) as server:
        for _ in range(20):
            with RawConnection(server.address) as connection:
                connection.send(ask_for(chunk_path()))
                assert connection.socket.recv(1) == b"H"
        await until(lambda: server.stats().connections == 0 and not server.uploads_under_way())
        (pid,) = server.worker_pids
        assert not [one for one in _open_files(pid) if one.endswith("/data")]


async def test_questions_that_wait_for_the_agent_are_bounded(full):
    waiting = asyncio.Event()
    calls = []

    async def answer(call):
        calls.append(call)
        await waiting.wait()

    async with serving(full, answer=answer, limits=UploadLimits(asks=3)) as server:
        with ExitStack() as stack:
            held = [stack.enter_context(RawConnection(server.address)) for _ in range(4)]
            for connection in held:
                connection.send(ask_for("/peer/v1/revisions/x"))
            refused = await asyncio.to_thread(held[-1].receive)
            assert refused.status == 503
            assert len(calls) <= 3


async def test_ten_thousand_connections_at_once_are_bounded_and_leave_nothing(full, movers, target):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 12_000:
        pytest.skip("needs a hard limit of 12,000 open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (12_000, hard))
    async with serving(full) as server:
        wanted = chunk_of(shown(server.address), DATA, target)
        await movers.fetch_from_peer(wanted)
        (pid,) = server.worker_pids
        before = len(_open_files(pid))
        with ExitStack() as stack:
            for _ in range(10_000):
                crowd = stack.enter_context(socket.socket())
                crowd.setblocking(False)
                crowd.connect_ex(server.address)
            for _ in range(3):  # a peer that is known keeps being served
                await movers.fetch_from_peer(wanted)
                assert len(_open_files(pid)) < before + BOUND + 20
            await until(lambda: server.stats().connections >= BOUND // 2)
            assert server.stats().connections <= BOUND
        await until(lambda: len(_open_files(pid)) <= before)
    assert target.read_bytes() == DATA


async def test_a_flood_of_strangers_does_not_close_a_known_peers_connection(full):
    limits = UploadLimits(connections=8)
    async with serving(full, limits=limits) as server, asyncio.timeout(30):
        with RawConnection(server.address) as known, ExitStack() as stack:
            known.send(ask_for(chunk_path()))
            assert known.receive().status == 206
            for _ in range(50):
                stack.enter_context(RawConnection(server.address))
            known.send(ask_for(chunk_path()))
            assert known.receive().status == 206


async def test_nonces_are_remembered_until_they_expire(full):
    nonce = new_nonce()
    early = wall_clock() - 100
    async with serving(full) as server:
        assert exchange(server.address, ask_for(chunk_path(), nonce=nonce, now=early)).status == 206
        # The same nonce with a new time is signed anew: it is a second use all the same.
        assert exchange(server.address, ask_for(chunk_path(), nonce=nonce)).status == 401


def _open_files(pid: int) -> list[str]:
    found = []
    for one in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.append(os.readlink(one))
        except FileNotFoundError:
            continue
    return found
