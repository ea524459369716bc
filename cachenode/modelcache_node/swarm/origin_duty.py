"""Which chunks this node reads from the origin: its own by election, and when it helps another.

Guarantees, while the members of the group agree on who of them can fetch:
- the elected node alone reads a chunk from the origin;
- the next two in hash order may read it only after they asked the elected node, and it handed the
  chunk over, cannot fetch, does not answer, or has been at it, or said so, for too long.

A member that has nothing of its own left asks others for theirs: so a slow one delays nobody.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from modelcache_api.chunk_slots import ChunkSlots
from modelcache_api.claims import MAX_CLAIM_SLOTS
from modelcache_node.swarm.bitsets import last_n
from modelcache_node.swarm.rendezvous import Ranking, ranking

#: A chunk handed over returns to its elected node after so many chunk times, but at least the
#: second, in seconds, if nobody has it; or when who took it is known to be away.
HANDOVER_CHUNK_TIMES, MIN_HANDOVER_S = 32.0, 10.0
#: Chunks handed over at once. Arbitrary: each helper asks for a few at a time.
MAX_GIVEN = 1024
#: The elected node may take so many mean chunk times for one chunk, but at least the second, in
#: seconds, before another reads it too. Arbitrary: on links that lose packets chunks vary much, and
#: with half of it nobody was sooner in the simulation.
HEDGE_CHUNK_TIMES, MIN_HEDGE_S = 4.0, 4.0
#: The same for a chunk that it says is seen to, and that reached nobody: whoever has it, or was to
#: read it, cannot pass it on. Far above what a chunk takes to be announced.
SEEN_TO_CHUNK_TIMES, MIN_SEEN_TO_S = 32.0, 60.0
#: What a helper takes for the mean until it read a chunk itself: while a whole group begins at
#: once an origin answers slowly, and that is no sign of a broken member. Arbitrary.
UNKNOWN_CHUNK_S = 5.0
#: A member that cannot fetch, or did not answer, is passed over so long: longer than until it is
#: asked again and that has failed, else it is elected for a moment each time.
PASSED_OVER_S = 30.0
#: How often what was handed over is looked through for what is to return.
LOOK_S = 1.0


class ClaimState(IntEnum):
    """An elected node's answer about one slot."""

    SEEN_TO = 0
    """It has the chunk, or handed it to another: get it there. Nobody else is to read it."""
    UNDER_WAY = 1
    """It reads it from the origin now."""
    YOURS = 2
    """It hands the chunk over."""
    CANNOT_FETCH = 3
    """It has no grant, or does not fetch this revision."""


@dataclass(frozen=True, slots=True)
class ClaimAsk:
    """A question to an elected node: may these slots be read from the origin here?"""

    member: str
    slots: tuple[int, ...]


