"""Pulls one object with obstore into a file, by ranges. Runs in the rival's own environment.

``python _obstore_client.py ENDPOINT BUCKET KEY SIZE CA_FILE TARGET threads|tasks N PART_MIB``
"""

import asyncio
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import obstore
from obstore.store import S3Store

#: As our own movers do: one write of a MiB or more takes thrice the time with large folios.
WRITE_BYTES = 512 << 10


def main() -> None:
    endpoint, bucket, key, size, ca_file, target, how, n_workers, part_mib = sys.argv[1:]
    part_bytes = int(part_mib) << 20
    store = S3Store(
        bucket,
        endpoint=endpoint,
        skip_signature=True,
        virtual_hosted_style_request=False,
        client_options={"allow_http": True, "root_certificate": Path(ca_file).read_text()},
    )
    spans = [
        (begin, min(begin + part_bytes, int(size))) for begin in range(0, int(size), part_bytes)
    ]
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.truncate(fd, int(size))
    if how == "threads":
        _by_threads(store, key, spans, fd, int(n_workers))
    else:
        asyncio.run(_by_tasks(store, key, spans, fd, int(n_workers)))
    os.close(fd)


def _by_threads(
    store: S3Store, key: str, spans: list[tuple[int, int]], fd: int, n_workers: int
) -> None:
    def fetch(span: tuple[int, int]) -> None:
        _write(fd, obstore.get_range(store, key, start=span[0], end=span[1]), span[0])

    with ThreadPoolExecutor(n_workers) as pool:
        list(pool.map(fetch, spans))


async def _by_tasks(
    store: S3Store, key: str, spans: list[tuple[int, int]], fd: int, n_workers: int
) -> None:
    waiting = iter(spans)

    async def work() -> None:
        for begin, end in waiting:
            _write(fd, await obstore.get_range_async(store, key, start=begin, end=end), begin)

    await asyncio.gather(*(work() for _ in range(n_workers)))


def _write(fd: int, content: obstore.Bytes, offset: int) -> None:
    view = memoryview(content)
    while view:
        n_written = os.pwrite(fd, view[:WRITE_BYTES], offset)
        view, offset = view[n_written:], offset + n_written


if __name__ == "__main__":
    main()
