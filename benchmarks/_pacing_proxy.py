"""An origin of limited rate: passes TCP connections on, all answers together no faster than told.

``_pacing_proxy.py TARGET_PORT BYTES_PER_S``; prints the port it listens on. A connection whose
client does not read takes nothing of the rate. Ends with its standard input.
"""

import asyncio
import socket
import sys
import time

PIECE_BYTES = 32 << 10
#: What lies between origin and client at most, per connection: as a network's queues would hold.
SEND_BUFFER_BYTES = 256 << 10


class Pace:
    """A token bucket whose takers take turns."""

    def __init__(self, bytes_per_s: float) -> None:
        self._rate = bytes_per_s
        self._free_at = time.monotonic()
        self._turn = asyncio.Lock()

    async def take(self, n_bytes: int) -> None:
        async with self._turn:
            now = time.monotonic()
            self._free_at = max(self._free_at, now - 0.01) + n_bytes / self._rate
            if self._free_at > now:
                await asyncio.sleep(self._free_at - now)


async def serve(target_port: int, bytes_per_s: float) -> None:
    pace = Pace(bytes_per_s)

    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(PIECE_BYTES):
            await writer.drain()
            await pace.take(len(piece))
            writer.write(piece)
        writer.close()

    async def requests(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(PIECE_BYTES):
            writer.write(piece)
        writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES
        )
        writer.transport.set_write_buffer_limits(high=PIECE_BYTES)
        upstream = await asyncio.open_connection("127.0.0.1", target_port, limit=PIECE_BYTES)
        tasks = [answers(upstream[0], writer), requests(reader, upstream[1])]
        await asyncio.gather(*tasks, return_exceptions=True)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), float(sys.argv[2])))
