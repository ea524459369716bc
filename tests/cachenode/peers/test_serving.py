"""Upload workers and movers together: chunks go from store to store, checked and bounded."""

import asyncio
import contextlib
import os
import signal
import ssl

import pytest
import trustme
from awscrt import checksums

from modelcache_api.chunks import CHUNK_BYTES
from modelcache_api.peer_auth import ClusterKeys
from modelcache_node.peers.limits import UploadLimits
from modelcache_node.peers.server import PeerReply
from modelcache_node.transfer.movers import Movers
from modelcache_node.transfer.peer_ranges import (
    PeerBusyError,
    PeerLacksError,
    PeerUnavailableError,
)
from modelcache_node.transfer.ranges import PeerTls
from support.peers import (
    ASKER,
    KEY,
    KEYS,
    OTHER_KEYS,
    RawConnection,
    ask_for,
    chunk_of,
    chunk_path,
    exchange,
    mark,
    serving,
    shown,
)
from support.ranges import no_jitter

pytestmark = pytest.mark.looptime(False)


async def test_the_chunks_of_a_blob_arrive_at_their_places(holder, movers, target):
    data = os.urandom(2 * CHUNK_BYTES + 12345)
    holder.put(data)
    async with serving(holder) as server:
        peer = shown(server.address)
        results = await asyncio.gather(
            *(
                movers.fetch_from_peer(chunk_of(peer, data, target, index, want_crc64nvme=True))
                for index in range(3)
            )
        )
    assert target.read_bytes() == data
    last = data[2 * CHUNK_BYTES :]
    assert (results[2].crc32c, results[2].crc64nvme) == (
        checksums.crc32c(last),
        checksums.crc64nvme(last),
    )
    assert {(one.validator, one.total_bytes) for one in results} == {(f'"{KEY}"', len(data))}


async def test_a_chunk_is_served_as_soon_as_the_journal_says_present(holder, movers, target):
    data = os.urandom(CHUNK_BYTES + 1000)
    partial = holder.begin(data)
    async with serving(holder) as server:
        wanted = chunk_of(shown(server.address), data, target, 1)
        with pytest.raises(PeerLacksError):
            await movers.fetch_from_peer(wanted)
        mark(partial, data, 1)
        await movers.fetch_from_peer(wanted)
        with pytest.raises(PeerLacksError):
            await movers.fetch_from_peer(chunk_of(shown(server.address), data, target, 0))
    partial.close()
    assert target.read_bytes()[CHUNK_BYTES:] == data[CHUNK_BYTES:]


async def test_an_unsealed_blob_under_a_content_key_is_shared_for_its_origin_only(
    holder, movers, target
):
    data, provider = os.urandom(1000), "0123456789abcdef"
    partial = holder.begin(data, provider_id=provider)
    mark(partial, data, 0)
    async with serving(holder) as server:
        peer = shown(server.address)
        named = chunk_of(peer, data, target, blob=f"{KEY}.{provider}")
        for stranger in (KEY, f"{KEY}.{provider[::-1]}"):
            with pytest.raises(PeerLacksError):
                await movers.fetch_from_peer(chunk_of(peer, data, target, blob=stranger))
        await movers.fetch_from_peer(named)
        partial.seal(None)
        await movers.fetch_from_peer(named)
        await movers.fetch_from_peer(chunk_of(peer, data, target, blob=KEY))
    partial.close()


async def test_what_another_boot_wrote_is_not_served_before_it_was_checked(holder):
    data = os.urandom(1000)
    partial = holder.begin(data)
    mark(partial, data, 0)
    async with serving(holder) as server:
        journal = partial.directory / "chunks"
        raw = bytearray(journal.read_bytes())
        raw[32:48] = bytes(16)  # the boot id
        journal.write_bytes(raw)
        assert exchange(server.address, ask_for(chunk_path())).status == 404
    partial.close()


async def test_a_blob_under_repair_is_not_served(holder):
    data = os.urandom(CHUNK_BYTES + 1000)
    holder.put(data)
    holder.store.blobs.unseal_chunks(KEY, len(data), [1])
    repair = holder.store.blobs.open_partial(KEY, len(data), "0123456789abcdef")
    async with serving(holder) as server:
        for index in (0, 1):
            answer = exchange(server.address, ask_for(chunk_path(index=index)))
            assert answer.status == 404
    repair.close()


