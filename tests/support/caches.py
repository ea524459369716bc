"""A node's cache in this process, whose wall clock a test sets."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from modelcache_api.cache_node import CacheNodeSpec
from modelcache_api.messages import Done, Hello, LeaseAnswer, LeaseRequest, ListedObject
from modelcache_node.caching.cache import Cache
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


class Issuer:
    """A session that never has to renew a grant."""

    async def renew(self, paths: Any) -> Any:
        raise AssertionError(paths)


class Node:
    """A cache, used as sessions and volumes use it."""

    def __init__(self, cache: Cache, clock: Clock) -> None:
        self.cache = cache
        self.clock = clock

    async def prefetch(self, source: Source, namespace: str, **hello: Any) -> Done:
        """What a prefetch session does, to its end."""
        objects = await listing_of(source)
        said = Hello(**{"namespace": namespace, "model_cache": "model", **hello})
        fetch = await self.cache.begin(said, objects)
        issuer = Issuer()
        fetch.grants.attach(issuer, fetch.grants_by_blob(objects))
        try:
            return await fetch.wait()
        finally:
            fetch.grants.detach(issuer)

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
                capacity_bytes=None,
                now=clock,
                clock=lambda: 0.0,
                version="test",
                **options,
            )
            yield Node(cache, clock)
            await cache.close()
    finally:
        store.close()
