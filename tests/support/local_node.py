"""A node in this process: the agent's own cache, movers and local API, and sessions to it."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp

from modelcache_api.messages import Done, Hello
from modelcache_node import app
from modelcache_node.app import AgentOptions
from modelcache_node.caching.cache import Cache
from modelcache_node.origins.base import SourceOptions
from modelcache_node.patience import Patience
from modelcache_node.prefetching import AgentAddress, Prefetch
from support.fault_origin import FaultOrigin

#: A session of some megabytes ends well within this. Arbitrary.
PATIENCE_S = 60.0

Answer = dict[str, Any]


@dataclass(frozen=True)
class LocalNode:
    """One node over one directory."""

    cache: Cache
    home: Path

    @property
    def socket(self) -> Path:
        return self.home / "s"

    def tree(self, revision: str) -> Path:
        return self.home / "data/revisions" / revision.removeprefix("sha256:") / "tree"

    async def prefetch(
        self,
        origin: FaultOrigin,
        uri: str = "s3://models/model",
        *,
        namespace: str = "",
        give_up_s: float = PATIENCE_S,
        options: SourceOptions | None = None,
    ) -> Done:
        """What ``modelcache prefetch`` does; raises what it prints."""
        options = options or SourceOptions(uri, anonymous=True)
        prefetch = Prefetch(
            replace(options, endpoint=origin.url),
            AgentAddress(socket=self.socket),
            Hello(namespace=namespace, model_cache="model"),
            on_progress=lambda _: None,
            patience=Patience(give_up_s, clock=time.monotonic),
        )
        return await prefetch.run()

    async def say(self, *messages: Answer | str) -> Answer:
        """Open a session, say these, and return what ends it."""
        connector = aiohttp.UnixConnector(str(self.socket))
        async with (
            asyncio.timeout(PATIENCE_S),
            aiohttp.ClientSession(connector=connector) as http,
            http.ws_connect("http://localhost/v1/prefetch") as session,
        ):
            for one in messages:
                await (session.send_str(one) if isinstance(one, str) else session.send_json(one))
            while True:
                answer: Answer = await session.receive_json()
                if answer["type"] in ("Done", "Failed"):
                    return answer


@asynccontextmanager
async def running_node(home: Path, **options: Any) -> AsyncIterator[LocalNode]:
    """A node over `home`, which has a short path, as a socket is made there."""
    async with AsyncExitStack() as stack:
        parsed = AgentOptions(
            data_dir=home / "data",
            socket=home / "s",
            listen=("127.0.0.1", 0),
            **{"movers": 1, "allow_any_disk": True, **options},
        )
        cache = (await app._open_agent(parsed, stack)).cache
        await app._serve_local(parsed, cache, stack)
        yield LocalNode(cache, home)