async def test_chunks_are_served_while_the_agents_loop_is_busy(holder):
    data = os.urandom(100_000)
    holder.put(data)
    async with serving(holder) as server:
        # Without an await: the event loop does nothing until this has its answer.
        answer = exchange(server.address, ask_for(chunk_path()))
    assert answer.body == data


async def test_a_connection_carries_one_request_after_another(holder):
    data = os.urandom(5000)
    holder.put(data)
    async with serving(holder) as server:
        with RawConnection(server.address) as connection:
            connection.send(ask_for(chunk_path()) + ask_for(chunk_path()))
            assert [connection.receive().body for _ in range(2)] == [data, data]
            connection.send(ask_for(chunk_path(index=7)))
            assert connection.receive().status == 404
            connection.send(ask_for(chunk_path(), headers="Connection: close\r\n"))
            assert connection.receive().body == data
            assert connection.ends()


async def test_a_node_with_all_places_taken_says_who_else_holds_the_chunk(holder, movers, target):
    data = os.urandom(3 * CHUNK_BYTES)
    holder.put(data)
    asked = []

    async def answer(call):
        asked.append((call.target, call.asker))
        return PeerReply(200, b"10.0.0.1:7440\n10.0.0.2:7440", "text/plain")

    async with serving(holder, answer=answer, limits=UploadLimits(uploads=2), workers=2) as server:
        wanted = chunk_of(shown(server.address), data, target, 2)
        with RawConnection(server.address) as one, RawConnection(server.address) as other:
            for index, connection in enumerate((one, other)):  # nobody reads what they are sent
                connection.send(ask_for(chunk_path(index=index)))
                assert connection.socket.recv(1) == b"H"
            assert server.uploads_under_way() == 2
            with pytest.raises(PeerBusyError) as caught:
                await movers.fetch_from_peer(wanted)
        assert caught.value.hints == ("10.0.0.1:7440", "10.0.0.2:7440")
        assert asked == [(f"/peer/v1/holders/{KEY}/2", ASKER)]
        await eventually(lambda: server.uploads_under_way() == 0)
        await movers.fetch_from_peer(wanted)


@pytest.mark.parametrize("held", [[0, 0], range(5)], ids=["two-of-it", "one-of-each-of-five"])
async def test_a_chunk_goes_to_two_at_a_time_but_to_one_where_many_others_go(
    holder, movers, target, held
):
    data = os.urandom(6 * CHUNK_BYTES)
    holder.put(data)
    async with serving(holder, workers=2) as server:
        with contextlib.ExitStack() as connections:

            def begins(index: int) -> bool:  # nobody reads on
                connection = connections.enter_context(RawConnection(server.address))
                connection.send(ask_for(chunk_path(index=index)))
                return connection.socket.recv(12) == b"HTTP/1.1 206"

            assert all(begins(index) for index in held)
            with pytest.raises(PeerBusyError):
                await movers.fetch_from_peer(chunk_of(shown(server.address), data, target, 0))
            assert begins(5)
        await eventually(lambda: server.uploads_under_way() == 0)
        await movers.fetch_from_peer(chunk_of(shown(server.address), data, target, 5))


async def eventually(condition):
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_busy_node_whose_agent_is_silent_still_says_so(holder):
    data = os.urandom(CHUNK_BYTES)
    holder.put(data)
    async with serving(holder, limits=UploadLimits(uploads=1, hint_timeout_s=0.1)) as server:
        with RawConnection(server.address) as connection:
            connection.send(ask_for(chunk_path()))
            assert connection.socket.recv(1) == b"H"
            answer = exchange(server.address, ask_for(chunk_path()))  # blocks the loop
    assert (answer.status, answer.body) == (503, b"")
    assert answer.headers["retry-after"].isdigit()


