"""Peers that answer wrongly: nothing of it is taken, and the one at fault is blamed."""

import asyncio
import os
import socket
from collections.abc import Callable

import pytest
from awscrt import checksums

from modelcache_api.chunks import CHUNK_BYTES
from modelcache_api.units import KIB
from modelcache_node.transfer.peer_ranges import (
    PeerBusyError,
    PeerLacksError,
    PeerMisbehavedError,
    PeerRefusedError,
    PeerUnavailableError,
)
from support.peers import (
    OTHER_KEYS,
    HeardRequest,
    Misdeed,
    bad_peer,
    chunk_of,
    new_nonce,
    serving,
    shown,
)
from support.wire import wire_to

pytestmark = pytest.mark.looptime(False)

DATA = os.urandom(100_000)
WRONG = DATA[:-1] + bytes([DATA[-1] ^ 1])
GIVEN_UP = "stalled|too slow"
Answer = Callable[[HeardRequest], bytes]


def answering(answer: Answer) -> Misdeed:
    return lambda connection, asked: connection.sendall(answer(asked))


async def is_blamed(movers, target, misdeed, match=None):
    """The peer is blamed and nothing but whole, right bytes could count: `fetch` raised."""
    with bad_peer(misdeed) as peer, pytest.raises(PeerMisbehavedError, match=match) as caught:
        await movers.fetch_from_peer(chunk_of(peer.address, DATA, target))
    assert caught.value.peer == peer.address


async def test_wrong_bytes_with_a_matching_checksum_of_their_own_are_dropped_and_blamed(
    holder, movers, target
):
    def lie(asked: HeardRequest) -> bytes:
        return asked.answer(WRONG)

    await is_blamed(movers, target, answering(lie), "was fetched")
    assert target.read_bytes() == b""  # refused at the head: not a byte was written
    holder.put(DATA)
    async with serving(holder) as server:  # the next peer
        await movers.fetch_from_peer(chunk_of(shown(server.address), DATA, target))
    assert target.read_bytes() == DATA


async def test_wrong_bytes_under_the_right_checksum_are_dropped_and_blamed(movers, target):
    right = checksums.crc32c(DATA)
    await is_blamed(movers, target, answering(lambda asked: asked.answer(WRONG, crc32c=right)))


async def test_wrong_bytes_are_noticed_when_nobody_announced_the_checksum(movers, target):
    answer = answering(lambda asked: asked.answer(WRONG, crc32c=checksums.crc32c(DATA)))
    with bad_peer(answer) as peer, pytest.raises(PeerMisbehavedError, match="its bytes have"):
        await movers.fetch_from_peer(chunk_of(peer.address, DATA, target, crc32c=None))


async def test_a_truncated_answer_is_not_taken(movers, target):
    def cut(connection: socket.socket, asked: HeardRequest) -> None:
        connection.sendall(asked.answer(DATA)[:-1000])
        connection.shutdown(socket.SHUT_WR)

    with bad_peer(cut) as peer, pytest.raises(PeerUnavailableError, match="broke off after"):
        await movers.fetch_from_peer(chunk_of(peer.address, DATA, target))


async def test_a_stalled_answer_is_given_up(hasty_movers, target):
    def stall(connection: socket.socket, asked: HeardRequest) -> None:
        connection.sendall(asked.answer(DATA)[:-1000])
        peer.closing.wait()

    with bad_peer(stall) as peer, pytest.raises(PeerUnavailableError, match=GIVEN_UP):
        await hasty_movers.fetch_from_peer(chunk_of(peer.address, DATA, target))


async def test_a_slow_loris_that_sends_its_head_byte_by_byte_is_given_up(hasty_movers, target):
    def trickle(connection: socket.socket, asked: HeardRequest) -> None:
        for byte in asked.answer(DATA):
            connection.sendall(bytes([byte]))
            if peer.closing.wait(0.05):
                return

    with bad_peer(trickle) as peer, pytest.raises(PeerUnavailableError, match=GIVEN_UP):
        await hasty_movers.fetch_from_peer(chunk_of(peer.address, DATA, target))


async def test_an_oversized_answer_is_blamed_and_not_read(movers, target):
    def more(asked: HeardRequest) -> bytes:
        return asked.answer(DATA + b"more", crc32c=checksums.crc32c(DATA), total_bytes=len(DATA))

    await is_blamed(movers, target, answering(more), "asked for bytes")
    assert target.read_bytes() == b""


async def test_bytes_beyond_an_answers_length_spoil_no_later_answer(holder, movers, target):
    with bad_peer(answering(lambda asked: asked.answer(DATA) + asked.answer(WRONG))) as peer:
        wanted = chunk_of(peer.address, DATA, target)
        for _ in range(3):
            try:
                await movers.fetch_from_peer(wanted)
            except PeerMisbehavedError:
                continue
            assert target.read_bytes() == DATA


async def test_a_head_without_end_is_blamed(movers, target):
    def endless(connection: socket.socket, asked: HeardRequest) -> None:
        connection.sendall(b"HTTP/1.1 206 Partial Content\r\n" + b"X: y\r\n" * 10_000)
        peer.closing.wait()

    with bad_peer(endless) as peer, pytest.raises(PeerMisbehavedError, match="longer than"):
        await movers.fetch_from_peer(chunk_of(peer.address, DATA, target))


@pytest.mark.parametrize(
    ("answer", "match"),
    [
        (lambda asked: asked.answer(DATA, key="cd" * 32), "ETag"),
        (lambda asked: asked.answer(DATA, total_bytes=len(DATA) + 1), "bytes"),
        (lambda asked: asked.answer(DATA, offset=5), "asked for bytes"),
    ],
    ids=["another blob", "another size", "another place"],
)
async def test_a_chunk_of_a_wrong_revision_is_blamed_and_never_a_changed_source(
    movers, target, answer, match
):
    await is_blamed(movers, target, answering(answer), match)
    assert target.read_bytes() == b""


