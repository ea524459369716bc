"""Reads one file in many ways, with many processes at once; prints bytes per second.

``_mount_reader.py FILE read|mmap|direct sequential|random N_READERS PASSES``. Standard library
only. The readers wait for each other, then read: each the whole file in order, or as many random
pieces, PASSES times.
"""

import mmap
import os
import random
import sys
import time

BLOCK = 1 << 20
PIECE = 64 << 10
#: Random pieces per reader: 128 MiB.
N_PIECES = 2048


def offsets(size: int, pattern: str, passes: int) -> tuple[list[int], int]:
    if pattern == "sequential":
        return list(range(0, size - BLOCK + 1, BLOCK)) * passes, BLOCK
    choose = random.Random(os.getpid())
    n_places = size // PIECE
    return [choose.randrange(n_places) * PIECE for _ in range(N_PIECES * passes)], PIECE


def read(path: str, how: str, pattern: str, passes: int, ready: int, go: int) -> int:
    fd = os.open(path, os.O_RDONLY | (os.O_DIRECT if how == "direct" else 0))
    size = os.fstat(fd).st_size
    places, length = offsets(size, pattern, passes)
    mapped = mmap.mmap(fd, size, prot=mmap.PROT_READ) if how == "mmap" else None
    target = memoryview(mmap.mmap(-1, BLOCK))[:length]
    target[:] = bytes(length)  # its own pages are there
    os.write(ready, b".")
    os.read(go, 1)
    if mapped is not None:
        view = memoryview(mapped)
        for offset in places:
            target[:] = view[offset : offset + length]
    else:
        for offset in places:
            if os.preadv(fd, [target], offset) != length:
                return 1
    return 0


def main() -> None:
    path, how, pattern = sys.argv[1:4]
    n_readers, passes = map(int, sys.argv[4:])
    ready, tell_ready = os.pipe()
    go, tell_go = os.pipe()
    pids = []
    for _ in range(n_readers):
        pid = os.fork()
        if pid == 0:
            os._exit(read(path, how, pattern, passes, tell_ready, go))
        pids.append(pid)
    for _ in pids:
        os.read(ready, 1)
    begun = time.monotonic()
    os.write(tell_go, b"." * len(pids))
    failed = [pid for pid in pids if os.waitpid(pid, 0)[1]]
    took = time.monotonic() - begun
    places, length = offsets(os.stat(path).st_size, pattern, passes)
    if failed:
        sys.exit("a reader failed")
    sys.stdout.write(str(len(places) * length * len(pids) / took))


if __name__ == "__main__":
    main()
