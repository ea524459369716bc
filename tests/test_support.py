"""What tests rely on holds by itself."""

import asyncio
import gc
import socket

import pytest
from aiohttp import web

from support.http_servers import Runner


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("turns", range(6))
def test_a_server_that_ends_leaves_no_connection_of_who_just_came(turns):
    async def come_and_end() -> None:
        runner = Runner(web.Application())
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        with socket.create_connection(runner.addresses[0]):
            for _ in range(turns):
                await asyncio.sleep(0)
            await runner.cleanup()

    asyncio.run(come_and_end())
    gc.collect()
