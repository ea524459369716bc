"""Nodes of one swarm in this process: real stores, movers, upload workers and sockets."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from modelcache_node.caching.cache import Cache
from modelcache_node.caching.members import Members
from modelcache_node.caching.swarms import Swarms
from modelcache_node.peers.api import PeerApi
from modelcache_node.peers.client import PeerClient
from modelcache_node.peers.server import PeerReply, PeerServer, UploadOptions
from modelcache_node.store.store import Store
from modelcache_node.transfer.movers import Movers
from modelcache_node.transfer.starting import wall_clock
from support.caches import Clock, Node
from support.peers import KEYS, shown


class SwarmNode(Node):
    """A node that others reach at `address`, and who it shares with."""

    def __init__(self, cache: Cache, folder: Path, swarms: Swarms, address: str) -> None:
        clock = Clock()
        clock.now = wall_clock()
        super().__init__(cache, clock, folder)
        self.swarms = swarms
        self.address = address
        self.members: Members | None = Members()

    def data_of(self, revision: str, path: str) -> Path:
        return self.folder / "revisions" / revision.removeprefix("sha256:") / "tree" / path

    async def fetching(self) -> None:
        """Until a fetch has begun; it may have ended."""
        while not self.cache.report().revisions:
            await asyncio.sleep(0)

    async def leave(self) -> None:
        """Answer nobody any more."""
        await self._stack.aclose()


@asynccontextmanager
async def open_swarm(folder: Path, count: int, **options: Any) -> AsyncIterator[list[SwarmNode]]:
    """Nodes that all know each other; `options` are those of `Cache`."""
    async with AsyncExitStack() as stack:
        nodes = [
            await _open(folder / f"node-{number}", stack, **options) for number in range(count)
        ]
        for node in nodes:
            others = tuple(one.address for one in nodes if one is not node)
            node.members = Members.by_hand(node.address, others)
        yield nodes


async def _open(folder: Path, outer: AsyncExitStack, **options: Any) -> SwarmNode:
    stack = await outer.enter_async_context(AsyncExitStack())
    store = Store.open(folder, allow_any_disk=True)
    stack.callback(store.close)
    movers = await stack.enter_async_context(Movers(count=1))
    swarms = Swarms(store, clock=time.monotonic)
    cache = Cache(
        store,
        movers,
        swarms,
        now=wall_clock,
        clock=time.monotonic,
        version="test",
        **{"capacity_bytes": None, **options},
    )
    serving = await outer.enter_async_context(AsyncExitStack())
    server = await serving.enter_async_context(
        PeerServer(
            ("127.0.0.1", 0),
            UploadOptions(folder / "blobs", store.boot_id, workers=1),
            KEYS,
            answer=PeerApi(swarms, _nothing_public),
        )
    )
    stack.push_async_callback(cache.close)
    address = shown(server.address)
    client = await stack.enter_async_context(PeerClient(KEYS, asker=address, now=wall_clock))
    movers.use_cluster_keys(KEYS, asker=address)
    node = SwarmNode(cache, folder, swarms, address)
    node._stack = serving
    swarms.connect(address, client, lambda _: node.members, server.uploads_under_way)
    return node


async def _nothing_public(target: str) -> PeerReply:
    return PeerReply(404, b"", "text/plain")
