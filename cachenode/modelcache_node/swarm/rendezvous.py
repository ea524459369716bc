"""Who of the origin group fetches which chunk: rendezvous hashing, equal on every node.

A member's weight for chunk `i` of a blob is the `i`-th little-endian 32-bit word of
SHAKE-128(member's name, NUL, blob key); the highest weight is elected, the next ones may help.
So a member that leaves moves only its own chunks, and evenly to all others. A change of this
function makes nodes of two versions fetch twice: it is held by a golden test.
"""

import hashlib
import sys
from array import array
from functools import lru_cache

from modelcache_api.chunk_slots import ChunkSlots

#: The operator names at most so many nodes to share an origin.
MAX_GROUP = 32
#: How many stand behind the elected node: the next two in hash order.
N_HELPERS = 2
#: Rankings kept in mind: of some revisions, with and without members that went. Arbitrary; one of
#: a model of 1 TB takes 200 KiB.
_CACHED_RANKINGS = 16
_RANK_MASK = MAX_GROUP - 1


class Ranking:
    """The first `1 + N_HELPERS` members in hash order for every slot. Immutable."""

    def __init__(self, members: tuple[str, ...], slots: ChunkSlots) -> None:
        """`members` are at most MAX_GROUP names, sorted."""
        assert len(members) <= MAX_GROUP
        self.members = members
        columns = [_weights(name, number, slots) for number, name in enumerate(members)]
        depth = min(1 + N_HELPERS, len(members))
        rows = [sorted(row)[-depth:] for row in zip(*columns, strict=True)]
        # By rank: the number of the member that stands there, one byte per slot.
        self._by_rank = [
            bytes(row[-1 - rank] & _RANK_MASK for row in rows) for rank in range(depth)
        ]

    def of_slot(self, slot: int) -> tuple[str, ...]:
        """The elected member, then those that may help it."""
        return tuple(self.members[numbers[slot]] for numbers in self._by_rank)

    def slots_of(self, member: str, rank: int) -> int:
        """The set of slots for which `member` stands at `rank`; 0 is the elected one."""
        if member not in self.members or rank >= len(self._by_rank):
            return 0
        table = bytearray(b"0" * 256)
        table[self.members.index(member)] = ord("1")
        digits = self._by_rank[rank].translate(bytes(table))[::-1]
        return int(digits, 2) if digits else 0


@lru_cache(maxsize=_CACHED_RANKINGS)
def ranking(members: tuple[str, ...], slots: ChunkSlots) -> Ranking:
    """The ranking of these members; about 2 µs per slot when it is new."""
    return Ranking(members, slots)


def _weights(member: str, number: int, slots: ChunkSlots) -> list[int]:
    """Weights of all slots, in their lowest bits the member's number, which breaks ties."""
    weights = array("I")
    for blob, n_chunks in slots.blobs:
        stream = hashlib.shake_128(f"{member}\0{blob}".encode()).digest(4 * n_chunks)
        weights.frombytes(stream)
    if sys.byteorder == "big":
        weights.byteswap()
    return [weight & ~_RANK_MASK | number for weight in weights]
