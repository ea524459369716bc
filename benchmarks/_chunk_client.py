"""Fetches all chunks of one blob with the movers, from peers or from an object store.

``python _chunk_client.py`` reads its orders from standard input, a JSON object: ``data`` (the file
to write), ``n_bytes``, and either ``url`` or ``peers``, ``blob``, ``crcs``, ``key_file``. It says
what it took, from the first request to the last byte, as another.
"""

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from _processes import cpu_seconds, tree_of

from modelcache_api.chunks import chunk_count, chunk_range
from modelcache_node.serving.cluster_keys import read_keys
from modelcache_node.transfer.movers import Movers
from modelcache_node.transfer.peer_ranges import PeerBusyError, PeerRange
from modelcache_node.transfer.ranges import Grant, RangeRequest

#: Requests outstanding: what a downloader of a swarm has.
OUTSTANDING = 6


async def _fetch(movers: Movers, orders: dict[str, Any], index: int) -> None:
    n_bytes = orders["n_bytes"]
    if "url" in orders:
        offset, length = chunk_range(index, n_bytes)
        grant = Grant(orders["url"])
        await movers.fetch(RangeRequest(orders["data"], offset, length, grant, total_bytes=n_bytes))
        return
    peers = orders["peers"]
    wanted = PeerRange(
        peer=peers[index % len(peers)],
        blob=orders["blob"],
        index=index,
        total_bytes=n_bytes,
        path=orders["data"],
        crc32c=orders["crcs"][index],
    )
    while True:
        try:
            await movers.fetch_from_peer(wanted)
        except PeerBusyError as e:
            await asyncio.sleep(e.retry_after_s)
        else:
            return


async def _run(orders: dict[str, Any]) -> None:
    n_chunks = chunk_count(orders["n_bytes"])
    async with Movers() as movers:
        if "key_file" in orders:
            movers.use_cluster_keys(read_keys(Path(orders["key_file"])), asker="127.0.0.1:1")
        await _fetch(movers, orders, 0)  # the workers are up
        began_at, used_before = time.monotonic(), cpu_seconds(tree_of(os.getpid()))
        waiting = iter(range(1, n_chunks))

        async def work() -> None:
            for index in waiting:
                await _fetch(movers, orders, index)

        await asyncio.gather(*(work() for _ in range(OUTSTANDING)))
        seconds = time.monotonic() - began_at
        used_s = cpu_seconds(tree_of(os.getpid())) - used_before
    done_bytes = orders["n_bytes"] - chunk_range(0, orders["n_bytes"])[1]
    print(json.dumps({"seconds": seconds, "cpu_seconds": used_s, "n_bytes": done_bytes}))


if __name__ == "__main__":
    asyncio.run(_run(json.loads(sys.stdin.read())))
