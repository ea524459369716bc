"""Nodes that hold one blob and serve it, each with the agent's own upload workers.

``python _peer_nodes.py BLOBS KEY_FILE`` is one of them: it says its address, and ends with its
standard input.
"""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from _scratch import make_file
from awscrt import checksums

from modelcache_api.chunks import CHUNK_BYTES, chunk_count, chunk_range
from modelcache_node.peers.server import PeerCall, PeerReply, PeerServer, UploadOptions
from modelcache_node.serving.cluster_keys import read_keys
from modelcache_node.store.blob_dirs import SEALED_MODE
from modelcache_node.store.journal import Journal
from modelcache_node.store.store import read_boot_id

KEY = "ab" * 32


@dataclass(frozen=True)
class Node:
    """One that serves."""

    address: str
    pid: int


def make_blob(blobs: Path, n_bytes: int) -> Path:
    """A sealed blob as a store has it; returns its data."""
    directory = blobs / KEY[:2] / KEY
    data = make_file(directory / "data", n_bytes)
    journal = Journal.create(directory / "chunks", n_bytes, read_boot_id())
    with data.open("rb") as opened:
        for index in range(chunk_count(n_bytes)):
            piece = opened.read(chunk_range(index, n_bytes)[1])
            journal.mark_present(index, checksums.crc32c(piece))
    journal.seal()
    journal.close()
    data.chmod(SEALED_MODE)
    return data


def crcs_of(data: Path) -> list[int]:
    """What a have-map says of the chunks."""
    with data.open("rb") as opened:
        return [checksums.crc32c(piece) for piece in iter(lambda: opened.read(CHUNK_BYTES), b"")]


@contextmanager
def nodes_serving(blobs: Path, key_file: Path, count: int) -> Iterator[list[Node]]:
    """So many nodes over one directory: what is shared is the page cache, as on one machine."""
    with ExitStack() as stack:
        yield [stack.enter_context(_node(blobs, key_file)) for _ in range(count)]


@contextmanager
def _node(blobs: Path, key_file: Path) -> Iterator[Node]:
    process = subprocess.Popen(
        [sys.executable, __file__, str(blobs), str(key_file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdin
    try:
        yield Node(process.stdout.readline().strip(), process.pid)
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


async def _serve(blobs: Path, key_file: Path) -> None:
    async def answer(_call: PeerCall) -> PeerReply:
        return PeerReply(404)  # nothing but chunks

    options = UploadOptions(blobs, read_boot_id())
    async with PeerServer(("127.0.0.1", 0), options, read_keys(key_file), answer=answer) as server:
        host, port = server.address
        print(f"{host}:{port}", flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), Path(sys.argv[2])))
