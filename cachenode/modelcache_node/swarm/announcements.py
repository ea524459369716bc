"""Under which checksum each chunk is accepted, and whose word that is.

Whoever reads a chunk from the origin announces its checksum and vouches for it; the checksum then
travels with the have-maps. A receiver checks bytes against what was announced, not against the
word of whoever sends them: a word counts when its neighbour vouches for it (it read the chunk from
the origin, or compared the whole blob with the origin's checksum), or when two neighbours pass on
the same. Where words differ, an elected node's stands above another's, one that is vouched for
above one that is passed on, the more often heard above the other; the word that came first is kept
while none of this decides, and the checksum of the whole blob finds who was wrong (`forget`).

Mutable state: the accepted word of each slot, its weight, and the words in dispute.
"""

from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

#: Weights of a word. Own bytes from the origin stand above everything.
UNKNOWN, PASSED_ON, VOUCHED, ELECTED, OWN = range(5)
#: Slots in dispute at once; beyond, a new word is refused. Arbitrary: a bad node disputes thousands
#: and is avoided after three.
MAX_DISPUTES = 1024


@dataclass(slots=True)
class Judgement:
    """What a neighbour's words lead to.

    Attributes:
        refused: Slots that it states another checksum of than the accepted one.
        changed: Slots whose accepted checksum is another one now, with the neighbours that
            state it: whatever was held or offered under the former is wrong.
        proved_wrong: How many of its words contradict one of a greater weight.
    """

    refused: list[int] = field(default_factory=list)
    changed: dict[int, set[str]] = field(default_factory=dict)
    proved_wrong: int = 0


#: Who offers a slot under the accepted checksum; asked only where words differ.
Supporters = Callable[[int], set[str]]


class Announcements:
    """See the module's text."""

    def __init__(self, n_slots: int) -> None:
        self._crc32c = array("I", bytes(4 * n_slots))
        self._crc64nvme = array("Q", bytes(8 * n_slots))
        self._weight = bytearray(n_slots)
        self._disputes: dict[int, dict[int, set[str]]] = {}
        #: Slots whose word is vouched for, as a set.
        self.trusted = 0

    def matches(self, slot: int, crc32c: int) -> bool:
        """Whether received bytes are those announced. Nothing announced, nothing matches."""
        return self._weight[slot] != UNKNOWN and self._crc32c[slot] == crc32c

    def crc32c(self, slot: int) -> int | None:
        """The announced CRC32C; None where none is."""
        return self._crc32c[slot] if self._weight[slot] != UNKNOWN else None

    def weight(self, slot: int) -> int:
        return self._weight[slot]

    def accept(self, slot: int, crc32c: int, crc64nvme: int, weight: int) -> set[str]:
        """Take this word, whatever was accepted before; returns who states it, if in dispute."""
        self._crc32c[slot] = crc32c
        self._crc64nvme[slot] = crc64nvme
        self._weight[slot] = weight
        if weight >= VOUCHED:
            self.trusted |= 1 << slot
        return self._disputes.get(slot, {}).get(crc32c, set())

    def confirm(self, slot: int, weight: int) -> None:
        """Somebody of this weight states what is accepted."""
        if weight > self._weight[slot]:
            self._weight[slot] = weight
            if weight >= VOUCHED:
                self.trusted |= 1 << slot

    def forget(self, slot: int) -> None:
        """The slot's blob is wrong as a whole: believe nobody about it, until told anew."""
        self._weight[slot] = UNKNOWN
        self.trusted &= ~(1 << slot)
        self._disputes.pop(slot, None)

    def agree(self, slots: Sequence[int], crc32c: "array[int]") -> bool:
        """Whether all of these are accepted already. The usual case, and a fast one."""
        if UNKNOWN in map(self._weight.__getitem__, slots):
            return False
        return crc32c == array("I", map(self._crc32c.__getitem__, slots))

    def judge(
        self,
        name: str,
        words: Iterable[tuple[int, int, int, int]],
        supporters: Supporters,
    ) -> Judgement:
        """Compare what a neighbour states with what is accepted, and take what is new.

        Args:
            name: The neighbour.
            words: (slot, CRC32C, CRC64/NVME or 0, weight) for each slot that it holds.
            supporters: Who offers a slot under the checksum accepted until now.
        """
        found = Judgement()
        for slot, crc32c, crc64nvme, weight in words:
            accepted = self._weight[slot]
            if accepted == UNKNOWN:
                self.accept(slot, crc32c, crc64nvme, weight)
            elif self._crc32c[slot] == crc32c:
                self._agree(slot, name, crc64nvme, weight)
            elif self._prevails(slot, crc32c, name, weight, supporters):
                found.changed[slot] = {name} | self.accept(slot, crc32c, crc64nvme, weight)
            else:
                found.refused.append(slot)
                found.proved_wrong += accepted > max(weight, PASSED_ON)
        return found

    def _agree(self, slot: int, name: str, crc64nvme: int, weight: int) -> None:
        self.confirm(slot, weight)
        self._crc64nvme[slot] = self._crc64nvme[slot] or crc64nvme
        if slot in self._disputes:
            self._disputes[slot].setdefault(self._crc32c[slot], set()).add(name)

    def _prevails(
        self, slot: int, crc32c: int, name: str, weight: int, supporters: Supporters
    ) -> bool:
        """Whether a word that contradicts the accepted one takes its place."""
        dispute = self._disputes.get(slot)
        if dispute is None:
            if len(self._disputes) >= MAX_DISPUTES:
                return False
            dispute = self._disputes[slot] = {self._crc32c[slot]: supporters(slot)}
        for stated, names in dispute.items():
            if stated != crc32c:
                names.discard(name)
        dispute.setdefault(crc32c, set()).add(name)
        if weight != self._weight[slot]:
            return weight > self._weight[slot]
        return weight == PASSED_ON and len(dispute[crc32c]) > len(dispute[self._crc32c[slot]])
