"""The have-map: which chunks of a revision a node holds, as it tells its neighbours.

A map is what changed after version `since` of the sender's holdings, or, for a receiver that
knows nothing of this instance, everything; `MAX_CHANGES` per map, so that a large one comes in
pieces. It carries the checksum under which the sender holds each chunk, and which of them it
vouches for: it read the chunk from the origin, or compared its whole blob with the origin's
checksum. Of the others it passes on what it was told.

Format 1, integers little-endian; chunks by slot (see `chunk_slots`)::

    0     4   magic b"MCHM"
    4     2   format version, 1
    6     2   flags: bit 0 = can fetch from the origin, bit 1 = CRC64/NVME are there
    8     8   instance: random, new whenever versions begin anew
    16    8   since: the version that this map builds on, 0 = none
    24    8   version that it leads to
    32    4   number of slots of the revision
    36    4   number of slots present now in this map, P
    40    4   number of slots that are gone, G
    44    2   number of slots being read from the origin, F
    46    2   uploads queued at the sender
    48    4 × P  slots
          ⌈P/8⌉  bit i (lowest first): the sender vouches for the i-th of them
          4 × P  CRC32C
          8 × P  CRC64/NVME, 0 = not computed; only with bit 1
          4 × G  slots that are gone
          4 × F  slots being read from the origin
"""

import struct
import sys
from array import array
from dataclasses import dataclass, field
from typing import Self

from modelcache_api.errors import InvalidRequestError

MAGIC = b"MCHM"
FORMAT_VERSION = 1
#: Slots of one revision: 4 TiB. Arbitrary, four times the largest model known to us.
MAX_SLOTS = 1 << 18
#: Changes in one map: with all checksums 1 MiB and a little, once for a whole model of 1 TB.
MAX_CHANGES = 1 << 16
#: Slots that a node says it reads from the origin. Above any number of connections of ours.
MAX_FETCHING = 1024
_CAN_FETCH, _HAS_CRC64 = 1, 2
_HEADER = struct.Struct("<4sHHQQQIIIHH")
HEADER_BYTES = 48
assert _HEADER.size == HEADER_BYTES
#: The largest map there is, bytes.
MAX_HAVE_MAP_BYTES = HEADER_BYTES + MAX_CHANGES * (4 + 4 + 8) + MAX_CHANGES // 8 + MAX_FETCHING * 4


@dataclass(frozen=True, slots=True)
class HaveMap:
    """See the module's text. `present`, `crc32c` and `crc64nvme` run in parallel.

    `vouched` has bit i set for the i-th of `present`. `crc64nvme` is empty where none is known.
    """

    instance: int
    since: int
    version: int
    n_slots: int
    present: "array[int]" = field(default_factory=lambda: array("I"))
    crc32c: "array[int]" = field(default_factory=lambda: array("I"))
    crc64nvme: "array[int]" = field(default_factory=lambda: array("Q"))
    vouched: int = 0
    gone: "array[int]" = field(default_factory=lambda: array("I"))
    fetching: "array[int]" = field(default_factory=lambda: array("I"))
    can_fetch: bool = False
    uploads_queued: int = 0
    #: `present` as a set: bit s for slot s.
    bits: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        raw = bytearray(self.n_slots // 8 + 1)
        for slot in self.present:
            raw[slot >> 3] |= 1 << (slot & 7)
        object.__setattr__(self, "bits", int.from_bytes(raw, "little"))

    def pack(self) -> bytes:
        has_crc64 = bool(self.crc64nvme)
        flags = _CAN_FETCH * self.can_fetch | _HAS_CRC64 * has_crc64
        header = _HEADER.pack(
            MAGIC,
            FORMAT_VERSION,
            flags,
            self.instance,
            self.since,
            self.version,
            self.n_slots,
            len(self.present),
            len(self.gone),
            len(self.fetching),
            self.uploads_queued,
        )
        vouched = self.vouched.to_bytes(-(-len(self.present) // 8), "little")
        parts = (self.crc32c, self.crc64nvme, self.gone, self.fetching)
        return b"".join((header, _raw(self.present), vouched, *map(_raw, parts)))

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        """Raises InvalidRequestError: not a have-map of this format, or it contradicts itself."""
        if len(raw) < HEADER_BYTES:
            raise InvalidRequestError(f"have-map of {len(raw)} bytes is cut short")
        magic, format_version, flags, instance, since, version, n_slots, *counts = (
            _HEADER.unpack_from(raw)
        )
        n_present, n_gone, n_fetching, uploads_queued = counts
        if magic != MAGIC or format_version != FORMAT_VERSION:
            raise InvalidRequestError(f"not a have-map of format {FORMAT_VERSION}")
        if n_slots > MAX_SLOTS or n_present + n_gone > MAX_CHANGES or n_fetching > MAX_FETCHING:
            raise InvalidRequestError("have-map is larger than any may be")
        reader = _Reader(raw, HEADER_BYTES)
        present = reader.integers("I", n_present)
        _check_slots(present, n_slots)
        found = cls(
            instance=instance,
            since=since,
            version=version,
            n_slots=n_slots,
            present=present,
            vouched=int.from_bytes(reader.bytes(-(-n_present // 8)), "little"),
            crc32c=reader.integers("I", n_present),
            crc64nvme=reader.integers("Q", n_present if flags & _HAS_CRC64 else 0),
            gone=reader.integers("I", n_gone),
            fetching=reader.integers("I", n_fetching),
            can_fetch=bool(flags & _CAN_FETCH),
            uploads_queued=uploads_queued,
        )
        reader.end()
        _check(found)
        return found


def _check(found: HaveMap) -> None:
    _check_slots(found.gone, found.n_slots)
    _check_slots(found.fetching, found.n_slots)
    if found.vouched >> len(found.present) or found.since > found.version:
        raise InvalidRequestError("have-map contradicts itself")


def _check_slots(slots: "array[int]", n_slots: int) -> None:
    if slots and max(slots) >= n_slots:
        raise InvalidRequestError("have-map names a chunk that the revision does not have")


class _Reader:
    """Takes fields off a message, front to back."""

    def __init__(self, raw: bytes, offset: int) -> None:
        self._raw = raw
        self._offset = offset

    def bytes(self, count: int) -> bytes:
        taken = self._raw[self._offset : self._offset + count]
        if len(taken) != count:
            raise InvalidRequestError("have-map is cut short")
        self._offset += count
        return taken

    def integers(self, kind: str, count: int) -> "array[int]":
        values = array(kind)
        values.frombytes(self.bytes(count * values.itemsize))
        if sys.byteorder == "big":
            values.byteswap()
        return values

    def end(self) -> None:
        if self._offset != len(self._raw):
            raise InvalidRequestError("have-map is longer than it says")


def _raw(values: "array[int]") -> bytes:
    if sys.byteorder == "big":
        values = values[:]
        values.byteswap()
    return values.tobytes()
