"""Reading a model through a lazy mount while it comes from an origin of limited rate.

A whole node (agent, plugin, keeper) on this machine, nginx as the store, a proxy for the rate.
"""

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from _servers import BUCKET, nginx_store

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from modelcache_api.chunks import CHUNK_BYTES
from support.lazy_node import LazyNode
from support.mount_namespace import detach, make_shared, mount_tmpfs

_READ = """
import os, sys, time
fd = os.open(sys.argv[1], os.O_RDONLY)
size, at = os.fstat(fd).st_size, 0
while at < size:
    at += len(os.pread(fd, 1 << 20, at))
print(time.monotonic())
"""
#: Of requests to the idle origin, the quickest counts.
_TRIES = 3
_PATIENCE_S = 600.0


@dataclass(frozen=True)
class Along:
    """Seconds from the Job's start."""

    download_s: float
    read_s: float


@dataclass(frozen=True)
class FirstByte:
    """Seconds for a chunk from the idle origin, and from open to the first byte of a cold mount."""

    chunk_s: float
    first_byte_s: float


def read_along(scratch: Path, n_bytes: int, rate: int) -> Along:
    """One file, read in order from the moment on that it can be mounted."""
    with _node(scratch / "along", {"model.safetensors": n_bytes}, rate) as (node, _):
        begun = time.monotonic()
        node.prefetch(1, uri=f"s3://{BUCKET}")
        target = node.publish("pod", 1)
        reader = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _READ, str(target / "model.safetensors")],
            stdout=subprocess.PIPE,
            text=True,
        )
        node.until_fetched(_PATIENCE_S)
        fetched = time.monotonic()
        ended = float(reader.communicate(timeout=_PATIENCE_S)[0])
        node.unpublish(target)
    return Along(fetched - begun, ended - begun)


def first_byte(scratch: Path, n_bytes: int, rate: int) -> FirstByte:
    """Four files; the first byte of the last one, while the first one is being fetched."""
    sizes = {f"model-{i}-of-4.safetensors": n_bytes // 4 for i in range(1, 5)}
    with _node(scratch / "first", sizes, rate) as (node, url):
        last = list(sizes)[-1]
        chunk_s = min(_one_chunk_s(f"{url}/{BUCKET}/{last}") for _ in range(_TRIES))
        node.prefetch(1, uri=f"s3://{BUCKET}")
        target = node.publish("pod", 1)
        begun = time.monotonic()
        fd = os.open(target / last, os.O_RDONLY)
        os.pread(fd, 1, 0)
        took_s = time.monotonic() - begun
        os.close(fd)
        node.unpublish(target)
    return FirstByte(chunk_s, took_s)


def _one_chunk_s(url: str) -> float:
    request = urllib.request.Request(url, headers={"Range": f"bytes=0-{CHUNK_BYTES - 1}"})
    begun = time.monotonic()
    with urllib.request.urlopen(request, timeout=_PATIENCE_S) as answer:
        answer.read()
    return time.monotonic() - begun


@contextmanager
def _node(home: Path, sizes: dict[str, int], rate: int) -> Iterator[tuple[LazyNode, str]]:
    """A node, and the URL of an origin of that rate with files of those sizes."""
    bucket = home / BUCKET
    bucket.mkdir(parents=True)
    (home / "nginx").mkdir()
    for name, size in sizes.items():
        (bucket / name).touch()
        os.truncate(bucket / name, size)
    kubelet_root = home / "kubelet"
    kubelet_root.mkdir()
    mount_tmpfs(kubelet_root)
    make_shared(kubelet_root)
    try:
        with nginx_store(bucket, home / "nginx") as store, _paced(store.http_url, rate) as url:
            node = LazyNode(home, endpoint_url=url)
            node.start()
            try:
                yield node, url
            finally:
                node.stop()
    finally:
        detach(kubelet_root)


@contextmanager
def _paced(url: str, rate: int) -> Iterator[str]:
    proxy = subprocess.Popen(
        [
            *(sys.executable, str(Path(__file__).with_name("_pacing_proxy.py"))),
            *(url.rpartition(":")[2], str(rate)),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert proxy.stdout
    try:
        yield f"http://127.0.0.1:{int(proxy.stdout.readline())}"
    finally:
        proxy.communicate()
