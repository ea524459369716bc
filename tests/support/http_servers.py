"""An aiohttp server whose end leaves no connection open, whenever its clients came."""

import asyncio

from aiohttp import web

#: Of the event loop, from a socket's acceptance until aiohttp knows the connection.
_TURNS = 4


class Runner(web.AppRunner):
    """Also closes those who came in the last turns before its end.

    asyncio would accept them when the server is closed already, and drop what it made of them:
    a later, innocent test would fail of the ResourceWarning.
    """

    async def cleanup(self) -> None:
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        await super().cleanup()