def unsigned(asked: HeardRequest) -> bytes:
    head, _, body = asked.answer(DATA).partition(b"\r\n\r\n")
    kept = [line for line in head.split(b"\r\n") if not line.startswith(b"ModelCache-Peer")]
    return b"\r\n".join(kept) + b"\r\n\r\n" + body


def tampered(old: bytes, new: bytes) -> Answer:
    return lambda asked: asked.answer(DATA).replace(old, new, 1)


@pytest.mark.parametrize(
    "answer",
    [
        unsigned,
        lambda asked: asked.answer(DATA, keys=OTHER_KEYS),
        lambda asked: asked.answer(DATA, nonce=new_nonce()),
        tampered(b"10.0.0.9", b"10.0.0.8"),
        tampered(b"crc32c:", b"crc32d:"),
        tampered(b"206 Partial", b"200 Partial"),
        tampered(b"ModelCache-Peer: 1", b"ModelCache-Peer: 2"),
    ],
    ids=["unsigned", "other cluster", "replayed", "provider", "checksum", "status", "version"],
)
async def test_an_answer_that_is_not_signed_for_this_very_request_is_not_taken(
    movers, target, answer
):
    await is_blamed(movers, target, answering(answer))
    assert target.read_bytes() == b""


async def test_a_replayed_answer_is_not_taken(movers, target):
    recorded: list[bytes] = []

    def replay(asked: HeardRequest) -> bytes:
        recorded.append(asked.answer(DATA))
        return recorded[0]

    with bad_peer(answering(replay)) as peer:
        wanted = chunk_of(peer.address, DATA, target)
        await movers.fetch_from_peer(wanted)
        with pytest.raises(PeerMisbehavedError, match="not one of this cluster to this request"):
            await movers.fetch_from_peer(wanted)


async def test_an_unsigned_word_that_a_peer_is_busy_or_lacks_a_chunk_is_not_believed(
    movers, target
):
    for status in (503, 404, 302, 500):
        forged = answering(lambda asked, s=status: asked.refusal(s, b"10.6.6.6:1", signed=False))
        await is_blamed(movers, target, forged, "not signed")


async def test_hints_are_those_that_were_signed(movers, target):
    text = b"10.0.0.1:7440\n10.0.0.2:7440"
    genuine = answering(lambda a: a.refusal(503, text, headers="Retry-After: 3\r\n"))
    with bad_peer(genuine) as peer, pytest.raises(PeerBusyError) as caught:
        await movers.fetch_from_peer(chunk_of(peer.address, DATA, target))
    assert (caught.value.retry_after_s, len(caught.value.hints)) == (3.0, 2)
    forged = answering(lambda asked: asked.refusal(503, text).replace(b"10.0.0.1", b"10.6.6.6"))
    await is_blamed(movers, target, forged, "not the one that was signed")


async def test_a_have_map_that_lies_costs_one_request(holder, movers, target):
    partial = holder.begin(DATA)  # announced, perhaps; present it is not
    async with serving(holder) as server:
        with pytest.raises(PeerLacksError):
            await movers.fetch_from_peer(chunk_of(shown(server.address), DATA, target))
    partial.close()
    assert target.read_bytes() == b""


async def test_a_peer_with_another_clock_says_so_with_the_difference(movers, target):
    words = b"clock skew: the asking node's clock is 312.0 s ahead of this node's"
    refusing = answering(lambda asked: asked.refusal(401, words, signed=False))
    with bad_peer(refusing) as peer, pytest.raises(PeerRefusedError, match=r"312\.0 s ahead"):
        await movers.fetch_from_peer(chunk_of(peer.address, DATA, target))


async def test_nobody_behind_an_address_is_told_at_once(movers, target):
    with socket.create_server(("127.0.0.1", 0)) as gone:
        address = shown(gone.getsockname())
    with pytest.raises(PeerUnavailableError, match="refused"):
        await movers.fetch_from_peer(chunk_of(address, DATA, target))
    with pytest.raises(PeerUnavailableError):
        await movers.fetch_from_peer(chunk_of("no address", DATA, target))


async def test_a_network_partition_that_heals_costs_the_requests_made_in_it(holder, movers, target):
    holder.put(DATA)
    async with serving(holder) as server:
        with wire_to(*server.address) as wire:
            wanted = chunk_of(f"127.0.0.1:{wire.port}", DATA, target)
            await movers.fetch_from_peer(wanted)
            wire.cut()
            for _ in range(3):
                with pytest.raises(PeerUnavailableError):
                    await movers.fetch_from_peer(wanted)
            target.write_bytes(b"")
            wire.mend()
            await movers.fetch_from_peer(wanted)
    assert target.read_bytes() == DATA


async def test_a_cancelled_fetch_writes_nothing_more(movers, target):
    asked_for = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stall(connection: socket.socket, asked: HeardRequest) -> None:
        connection.sendall(asked.answer(bytes(CHUNK_BYTES))[: 64 * KIB])
        loop.call_soon_threadsafe(asked_for.set)
        peer.closing.wait()

    with bad_peer(stall) as peer:
        wanted = chunk_of(peer.address, bytes(CHUNK_BYTES), target)
        fetching = asyncio.create_task(movers.fetch_from_peer(wanted))
        await asked_for.wait()
        fetching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fetching
        target.write_bytes(b"")
    assert target.read_bytes() == b""
