"""Who of the origin group fetches which chunk: rendezvous hashing, equal on every node.

A member's weight for chunk `i` of a blob is the `i`-th little-endian 32-bit word of
SHAKE-128(member's name, NUL, blob key); the highest weight is elected, the next ones may help.
So a member that leaves moves only its own chunks, and evenly to all others. A change of this
function makes nodes of two versions fetch twice: it is held by a golden test.
"""

import hashlib
import sys
from array import array
from functools import cached_property, lru_cache

from modelcache_api.chunk_slots import ChunkSlots
from modelcache_api.swarm_bounds import MAX_ORIGIN_GROUP

#: How many stand behind the elected node: the next two in hash order.
N_HELPERS = 2
#: Rankings kept in mind: of some revisions, with and without members that went. Arbitrary; one of
#: a model of 1 TB takes 200 KiB.
_CACHED_RANKINGS = 16
#: A power of two less one: members are told apart by these bits.
_NUMBER = MAX_ORIGIN_GROUP - 1


class Ranking:
    """Who is elected for every slot, and who may help. Immutable to its users."""

    def __init__(self, members: tuple[str, ...], slots: ChunkSlots) -> None:
        """`members` are at most MAX_ORIGIN_GROUP names, sorted."""
        assert len(members) <= MAX_ORIGIN_GROUP
        self.members = members
        self._slots = slots
        best = map(max, zip(*self._columns(), strict=True))
        self._elected = bytes(weight & _NUMBER for weight in best)

    @cached_property
    def _helpers(self) -> list[bytes]:
        """By rank below the elected one: the number of the member there, one byte per slot."""
        depth = min(1 + N_HELPERS, len(self.members))
        rows = [sorted(row)[-depth:-1] for row in zip(*self._columns(), strict=True)]
        return [bytes(row[-1 - rank] & _NUMBER for row in rows) for rank in range(depth - 1)]

    def elected(self, slot: int) -> str | None:
        """Who reads a slot from the origin; None without members."""
        return self.members[self._elected[slot]] if self.members else None

    def helpers(self, slot: int) -> tuple[str, ...]:
        """The next two in hash order."""
        return tuple(self.members[numbers[slot]] for numbers in self._helpers)

    def elected_slots(self, member: str) -> int:
        """The set of slots for which a member is elected."""
        return self._slots_of(member, self._elected)

    def helped_slots(self, member: str) -> int:
        """The set of slots with which a member may help. Slower the first time it is asked."""
        found = 0
        for numbers in self._helpers:
            found |= self._slots_of(member, numbers)
        return found

    def _slots_of(self, member: str, numbers: bytes) -> int:
        if member not in self.members or not numbers:
            return 0
        table = bytearray(b"0" * 256)
        table[self.members.index(member)] = ord("1")
        return int(numbers.translate(bytes(table))[::-1], 2)

    def _columns(self) -> list["array[int]"]:
        return [_weights(name, number, self._slots) for number, name in enumerate(self.members)]


@lru_cache(maxsize=_CACHED_RANKINGS)
def ranking(members: tuple[str, ...], slots: ChunkSlots) -> Ranking:
    """The ranking of these members; about 5 µs per slot when it is new and the group full."""
    return Ranking(members, slots)


def _weights(member: str, number: int, slots: ChunkSlots) -> "array[int]":
    """Weights of all slots, in their lowest bits the member's number, which breaks ties."""
    stream = b"".join(
        hashlib.shake_128(f"{member}\0{blob}".encode()).digest(4 * n_chunks)
        for blob, n_chunks in slots.blobs
    )
    numbered = int.from_bytes(stream, "little")
    numbered &= int.from_bytes(
        (~_NUMBER & 0xFFFFFFFF).to_bytes(4, "little") * slots.n_slots, "little"
    )
    numbered |= int.from_bytes(number.to_bytes(4, "little") * slots.n_slots, "little")
    weights = array("I", numbered.to_bytes(4 * slots.n_slots, "little"))
    if sys.byteorder == "big":
        weights.byteswap()
    return weights
