"""Sets of chunk slots as integers, and how many neighbours hold each.

A set of 65,536 slots is 8 KiB, and one operation on it takes about a microsecond; so choosing
among all chunks of a model costs a dozen of those, and no object per chunk.
"""

from collections.abc import Callable, Iterable, Iterator


def of_slots(slots: Iterable[int], n_slots: int) -> int:
    """The set of these slots; linear, unlike adding one by one."""
    raw = bytearray(n_slots // 8 + 1)
    for slot in slots:
        raw[slot >> 3] |= 1 << (slot & 7)
    return int.from_bytes(raw, "little")


def lowest(slots: int) -> int:
    """The first slot of a set that is not empty."""
    return (slots & -slots).bit_length() - 1


def each(slots: int) -> Iterator[int]:
    """Slots of a set, in order; linear in the size of the revision."""
    digits = bin(slots)[:1:-1]
    at = digits.find("1")
    while at >= 0:
        yield at
        at = digits.find("1", at + 1)


def last_n(slots: int, count: int) -> list[int]:
    """At most `count` slots of a set: its highest ones, in falling order."""
    found: list[int] = []
    while slots and len(found) < count:
        found.append(slots.bit_length() - 1)
        slots ^= 1 << found[-1]
    return found


def random_one(slots: int, n_slots: int, uniform: Callable[[], float]) -> int:
    """A slot of a set that is not empty: the next one at or after a random place, cyclically."""
    start = int(uniform() * n_slots)
    above = slots >> start
    return start + lowest(above) if above else lowest(slots)


class Rarity:
    """How many neighbours hold each slot: counts in binary, one set per binary digit."""

    def __init__(self) -> None:
        self._digits: list[int] = []

    @property
    def held(self) -> int:
        """Slots that at least one neighbour holds."""
        found = 0
        for digit in self._digits:
            found |= digit
        return found

    @property
    def held_twice(self) -> int:
        """Slots that at least two neighbours hold."""
        found = 0
        for digit in self._digits[1:]:
            found |= digit
        return found

    def add(self, slots: int) -> None:
        """One more neighbour holds these."""
        carry = slots
        for number, digit in enumerate(self._digits):
            self._digits[number] = digit ^ carry
            carry &= digit
            if not carry:
                return
        if carry:
            self._digits.append(carry)

    def remove(self, slots: int) -> None:
        """One neighbour fewer holds these; each must have been added before."""
        borrow = slots
        for number, digit in enumerate(self._digits):
            self._digits[number] = digit ^ borrow
            borrow &= ~digit
            if not borrow:
                break
        assert not borrow

    def rarest(self, slots: int) -> int:
        """Those of `slots` that the fewest neighbours hold."""
        for digit in reversed(self._digits):
            slots = (slots & ~digit) or slots
        return slots