class OriginDuty:
    """See the module's text. Its mutable state: who can fetch, and what was handed over."""

    def __init__(self, me: str, slots: ChunkSlots) -> None:
        self._me = me
        self._slots = slots
        self._group: frozenset[str] = frozenset()
        self._passed_over: dict[str, float] = {}
        self._ranking: Ranking = ranking((), slots)
        self._is_changed = False
        self._owned = 0
        self._helped: dict[str, int] | None = None
        self._given: dict[int, tuple[float, str]] = {}  # until when, to whom
        self._looked_at = 0.0
        self._given_bits = 0
        self._taken = 0
        self._quiet_until: dict[str, float] = {}
        self._waits_since: dict[int, float] = {}
        self._asking: str | None = None

    @property
    def group(self) -> frozenset[str]:
        """All members, whether or not they can fetch now."""
        return self._group

    @property
    def is_member(self) -> bool:
        return self._me in self._group

    def set_group(self, names: Iterable[str]) -> None:
        """Take the operator's list; members that come with it count as able to fetch."""
        self._group = frozenset(names)
        self._passed_over = {n: t for n, t in self._passed_over.items() if n in self._group}
        self._is_changed = True

    def set_able(self, name: str, now: float, *, is_able: bool) -> None:
        """A member said, or showed by its silence, whether it can fetch."""
        if not is_able:
            for slot in [slot for slot, (_, to) in self._given.items() if to == name]:
                self._take_back(slot)
        if name not in self._group:
            return
        if is_able != (name not in self._passed_over):
            if is_able:
                del self._passed_over[name]
            else:
                self._passed_over[name] = now + PASSED_OVER_S
            self._is_changed = True
        elif not is_able:
            self._passed_over[name] = now + PASSED_OVER_S

    def elected(self, slot: int) -> str | None:
        """Who reads a slot from the origin, of those that can; None while nobody can."""
        self._elect()
        return self._ranking.elected(slot)

    def own(self, now: float) -> int:
        """The set of slots that this node reads from the origin, if nobody has them."""
        self._elect()
        self._take_back_late(now)
        return (self._owned | self._taken) & ~self._given_bits

    # Asking others

    def may_ask(self, now: float) -> bool:
        """Whether there can be somebody to ask; cheap."""
        if self._asking is not None or not self.is_member:
            return False
        self._restore(now)
        self._elect()
        return any(
            member != self._me and self._quiet_until.get(member, 0.0) <= now
            for member in self._ranking.members
        )

    def ask(self, absent: int, now: float, most: int) -> ClaimAsk | None:
        """Whom to ask for work, when there is none of one's own.

        Args:
            absent: Slots nobody has.
            now: Seconds.
            most: Slots that can be begun at once: who took more would sit on them at the end.
        """
        if not absent or not self.may_ask(now):
            return None
        best: tuple[int, str] | None = None
        for member, slots in self._help().items():
            if self._quiet_until.get(member, 0.0) <= now:
                count = (slots & absent & ~self._taken).bit_count()
                if count and (best is None or count > best[0]):
                    best = (count, member)
        if best is None:
            return None
        member = best[1]
        self._asking = member
        slots = self._help()[member] & absent & ~self._taken
        # From the far end: the elected node goes through its own from the near one.
        return ClaimAsk(member, tuple(last_n(slots, min(most, MAX_CLAIM_SLOTS))))

    def answered(
        self, asked: ClaimAsk, states: Sequence[ClaimState], now: float, chunk_s: float
    ) -> None:
        """The elected node answered; `chunk_s`: the mean of an origin's chunk, 0 if unknown."""
        self._asking = None
        chunk_s = chunk_s or UNKNOWN_CHUNK_S
        patience_s = {
            ClaimState.UNDER_WAY: max(HEDGE_CHUNK_TIMES * chunk_s, MIN_HEDGE_S),
            ClaimState.SEEN_TO: max(SEEN_TO_CHUNK_TIMES * chunk_s, MIN_SEEN_TO_S),
        }
        self._quiet_until[asked.member] = now + chunk_s
        for slot, state in zip(asked.slots, states, strict=True):
            if state is ClaimState.YOURS:
                self._taken |= 1 << slot
                self._quiet_until[asked.member] = now
            elif state is ClaimState.CANNOT_FETCH:
                self.set_able(asked.member, now, is_able=False)
                return
            else:
                since = self._waits_since.setdefault(slot, now)
                if now - since >= patience_s[state]:
                    self._taken |= 1 << slot
                    del self._waits_since[slot]

    def unanswered(self, asked: ClaimAsk, now: float) -> None:
        """The elected node did not answer."""
        self._asking = None
        self.set_able(asked.member, now, is_able=False)

    def put_off(self, asked: ClaimAsk, until: float) -> None:
        """The elected node is there, and has no time for the question: ask again later."""
        self._asking = None
        self._quiet_until[asked.member] = until

    # Answering others

    def serve(
        self,
        slots: Sequence[int],
        helper: str,
        *,
        held: int,
        under_way: int,
        now: float,
        chunk_s: float,
    ) -> list[ClaimState]:
        """Answer a helper. A chunk that is neither held nor under way is handed to it."""
        self._take_back_late(now)
        answers = []
        for slot in slots[:MAX_CLAIM_SLOTS]:
            if (held | self._given_bits) >> slot & 1 or len(self._given) >= MAX_GIVEN:
                answers.append(ClaimState.SEEN_TO)
            elif under_way >> slot & 1:
                answers.append(ClaimState.UNDER_WAY)
            elif self._me in self._passed_over or self._me not in self._group:
                answers.append(ClaimState.CANNOT_FETCH)
            else:
                until = now + max(HANDOVER_CHUNK_TIMES * chunk_s, MIN_HANDOVER_S)
                self._given[slot] = until, helper
                self._given_bits |= 1 << slot
                answers.append(ClaimState.YOURS)
        return answers

    def take(self, slots: int) -> None:
        """Read these here, whoever is elected for them."""
        self._taken |= slots

    def fetched(self, slot: int) -> None:
        """The chunk is here, or is known to be with a neighbour."""
        self._taken &= ~(1 << slot)
        self._waits_since.pop(slot, None)
        if slot in self._given:
            self._take_back(slot)

    def _take_back_late(self, now: float) -> None:
        if self._given and now - self._looked_at >= LOOK_S:
            self._looked_at = now
            for slot in [slot for slot, (until, _) in self._given.items() if until <= now]:
                self._take_back(slot)

    def _take_back(self, slot: int) -> None:
        del self._given[slot]
        self._given_bits &= ~(1 << slot)

    def _restore(self, now: float) -> None:
        """Those passed over for long enough count again; they are passed over anew when asked."""
        for name, until in list(self._passed_over.items()):
            if until <= now and name != self._me:
                del self._passed_over[name]
                self._is_changed = True

    def _elect(self) -> None:
        """Elect anew if the group changed since; late, for changes come in bunches."""
        if not self._is_changed:
            return
        self._is_changed = False
        able = tuple(sorted(self._group - self._passed_over.keys()))
        if able == self._ranking.members:
            return
        self._ranking = ranking(able, self._slots)
        self._owned = self._ranking.elected_slots(self._me)
        self._helped = None

    def _help(self) -> dict[str, int]:
        """By elected member, the slots that this node may take over. Late: it takes a while."""
        if self._helped is None:
            mine = self._ranking.helped_slots(self._me)
            others = [name for name in self._ranking.members if name != self._me]
            self._helped = {name: self._ranking.elected_slots(name) & mine for name in others}
        return self._helped
