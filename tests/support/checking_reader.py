"""``checking_reader.py FILE SHA256 read|mmap``: reads FILE until told to stop, and checks it.

Each pass reads the whole file in order and compares its SHA-256. Between blocks a block that was
read before, hence is present, is dropped from the page cache and read again: what that takes is a
stall. One JSON object at the end. Standard library only: it must start fast.
"""

import hashlib
import json
import mmap
import os
import random
import select
import sys
import time
import zlib

BLOCK = 1 << 20
PIECE = 64 << 10


def main() -> None:
    path, sha256, how = sys.argv[1:]
    fd = os.open(path, os.O_RDONLY)
    size = os.fstat(fd).st_size
    mapped = mmap.mmap(fd, size, prot=mmap.PROT_READ) if how == "mmap" else None
    choose = random.Random(os.getpid())
    known: dict[int, int] = {}
    report = {
        "errors": [], "wrong": 0, "reads": 0, "passes": 0,
        "longest_stall_s": 0.0, "longest_wait_s": 0.0,
    }  # fmt: skip

    def read(offset: int, length: int) -> bytes:
        report["reads"] += 1
        if mapped is not None:
            return mapped[offset : offset + length]
        return os.pread(fd, length, offset)

    def read_again() -> None:
        offset = choose.choice(list(known))
        os.posix_fadvise(fd, offset, PIECE, os.POSIX_FADV_DONTNEED)
        begun = time.monotonic()
        piece = os.pread(fd, PIECE, offset)
        report["reads"] += 1
        report["longest_stall_s"] = max(report["longest_stall_s"], time.monotonic() - begun)
        report["wrong"] += zlib.crc32(piece) != known[offset]

    is_told = False
    while not (is_told and report["passes"]):
        digest = hashlib.sha256()
        if mapped is not None:
            mapped.madvise(mmap.MADV_DONTNEED)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        for offset in range(0, size, BLOCK):
            try:
                begun = time.monotonic()
                block = read(offset, min(BLOCK, size - offset))
                waited = time.monotonic() - begun
                report["longest_wait_s"] = max(report["longest_wait_s"], waited)
                digest.update(block)
                known[offset] = zlib.crc32(block[:PIECE])
                read_again()
            except OSError as e:
                report["errors"].append(f"{offset}: {e}")
                break
            is_told = is_told or bool(select.select([0], [], [], 0)[0])
            if is_told and report["passes"]:
                break
        else:
            report["passes"] += 1
            report["wrong"] += digest.hexdigest() != sha256
        if report["errors"]:
            break
    sys.stdout.write(json.dumps(report))


if __name__ == "__main__":
    main()