async def test_a_worker_that_is_killed_is_replaced_and_its_places_are_free(holder, movers, target):
    data = os.urandom(CHUNK_BYTES)
    holder.put(data)
    async with serving(holder, limits=UploadLimits(uploads=1)) as server:
        wanted = chunk_of(shown(server.address), data, target)
        with RawConnection(server.address) as connection:
            connection.send(ask_for(chunk_path()))
            assert connection.socket.recv(1) == b"H"
            os.kill(server.worker_pids[0], signal.SIGKILL)
            await eventually(lambda: server.uploads_under_way() == 0)
            await movers.fetch_from_peer(wanted)
    assert target.read_bytes() == data


async def test_uploads_under_a_limit_pause_and_go_on(holder, movers, target):
    keys, data = ("aa" * 32, "bb" * 32), os.urandom(300_000)
    for key in keys:
        holder.put(data, key)
    async with serving(holder, bytes_per_s=400_000.0) as server:
        peer = shown(server.address)
        await asyncio.gather(
            *(movers.fetch_from_peer(chunk_of(peer, data, target, blob=key)) for key in keys)
        )
        await eventually(lambda: server.stats().bytes_sent == 2 * len(data))


async def test_two_keys_are_valid_while_they_are_rotated(holder, movers, target):
    data = os.urandom(1000)
    holder.put(data)
    both = ClusterKeys((*OTHER_KEYS.keys, *KEYS.keys))
    async with serving(holder, keys=both) as server:
        wanted = chunk_of(shown(server.address), data, target)
        movers.use_cluster_keys(ClusterKeys((*KEYS.keys, *OTHER_KEYS.keys)), asker=ASKER)
        await movers.fetch_from_peer(wanted)
        server.use_keys(OTHER_KEYS)
        movers.use_cluster_keys(OTHER_KEYS, asker=ASKER)
        await movers.fetch_from_peer(wanted)


async def test_anybody_may_ask_whether_the_agent_is_well(holder):
    async def answer(call):
        return PeerReply(200, f"{call.target} {call.asker}".encode(), "text/plain")

    async with serving(holder, answer=answer) as server:
        answer = await asyncio.to_thread(
            exchange, server.address, b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n"
        )
    assert (answer.status, answer.body) == (200, b"/healthz None")


async def test_chunks_go_over_tls_to_who_trusts_the_clusters_authority(holder, target, tmp_path):
    data = os.urandom(3 * CHUNK_BYTES // 2)
    holder.put(data)
    authority, stranger = trustme.CA(), trustme.CA()
    made = authority.issue_cert("agent.modelcache.io")
    made.cert_chain_pems[0].write_to_path(tmp_path / "cert")
    made.private_key_pem.write_to_path(tmp_path / "key")
    async with serving(holder, tls=(tmp_path / "cert", tmp_path / "key")) as server:
        for trusted in (authority, stranger):
            tls = PeerTls(trusted.cert_pem.bytes().decode(), "agent.modelcache.io")
            async with Movers(count=1, uniform=no_jitter, peer_tls=tls) as movers:
                movers.use_cluster_keys(KEYS, asker=ASKER)
                wanted = chunk_of(shown(server.address), data, target)
                if trusted is authority:
                    await movers.fetch_from_peer(wanted)
                    assert target.read_bytes() == data[:CHUNK_BYTES]
                else:
                    with pytest.raises(PeerUnavailableError, match="not trusted"):
                        await movers.fetch_from_peer(wanted)


async def test_a_request_that_comes_with_the_end_of_the_handshake_is_answered(holder, tmp_path):
    holder.put(os.urandom(1000))
    authority = trustme.CA()
    made = authority.issue_cert("agent.modelcache.io")
    made.cert_chain_pems[0].write_to_path(tmp_path / "cert")
    made.private_key_pem.write_to_path(tmp_path / "key")
    context = ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())
    async with serving(holder, tls=(tmp_path / "cert", tmp_path / "key")) as server:
        reader, writer = await asyncio.open_connection(*server.address)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_hostname="agent.modelcache.io")
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                writer.write(outgoing.read())
                incoming.write(await reader.read(1 << 16))
        tls.write(ask_for(chunk_path()))
        writer.write(outgoing.read())  # the handshake's last message too
        answer = b""
        while not answer:
            incoming.write(await reader.read(1 << 16))
            with contextlib.suppress(ssl.SSLWantReadError):
                answer = tls.read(12)
        writer.close()
        await writer.wait_closed()
    assert answer == b"HTTP/1.1 206"
