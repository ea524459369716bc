"""Reads a model over and over, past the page cache; prints a line of counts each second.

Every piece is compared with what the first pass found, which the first line holds as sums.
"""

import hashlib
import json
import os
import random
import sys
import time
import zlib
from pathlib import Path

PIECE_BYTES = 1 << 20
root = Path(sys.argv[1])


def piece(path: Path, number: int) -> bytes:
    """Open, read and close anew: whatever happens to the mount shows at once."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, number * PIECE_BYTES, PIECE_BYTES, os.POSIX_FADV_DONTNEED)
        return os.pread(fd, PIECE_BYTES, number * PIECE_BYTES)
    finally:
        os.close(fd)


def main() -> None:
    expected: dict[tuple[Path, int], int] = {}
    sums: dict[str, str] = {}
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        digest = hashlib.sha256()
        for number in range(-(-path.stat().st_size // PIECE_BYTES)):
            found = piece(path, number)
            digest.update(found)
            expected[path, number] = zlib.crc32(found)
        sums[path.relative_to(root).as_posix()] = digest.hexdigest()
    print(json.dumps({"sums": sums}), flush=True)
    keep_reading(expected)


def keep_reading(expected: dict[tuple[Path, int], int]) -> None:
    places = list(expected)
    reads, wrong, errors, longest_s = 0, 0, [], 0.0
    told_at = time.monotonic()
    while True:
        path, number = random.choice(places)
        began = time.monotonic()
        try:
            wrong += zlib.crc32(piece(path, number)) != expected[path, number]
        except OSError as e:
            errors.append(f"{path.name}: {e}")
        now = time.monotonic()
        reads, longest_s = reads + 1, max(longest_s, now - began)
        if now - told_at >= 1:
            line = {"reads": reads, "wrong": wrong, "errors": errors[:5], "longestS": longest_s}
            print(json.dumps(line), flush=True)
            told_at = now
        time.sleep(0.02)  # a reader, not a load


main()
