"""A node's cache in this process, whose wall clock a test sets."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from modelcache_api.cache_node import CacheNodeSpec
from modelcache_api.errors import error_of
from modelcache_api.listing import ListedObject
from modelcache_api.messages import (
    Done,
    Failed,
    Hello,
    LeaseAnswer,
    LeaseRequest,
    ListingEnd,
    Message,
    Objects,
    Proved,
)
from modelcache_node.caching.cache import Cache
from modelcache_node.caching.sessions import serve_session
from modelcache_node.caching.swarms import Swarms
from modelcache_node.origins.base import SourceOptions
from modelcache_node.origins.granting import GrantedSource
from modelcache_node.store.store import Store
from modelcache_node.transfer.movers import Movers
from support.s3_source import Source


class Clock:
    """Seconds of the Unix epoch, moved by hand."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class Port:
    """The transport of a session whose grants need no renewal."""

    def __init__(self, hello: Hello, objects: list[ListedObject]) -> None:
        self._said: list[Any] = [hello, Objects.model_construct(objects=objects)]
        self._said.append(ListingEnd(n_objects=len(objects)))
        self.ended: Message | None = None

    async def receive(self) -> Any:
        if self._said:
            return self._said.pop(0)
        return await asyncio.Event().wait()

    async def send(self, message: Message) -> None:
        if isinstance(message, Done | Proved | Failed):
            self.ended = message


class Node:
    """A cache, used as sessions and volumes use it."""

    def __init__(self, cache: Cache, clock: Clock, folder: Path) -> None:
        self.cache = cache
        self.clock = clock
        self.folder = folder

    async def prefetch(self, source: Source, namespace: str, **hello: Any) -> Done:
        """What a prefetch session does, to its end."""
        objects = await listing_of(source)
        said = Hello(**{"namespace": namespace, "model_cache": "model", **hello})
        return await self.serve(said, objects)

    async def serve(self, hello: Hello, objects: list[ListedObject]) -> Done:
        """A session of this listing, as the agent serves it."""
        port = Port(hello, objects)
        await serve_session(port, self.cache, namespace=hello.namespace)
        if isinstance(port.ended, Failed):
            raise error_of(port.ended.reason, port.ended.message)
        assert isinstance(port.ended, Done)
        return port.ended

    async def renew(self, source: Source, namespace: str, revision: str) -> str:
        """What a session that proves access alone does."""
        hello = Hello(namespace=namespace, model_cache="model", renews=revision)
        return await self.cache.renew(hello, await listing_of(source))

    async def lease(self, namespace: str, volume: str = "v1", **wish: Any) -> LeaseAnswer:
        request = LeaseRequest(**{"namespace": namespace, "model_cache": "model", **wish})
        return await self.cache.lease(volume, request)

    async def follow(self, **spec: Any) -> None:
        await self.cache.follow(CacheNodeSpec(**spec))


async def listing_of(source: Source, uri: str = "s3://models/model") -> list[ListedObject]:
    options = SourceOptions(uri, endpoint=source.endpoint.url, anonymous=True)
    return list(await GrantedSource(options).objects())


@asynccontextmanager
async def open_node(
    folder: Path, clock: Callable[[], float], **options: Any
) -> AsyncIterator[Node]:
    assert isinstance(clock, Clock)
    store = Store.open(folder, allow_any_disk=True)
    try:
        async with Movers(count=1) as movers:
            cache = Cache(
                store,
                movers,
                Swarms(store, clock=lambda: 0.0),
                capacity_bytes=None,
                now=clock,
                clock=lambda: 0.0,
                version="test",
                **options,
            )
            yield Node(cache, clock, folder)
            await cache.close()
    finally:
        store.close()
