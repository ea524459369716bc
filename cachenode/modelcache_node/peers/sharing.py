"""What a node's upload workers share: nonces that were seen, and places for uploads.

Both live in one file without a name that the parent keeps: a worker that dies leaves the nonces
behind and its places free. Locks are those of `fcntl`, held by process.
"""

import fcntl
import mmap
import os
import struct
import zlib
from collections.abc import Hashable
from enum import Enum

#: Nonces kept at once; 64 Ki at 24 bytes. Arbitrary: 270 requests/s for the life of one.
_N_BUCKETS = 2048
_SLOTS_PER_BUCKET = 32
_SLOT = struct.Struct("<16sd")
_BUCKET_BYTES = _SLOT.size * _SLOTS_PER_BUCKET
_TABLE_BYTES = _N_BUCKETS * _BUCKET_BYTES
#: Where the bytes are whose locks are places for uploads; beyond the table's.
_PLACES_AT = 1 << 32
#: Uploads of one chunk at once, and among how many of the places one finds room that is not the
#: first of its chunk: `swarm.uploads` says why.
MAX_SAME, PLACES_FOR_SAME = 2, 5
_SAME_AT = 1 << 33
#: Chunks fall into so many classes: two that share one hold each other up for a moment. Arbitrary.
_N_CHUNK_CLASSES = 1 << 16
#: ``struct flock`` of a 64-bit Linux: type, whence, start, length, pid (fcntl(2)).
_FLOCK = struct.Struct("@hhqqi4x")


def make_shared_file() -> int:
    """The file that all workers of a node inherit, as a descriptor."""
    fd = os.memfd_create("uploads", os.MFD_CLOEXEC)
    os.truncate(fd, _TABLE_BYTES)
    return fd


class Verdict(Enum):
    """What the table says of a nonce."""

    NEW = "new"
    SEEN = "seen"
    FULL = "full"  # too many at once; the same request may succeed later


class NonceTable:
    """Nonces of genuine requests, until they expire. Bounded; shared by processes."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._table = mmap.mmap(fd, _TABLE_BYTES)

    def admit(self, nonce: str, *, expires_at: float, now: float) -> Verdict:
        """Note a nonce, if it is new. Call it for genuine requests only.

        Args:
            nonce: 32 hexadecimal digits.
            expires_at: Until when it must be remembered; wall clock, seconds.
            now: Wall clock, seconds.
        """
        raw = bytes.fromhex(nonce)
        begin = int.from_bytes(raw[:4], "little") % _N_BUCKETS * _BUCKET_BYTES
        fcntl.lockf(self._fd, fcntl.LOCK_EX, 1, begin)
        try:
            free: int | None = None
            for at in range(begin, begin + _BUCKET_BYTES, _SLOT.size):
                known, known_until = _SLOT.unpack_from(self._table, at)
                if known_until < now:
                    free = at
                elif known == raw:
                    return Verdict.SEEN
            if free is None:
                return Verdict.FULL
            _SLOT.pack_into(self._table, free, raw, expires_at)
            return Verdict.NEW
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, begin)

    def close(self) -> None:
        self._table.close()


def places_taken(fd: int, count: int) -> int:
    """Places that workers hold, seen from their parent, who must hold none."""
    taken = 0
    for place in range(count):
        wish = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, _PLACES_AT + place, 1, 0)
        found = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_GETLK, wish))
        taken += found[0] != fcntl.F_UNLCK
    return taken


class UploadPlaces:
    """As many uploads at once as a node has places, over all its workers.

    Of one chunk only `MAX_SAME` go at once, the second only where few others do: who comes later
    finds it at the first receiver soon, and a slow uplink is not spent on copies. A place is a pair
    of locked bytes.
    """

    def __init__(self, fd: int, count: int) -> None:
        self.count = count
        self._fd = fd
        self._held: set[int] = set()

    def take(self, chunk: Hashable) -> tuple[int, int] | None:
        """A place for this chunk, or None while there is none. Give it back with `free`."""
        same_at = _SAME_AT + zlib.crc32(repr(chunk).encode()) % _N_CHUNK_CLASSES * MAX_SAME
        same = self._lock_one(range(same_at, same_at + MAX_SAME))
        if same is None:
            return None
        count = self.count if same == same_at else min(self.count, PLACES_FOR_SAME)
        place = self._lock_one(range(_PLACES_AT, _PLACES_AT + count))
        if place is None:
            self._unlock(same)
            return None
        return same, place

    def free(self, place: tuple[int, int]) -> None:
        for at in place:
            self._unlock(at)

    def _lock_one(self, places: range) -> int | None:
        """The first of these bytes that nobody had locked. Ours do not lock out ourselves."""
        for at in places:
            if at in self._held:
                continue
            try:
                fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, at)
            except (BlockingIOError, PermissionError):
                continue
            self._held.add(at)
            return at
        return None

    def _unlock(self, at: int) -> None:
        fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, at)
        self._held.discard(at)
