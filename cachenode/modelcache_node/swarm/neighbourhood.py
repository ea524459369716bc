"""All neighbours of a node: what they offer together, and what each one's word changes.

Guarantees:
- a slot is offered by a neighbour only under the checksum accepted for it;
- one that does not answer, or is avoided, offers nothing until it is back;
- a word that proved wrong costs its neighbour a strike.

Mutable state: the neighbours, the accepted words, and how many hold each slot.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

from modelcache_api.have_map import HaveMap
from modelcache_api.swarm_bounds import MAX_NEIGHBOURS
from modelcache_node.swarm.announcements import ELECTED, OWN, PASSED_ON, VOUCHED, Announcements
from modelcache_node.swarm.asks import Failure
from modelcache_node.swarm.bitsets import Rarity, each, of_slots
from modelcache_node.swarm.neighbours import Neighbour

#: At the start the origin is left alone until this node and its neighbours know of each other; at
#: most so long: a node that is gone without a trace costs this once. Above a refused connection.
START_WAIT_S = 5.0
#: A neighbour that is there and does not fetch the revision yet is awaited so long at the start.
GRACE_S = 2.0


class Neighbourhood:
    """See the module's text."""

    def __init__(
        self,
        words: Announcements,
        n_slots: int,
        elected: Callable[[int], str | None],
    ) -> None:
        """`elected` names who reads a slot from the origin."""
        self.words = words
        self.rarity = Rarity()
        self._n_slots = n_slots
        self._elected = elected
        self._by_name: dict[str, Neighbour] = {}
        self._offering: set[str] = set()
        #: The former word on slots of rejected blobs, and who had them under it.
        self._suspects: dict[int, tuple[int, frozenset[str]]] = {}

    def __iter__(self) -> Iterator[Neighbour]:
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)

    def get(self, name: str) -> Neighbour | None:
        return self._by_name.get(name)

    def take(self, weights: Mapping[str, float]) -> None:
        """Take the operator's list; those that stay keep what is known of them."""
        for name in [name for name in self._by_name if name not in weights]:
            self._withdraw(self._by_name.pop(name))
        for name, weight in list(weights.items())[:MAX_NEIGHBOURS]:
            self._by_name.setdefault(name, Neighbour(name)).weight = weight

    def are_met(self, since_s: float) -> bool:
        """Whether the origin may be read, so long after the start.

        Every neighbour was heard, or failed to answer; and those that read the origin were told
        of this node, so that they leave it its share.
        """
        if since_s >= START_WAIT_S:
            return True
        return all(one.is_heard and (one.knows_us or not one.can_fetch) for one in self)

    @property
    def fetching(self) -> int:
        """Slots that any of them reads from the origin now, and will come to an end with.

        Not of one that has lost its grants, is avoided, or does not answer: it may sit on them.
        """
        fetching = 0
        for one in self:
            if one.can_fetch and one.name in self._offering:
                fetching |= one.fetching
        return fetching

    @property
    def any_reads(self) -> bool:
        """Whether any of them reads from the origin now; cheaper than what it reads."""
        return any(one.fetching and not one.is_absent for one in self)

    def told(self, name: str, *, can_fetch: bool) -> None:
        """A neighbour was given a map that says whether this node can fetch."""
        one = self._by_name.get(name)
        if one is not None:
            one.knows_us = can_fetch

    # What they say

    def hear(self, one: Neighbour, told: HaveMap, now: float) -> list[int]:
        """Take a neighbour's map; returns slots whose accepted checksum is another one now."""
        if told.n_slots != self._n_slots:
            self.strike(one, now)
            return []
        if told.since == 0:
            self._withdraw(one)
            one.bits = 0
        elif told.instance != one.instance or told.since != one.version:
            return []  # of an answer that was overtaken: the next one begins where we are
        one.instance, one.version = told.instance, told.version
        one.answered()
        one.can_fetch, one.uploads_queued = told.can_fetch, told.uploads_queued
        one.reads(of_slots(told.fetching, self._n_slots) if told.fetching else 0, now)
        if told.gone:
            self._lose(one, of_slots(told.gone, self._n_slots))
        changed: list[int] = []
        gained = told.bits
        if not self.words.agree(told.present, told.crc32c):
            gained, changed = self._judge(one, told, now)
        elif told.vouched:
            for number in each(told.vouched):
                self.words.confirm(told.present[number], self._vouching(one, told.present[number]))
        if now >= one.avoided_until and one.name not in self._offering:
            self._offering.add(one.name)
            self.rarity.add(one.bits)
        self._gain(one, gained)
        return changed

    def _judge(self, one: Neighbour, told: HaveMap, now: float) -> tuple[int, list[int]]:
        found = self.words.judge(one.name, self._words_of(one, told), self._supporters)
        gained = told.bits
        if found.refused:
            gained &= ~of_slots(found.refused, self._n_slots)
        for slot, supporters in found.changed.items():
            self._correct(slot, supporters, now)
        if found.proved_wrong:
            self.strike(one, now)
        return gained, list(found.changed)

    def _words_of(self, one: Neighbour, told: HaveMap) -> Iterator[tuple[int, int, int, int]]:
        crc64nvme: Iterable[int] = told.crc64nvme or [0] * len(told.present)
        vouched = told.vouched
        for number, (slot, crc32c, crc64) in enumerate(
            zip(told.present, told.crc32c, crc64nvme, strict=True)
        ):
            weight = self._vouching(one, slot) if vouched >> number & 1 else PASSED_ON
            yield slot, crc32c, crc64, weight

    def _vouching(self, one: Neighbour, slot: int) -> int:
        """The weight of this neighbour's own word."""
        return ELECTED if one.name == self._elected(slot) else VOUCHED

    def _supporters(self, slot: int) -> set[str]:
        return {one.name for one in self if one.bits >> slot & 1}

    def _correct(self, slot: int, supporters: set[str], now: float) -> None:
        """Another checksum is accepted for a slot: who offers it now, and who was wrong."""
        is_certain = self.words.weight(slot) > PASSED_ON
        for one in list(self):
            has = bool(one.bits >> slot & 1)
            if has and one.name not in supporters:
                self._lose(one, 1 << slot)
                if is_certain:
                    self.strike(one, now)
            elif not has and one.name in supporters and not one.is_absent:
                self._gain(one, 1 << slot)

    def read_here(self, slot: int, crc32c: int, crc64nvme: int, now: float) -> None:
        """This node read a slot from the origin: whoever states otherwise, or did, was wrong."""
        former, offered_by = self._suspects.pop(slot, (crc32c, frozenset()))
        if former != crc32c:
            for one in [one for one in self if one.name in offered_by]:
                self.strike(one, now)
        is_news = self.words.weight(slot) and not self.words.matches(slot, crc32c)
        supporters = self.words.accept(slot, crc32c, crc64nvme, OWN)
        if is_news:
            self._correct(slot, supporters, now)

    def suspect(self, slot: int, crc32c: int) -> None:
        """A slot is wrong as it was announced, or another of its blob: forget the word."""
        offered_by = frozenset(one.name for one in self if one.bits >> slot & 1)
        self._suspects[slot] = (crc32c, offered_by)
        self.words.forget(slot)

    # How they behave

    def strike(self, one: Neighbour, now: float) -> None:
        """It broke the rules. After three strikes it is avoided for a while."""
        one.strike(now)
        if now < one.avoided_until:
            self._withdraw(one)

    def fail(self, one: Neighbour, now: float) -> None:
        """It does not answer."""
        one.failed(now)
        self._withdraw(one)

    def failed(self, one: Neighbour, slot: int, why: Failure, now: float) -> None:
        """It was asked for a slot and did not send it; being busy is no fault."""
        if why in (Failure.LACKS, Failure.APART):
            self.forget_slot(one, slot)
        if why in (Failure.LACKS, Failure.MISBEHAVED):
            self.strike(one, now)
        elif why is Failure.UNAVAILABLE:
            self.fail(one, now)

    def forget_slot(self, one: Neighbour, slot: int) -> None:
        """It does not have this slot, or not as it was announced."""
        self._lose(one, 1 << slot & one.bits)

    def ask_anew(self) -> None:
        """Have every neighbour tell everything again."""
        for one in self:
            one.instance = one.version = 0

    # Counting

    def _gain(self, one: Neighbour, slots: int) -> None:
        gained = slots & ~one.bits
        one.bits |= gained
        if gained and one.name in self._offering:
            self.rarity.add(gained)

    def _lose(self, one: Neighbour, slots: int) -> None:
        lost = slots & one.bits
        one.bits ^= lost
        if lost and one.name in self._offering:
            self.rarity.remove(lost)

    def _withdraw(self, one: Neighbour) -> None:
        if one.name in self._offering:
            self._offering.discard(one.name)
            self.rarity.remove(one.bits)
