"""Numbers for the chunks of a revision: one bit, one checksum each in what nodes tell each other.

The slots of a revision are the chunks of its distinct blobs, in manifest order, one after the
other. Equal revisions number equally, on every node.
"""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Self

from modelcache_api.chunks import chunk_count
from modelcache_api.manifest import Manifest


@dataclass(frozen=True)
class ChunkSlots:
    """The slots of one revision. `blobs` are (blob key, number of its chunks)."""

    blobs: tuple[tuple[str, int], ...]
    _ends: tuple[int, ...] = field(init=False, repr=False, compare=False)
    _ranges: dict[str, range] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        ends = tuple(accumulate(n_chunks for _, n_chunks in self.blobs))
        object.__setattr__(self, "_ends", ends)
        ranges = {key: range(end - n, end) for (key, n), end in zip(self.blobs, ends, strict=True)}
        object.__setattr__(self, "_ranges", ranges)

    @classmethod
    def of(cls, manifest: Manifest) -> Self:
        blobs: Iterable[tuple[str, int]] = (
            (key, chunk_count(file.size_bytes)) for key, file in manifest.blobs.items()
        )
        return cls(tuple(blobs))

    @property
    def n_slots(self) -> int:
        return self._ends[-1] if self._ends else 0

    def slot(self, blob: str, index: int) -> int:
        """Raises KeyError or IndexError for a chunk of another revision."""
        return self._ranges[blob][index]

    def find(self, blob: str, index: int) -> int | None:
        """The slot of a chunk, or None where the revision has none such."""
        slots = self._ranges.get(blob, range(0))
        return slots[index] if 0 <= index < len(slots) else None

    def slots_of(self, blob: str) -> range:
        """Slots of a blob, in the order of its chunks. Raises KeyError for another revision's."""
        return self._ranges[blob]

    def locate(self, slot: int) -> tuple[str, int]:
        """(blob key, index) of a slot; IndexError where there is none."""
        if not 0 <= slot < self.n_slots:
            raise IndexError(f"slot {slot} of {self.n_slots}")
        number = bisect_right(self._ends, slot)
        key = self.blobs[number][0]
        return key, slot - self._ranges[key].start
