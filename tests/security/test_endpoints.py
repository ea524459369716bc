"""Endpoints without authentication, oversized input, and replay.

The class of CVE-2025-59345 and GO-2026-4356 (endpoints that ask nobody who he is), CVE-2023-27584
(a key that everybody knows), GO-2025-3972 (comparison in time) and of bodies without a bound.
"""

import asyncio
import inspect
import time
from contextlib import suppress

import aiohttp
import pytest
from aiohttp import web

from modelcache_api import peer_auth
from modelcache_api.errors import AccessDeniedError, InvalidRequestError
from modelcache_api.messages import MAX_MESSAGE_BYTES
from modelcache_api.peer_auth import ClusterKeys
from modelcache_node.serving.health_api import build_health_api
from modelcache_node.serving.job_api import build_job_api
from support.agent_process import Agent, agent_home
from support.caches import Clock, open_node
from support.http_servers import Runner
from support.peers import OTHER_KEYS, Holder, ask_for, chunk_path, exchange, new_nonce, serving

pytestmark = pytest.mark.looptime(False)

#: Every path below the peers' prefix that an agent serves.
PEER_ROUTES = (chunk_path(), "/peer/v1/holders/" + "ab" * 32 + "/0", "/peer/v1/have", "/peer/v1/x")


class NobodyIsKnown:
    async def namespace_of(self, token):
        raise AccessDeniedError("not a token that I know")


async def test_every_route_of_the_job_api_asks_who_is_there(tmp_path):
    """Unauthenticated endpoints (GO-2026-4356): each route of the Job API, each 401."""
    async with open_node(tmp_path / "data", Clock()) as node:
        app = build_job_api(node.cache, NobodyIsKnown())
        routes = [route for route in app.router.routes() if route.method != "HEAD"]
        assert [route.resource.canonical for route in routes] == ["/v1/prefetch"]
        async with Listening(app) as url, aiohttp.ClientSession() as http:
            for route in routes:
                for headers in ({}, {"Authorization": "Bearer x"}, {"Authorization": "Basic eDp4"}):
                    path = url + route.resource.canonical
                    async with http.request(route.method, path, headers=headers) as answer:
                        assert answer.status == 401


async def test_what_anybody_may_read_names_no_tenant(tmp_path, source):
    """Unauthenticated endpoints (CVE-2025-59345): health and metrics, and no names in them."""
    async with open_node(tmp_path / "data", Clock()) as node:
        revision = (await node.prefetch(source, "secret-team")).revision
        await node.lease("secret-team")
        app = build_health_api(node.cache)
        paths = {route.resource.canonical for route in app.router.routes()}
        assert paths == {"/healthz", "/metrics"}
        async with Listening(app) as url, aiohttp.ClientSession() as http:
            for path in paths:
                async with http.get(url + path) as answer:
                    text = await answer.text()
                assert "secret-team" not in text
                assert revision[7:20] not in text


@pytest.mark.parametrize("target", PEER_ROUTES)
async def test_every_route_for_peers_asks_for_the_cluster_key(tmp_path, target):
    """Unauthenticated endpoints (CVE-2025-59345): unsigned, and signed with another key, 401."""
    holder = Holder(tmp_path / "holder")
    holder.put(b"weights")
    unsigned = f"GET {target} HTTP/1.1\r\nHost: h\r\n\r\n".encode()
    forged = ask_for(target, keys=OTHER_KEYS)
    async with serving(holder) as server:
        for raw in (unsigned, forged):
            answer = await asyncio.to_thread(exchange, server.address, raw)
            assert answer.status == 401
            assert b"weights" not in answer.body
    holder.store.close()


async def test_a_peer_s_request_is_good_once_and_for_a_while(tmp_path):
    """Replay: the same request again, and one from long ago, are refused."""
    holder = Holder(tmp_path / "holder")
    holder.put(b"weights")
    once = ask_for(chunk_path(), nonce=new_nonce())
    old = ask_for(chunk_path(), now=time.time() - peer_auth.MAX_SKEW_S - 60)
    async with serving(holder) as server:
        statuses = [
            (await asyncio.to_thread(exchange, server.address, raw)).status
            for raw in (once, once, old)
        ]
    holder.store.close()
    assert statuses == [206, 401, 401]


@pytest.mark.parametrize("text", ["", "short", "\n\n", "x" * 31])
def test_there_is_no_key_that_everybody_knows(text):
    """Hard-coded key (CVE-2023-27584): without a real one nothing is signed."""
    with pytest.raises(InvalidRequestError):
        ClusterKeys.parse(text)


def test_macs_are_compared_in_equal_time():
    """Timing (GO-2025-3972): the comparison does not stop at the first difference."""
    assert "hmac.compare_digest" in inspect.getsource(ClusterKeys.has_made)


def test_oversized_bodies_end_a_request_and_not_the_agent():
    """Oversized bodies: a body, a frame and a header above their bounds are refused."""
    with agent_home() as home:
        agent = Agent(home)
        agent.start()
        try:
            huge = {"leases": {"v": "x" * (5 << 20)}}
            assert agent.ask("PUT", "/v1/leases", huge) == (
                413,
                {"reason": "InvalidRequest", "message": "the request's body is too large"},
            )
            asyncio.run(_send_oversized_frame(agent))
            assert agent.ask("GET", "/v1/status")[0] == 200
        finally:
            agent.stop()


async def _send_oversized_frame(agent):
    """Returns once the agent has ended the session."""
    connector = aiohttp.UnixConnector(str(agent.socket))
    async with (
        aiohttp.ClientSession(connector=connector) as http,
        http.ws_connect("http://agent/v1/prefetch", max_msg_size=0) as session,
    ):
        async with asyncio.timeout(60):
            with suppress(ConnectionError):  # it may end while we still send
                await session.send_str("x" * (MAX_MESSAGE_BYTES + 1))
            while not session.closed:
                await session.receive()


class Listening:
    """An application on loopback, over plain HTTP."""

    def __init__(self, app):
        self._runner = Runner(app)

    async def __aenter__(self):
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def __aexit__(self, *_):
        await self._runner.cleanup()
