"""Small questions between agents: signed both ways, bounded, and answered by the right one."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator

import pytest

from modelcache_api.errors import InvalidRequestError
from modelcache_api.have_map import MAX_HAVE_MAP_BYTES
from modelcache_api.manifest import File, Manifest
from modelcache_node.peers import client as client_module
from modelcache_node.peers.api import PeerApi
from modelcache_node.peers.client import PeerClient
from modelcache_node.peers.server import PeerReply
from modelcache_node.transfer.peer_ranges import (
    PeerLacksError,
    PeerMisbehavedError,
    PeerRefusedError,
    PeerUnavailableError,
)
from modelcache_node.transfer.starting import wall_clock
from support.peers import ASKER, KEYS, OTHER_KEYS, bad_peer, serving, shown

pytestmark = pytest.mark.looptime(False)

MANIFEST = Manifest.of([File("weights", 5, "ab" * 32)])
REVISION = MANIFEST.revision


class Host:
    """Says what it was asked."""

    def manifest(self, revision):
        return MANIFEST.canonical() if revision == REVISION else None

    async def have(self, revision, asker, *, instance, since, wait_s):
        return f"{revision} {instance} {since} {wait_s}".encode()

    def claim(self, revision, asker, body):
        return asker.encode() + b" " + body

    def holders(self, blob, index, asker):
        return ()


async def public(target):
    return PeerReply(200, target.encode())


@contextlib.asynccontextmanager
async def asking(keys=KEYS, now=wall_clock) -> AsyncIterator[PeerClient]:
    async with PeerClient(keys, asker=ASKER, now=now) as client:
        yield client


async def test_agents_ask_for_manifests_maps_and_claims(holder):
    async with serving(holder, answer=PeerApi(Host(), public)) as server, asking() as client:
        peer = shown(server.address)
        assert await client.manifest(peer, REVISION) == MANIFEST.canonical()
        told = await client.have(peer, REVISION, instance=7, since=9, wait_s=0.25)
        assert told == f"{REVISION} 7 9 0.25".encode()
        body = os.urandom(30_000)
        assert await client.claim(peer, REVISION, body) == ASKER.encode() + b" " + body
        with pytest.raises(PeerLacksError):
            await client.manifest(peer, "sha256:" + "0" * 64)
        with pytest.raises(InvalidRequestError):
            await client.manifest(peer, "../../etc/passwd")


async def test_a_map_may_be_as_long_as_maps_get(holder):
    class Full(Host):
        async def have(self, revision, asker, *, instance, since, wait_s):
            return bytes(MAX_HAVE_MAP_BYTES)

    async with serving(holder, answer=PeerApi(Full(), public)) as server, asking() as client:
        told = await client.have(shown(server.address), REVISION, instance=7, since=9, wait_s=0.0)
    assert len(told) == MAX_HAVE_MAP_BYTES


async def test_another_cluster_is_told_nothing(holder):
    api = PeerApi(Host(), public)
    async with serving(holder, answer=api) as server, asking(OTHER_KEYS) as client:
        with pytest.raises(PeerRefusedError, match="compare the key files"):
            await client.manifest(shown(server.address), REVISION)


async def test_clock_skew_comes_back_with_the_skew_in_it(holder):
    api = PeerApi(Host(), public)
    early = asking(now=lambda: wall_clock() + 500)
    async with serving(holder, answer=api) as server, early as client:
        with pytest.raises(PeerRefusedError, match=r"clock skew: .* (499|500)\.. s ahead"):
            await client.manifest(shown(server.address), REVISION)


async def test_an_unsigned_answer_is_not_taken():
    def forge(connection, asked):
        connection.sendall(asked.refusal(200, MANIFEST.canonical(), signed=False))

    with bad_peer(forge) as peer:
        async with asking() as client:
            with pytest.raises(PeerMisbehavedError, match="not signed"):
                await client.manifest(peer.address, REVISION)


async def test_a_manifest_of_another_revision_is_not_taken():
    def other(connection, asked):
        connection.sendall(asked.refusal(200, b'{"files":[],"version":1}'))

    with bad_peer(other) as peer:
        async with asking() as client:
            with pytest.raises(PeerMisbehavedError, match="another revision"):
                await client.manifest(peer.address, REVISION)


async def test_an_oversized_answer_is_not_read_to_its_end(monkeypatch):
    monkeypatch.setattr(client_module, "MAX_CLAIM_BYTES", 1000)

    def endless(connection, asked):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n")
        while not peer.closing.is_set():
            connection.sendall(bytes(1 << 16))

    with bad_peer(endless) as peer:
        async with asking() as client:
            with pytest.raises(PeerMisbehavedError, match="longer than 1000 bytes"):
                await client.claim(peer.address, REVISION, b"{}")


async def test_a_silent_peer_is_waited_for_as_long_as_was_said(monkeypatch):
    monkeypatch.setattr(client_module, "ANSWER_TIMEOUT_S", 0.2)
    with bad_peer(lambda connection, asked: peer.closing.wait()) as peer:
        async with asking() as client:
            with pytest.raises(PeerUnavailableError):
                await client.claim(peer.address, REVISION, b"{}")


async def test_a_bug_in_an_answer_is_reported_here_and_not_there(holder, caplog):
    async def broken(call):
        raise ValueError("a bug")

    async with serving(holder, answer=broken) as server, asking() as client:
        with pytest.raises(PeerUnavailableError, match="HTTP 500"):
            await client.manifest(shown(server.address), REVISION)
    assert "a bug" in caplog.text


async def test_an_agent_that_is_silent_for_too_long_is_answered_for(holder, monkeypatch):
    async def silent(call):
        await asyncio.Event().wait()

    monkeypatch.setattr("modelcache_node.peers.server.ANSWER_TIMEOUT_S", 0.1)
    async with serving(holder, answer=silent) as server, asking() as client:
        with pytest.raises(Exception, match="busy"):
            await client.manifest(shown(server.address), REVISION)
