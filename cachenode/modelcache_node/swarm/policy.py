"""The swarm's policy on one node, for one revision: whom to ask for which chunk next.

Sans I/O: the shell tells what happened (`hear`, `came`, `failed`, …) and asks what to do
(`next_ask`, `next_claim`, `due_polls`), with the time in seconds of one monotonic clock.

Chunks that nobody has are read from the origin by their elected node (`origin_duty`). Others come
from the neighbour with the fewest requests under way for its speed; of what it has, what a reader
waits for goes first, then early files, then the rarest. Who is busy is left alone for a moment. At
the end, what is slow to come is asked of a second neighbour.

Guarantees:
- a slot is under way once, but at the end, where `Outcome.superseded` names the other;
- bytes count only if their checksum is the announced one, whoever sent them;
- memory is bounded by the slots and MAX_NEIGHBOURS, whatever neighbours say.
"""

from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence

from modelcache_api.chunk_slots import ChunkSlots
from modelcache_api.have_map import MAX_FETCHING, HaveMap
from modelcache_node.swarm.announcements import OWN, PASSED_ON, Announcements
from modelcache_node.swarm.asks import Ask, ClaimAsk, Failure, Outcome
from modelcache_node.swarm.bitsets import each, lowest, of_slots, random_one
from modelcache_node.swarm.choosing import best_neighbour
from modelcache_node.swarm.crowd import Crowd, crowd_of
from modelcache_node.swarm.holdings import Holdings
from modelcache_node.swarm.limits import SwarmLimits
from modelcache_node.swarm.neighbourhood import GRACE_S, Neighbourhood
from modelcache_node.swarm.neighbours import STUCK_S, Neighbour, moving_mean
from modelcache_node.swarm.origin_duty import ClaimState, OriginDuty
from modelcache_node.swarm.origin_pace import OriginPace
from modelcache_node.swarm.polling import MAX_POLL_S, Polls, poll_pause_s
from modelcache_node.swarm.spreading import Spreading
from modelcache_node.swarm.under_way import UnderWay

#: The last part of a revision, in which slow chunks are asked for twice.
END_GAME_RATIO = 0.01
#: Nothing under way for so long: a word that only one neighbour passes on is taken, too.
LONE_WORD_S = 2.0


class Swarm:
    """See the module's text. Its mutable state: what is held, wanted and under way."""

    def __init__(
        self,
        me: str,
        slots: ChunkSlots,
        *,
        instance: int,
        uniform: Callable[[], float],
        now: float,
        limits: SwarmLimits | None = None,
    ) -> None:
        """`uniform` gives random numbers of [0, 1); `instance` is random, new for each agent."""
        self.slots = slots
        self.n_slots, self._everything = slots.n_slots, (1 << slots.n_slots) - 1
        self.limits = limits or SwarmLimits()
        self.holdings = Holdings(self.n_slots, instance)
        self.words = Announcements(self.n_slots)
        self.duty = OriginDuty(me, slots)
        self.neighbours = Neighbourhood(self.words, self.n_slots, self.duty.elected)
        self.can_fetch = False
        self.origin_chunk_s = self.chunk_s = 0.0
        self._me, self._uniform = me, uniform
        self.began_at = self.active_at = now  # since when neighbours are awaited
        self._wanted = 0
        self._takes_lone_words = False
        self._urgent = self._early = 0
        self._under_way = UnderWay()
        self.polls = Polls()
        self._dropped: list[int] = []
        self.uploads_queued = 0
        self._spreading, self._pace = Spreading(now), OriginPace(uniform)

    # Membership and wishes

    def set_members(self, neighbours: Mapping[str, float], group: Iterable[str]) -> None:
        """Take the lists: neighbours with their weights (1 = near), and the origin group."""
        others = {name: weight for name, weight in neighbours.items() if name != self._me}
        self.neighbours.take(dict(sorted(others.items(), key=lambda _: self._uniform())))
        self.duty.set_group(group)
        self.polls.take(one.name for one in self.neighbours)

    def set_can_fetch(self, now: float, *, can_fetch: bool) -> None:
        """This node has, or has no longer, live grants."""
        self.can_fetch = can_fetch
        self.duty.set_able(self._me, now, is_able=can_fetch)

    def want(self, slots: Iterable[int]) -> None:
        """There is room for these: fetch them."""
        for slot in slots:
            self._want_again(slot)

    def prefer(self, early: Iterable[int]) -> None:
        """Fetch these before others: files that loaders open first."""
        self._early = of_slots(early, self.n_slots)

    def hurry(self, slot: int) -> None:
        """A reader waits for this one: it goes before all others."""
        self._urgent |= 1 << slot & ~self.holdings.bits

    # What is here

    def hold(
        self, slot: int, crc32c: int, crc64nvme: int, *, vouched: bool, is_shared: bool = True
    ) -> None:
        """The slot was on disk at the start, checked; as `Holdings.add`."""
        self.holdings.add(slot, crc32c, crc64nvme, vouched=vouched, is_shared=is_shared)
        self.words.accept(slot, crc32c, crc64nvme, OWN if vouched else PASSED_ON)
        self._wanted &= ~(1 << slot)

    def seal(self, slots: Sequence[int]) -> None:
        """The blob of these, all held, agrees with the origin's checksum as a whole."""
        self.holdings.thaw(slots)
        self.holdings.vouch(slots)
        for slot in slots:
            self.words.accept(slot, *self.holdings.checksums(slot), OWN)

    def reject(self, slots: Iterable[int], blob: Sequence[int] = ()) -> None:
        """`blob`, of which all was held, disagrees with its checksum: fetch these again.

        Nobody's word on them counts until it is said again; with a grant they are read from the
        origin here, and whoever had another word then is to blame.
        """
        wrong = of_slots(slots, self.n_slots)
        for slot in each(wrong):
            self.neighbours.suspect(slot, self.holdings.checksums(slot)[0])
            self._lose(slot)
        self.neighbours.ask_anew()
        if self.can_fetch:
            self.duty.take(wrong)
        self.holdings.thaw(blob)
        for slot in blob:
            self._word_changed(slot)

    def take_dropped(self) -> list[int]:
        """Slots that turned out wrong since the last call: mark them absent."""
        dropped, self._dropped = self._dropped, []
        return dropped

    def _lose(self, slot: int) -> None:
        self.holdings.drop(slot)
        if not self._under_way.has(slot):
            self._wanted |= 1 << slot

    # Maps

    def due_polls(self, now: float) -> list[tuple[str, int, int]]:
        """Neighbours to ask for their maps now: (name, instance, version) each.

        Each is due again some time after `hear` or `unheard`, one of which must follow.
        """
        self._spreading.look(self.holdings.bits, now, self.poll_pause_s / 2)
        due = [self.neighbours.get(name) for name in self.polls.due(now)]
        return [(one.name, one.instance, one.version) for one in due if one is not None]

    def hear(self, name: str, told: HaveMap, now: float) -> None:
        """A neighbour's map."""
        one = self.neighbours.get(name)
        if one is None:
            return
        self.polls.again_at(name, now + self.poll_pause_s)
        for slot in self.neighbours.hear(one, told, now):
            self._word_changed(slot)
        self.duty.set_able(name, now, is_able=one.can_fetch and now >= one.avoided_until)

    def unheard(self, name: str, now: float, *, is_there: bool = False) -> None:
        """A neighbour did not answer; or `is_there`, but has nothing of this revision yet."""
        one = self.neighbours.get(name)
        if one is not None:
            self.neighbours.fail(one, now)
            self.polls.again_at(name, one.absent_until)
            if not is_there or now - self.began_at >= GRACE_S:
                self.duty.set_able(name, now, is_able=False)

    def told_nonsense(self, name: str, now: float) -> None:
        """A neighbour's map was none."""
        one = self.neighbours.get(name)
        if one is not None:
            self.neighbours.strike(one, now)
            self.polls.again_at(name, now + MAX_POLL_S)

    def map_for(self, instance: int, since: int) -> HaveMap:
        """What a neighbour is told that knows `since` of `instance`."""
        fetching = self._under_way.from_origin()
        return self.holdings.map_since(
            instance,
            since,
            can_fetch=self.can_fetch,
            fetching=array("I", fetching[:MAX_FETCHING]),
            uploads_queued=self.uploads_queued,
        )

    @property
    def poll_pause_s(self) -> float:
        """Between two maps of one neighbour, seconds."""
        return poll_pause_s(self.chunk_s, self.limits.peer_requests)

    def _word_changed(self, slot: int) -> None:
        crc32c, _ = self.holdings.checksums(slot)
        if self.holdings.may_drop(slot) and not self.words.matches(slot, crc32c):
            self._lose(slot)
            self._dropped.append(slot)

    # What to do next

    def next_ask(self, now: float) -> Ask | None:
        """A chunk to fetch now; None while there is none, or enough is under way."""
        if self.can_fetch and self._under_way.n_origin < self.limits.origin_requests:
            slot = self._origin_slot(now)
            if slot is not None:
                return self._ask(slot, None, now)
        if self._under_way.n_peer < self.limits.peer_requests:
            return self._peer_ask(now)
        return None

    def ask_urgently(self, slot: int, now: float) -> Ask | None:
        """Fetch this one now, for a reader, beside all others: from a peer, else from the origin.

        None while it is here, under way, or nobody can give it; then it goes first.
        """
        self.hurry(slot)
        if not self._wanted >> slot & 1:
            return None
        if (self.words.trusted | self.neighbours.rarity.held_twice) >> slot & 1:
            one = best_neighbour(self.neighbours, 1 << slot, now, self.chunk_s)
            if one is not None:
                return self._ask(slot, one, now)
        return self._ask(slot, None, now) if self.can_fetch else None

    def next_claim(self, now: float) -> ClaimAsk | None:
        """An elected node to ask for work; None while there is work, or nobody to ask."""
        if not self.can_fetch or not self._wanted or not self.duty.may_ask(now):
            return None
        if not self.neighbours.are_met(now - self.began_at):
            return None
        most = self._origin_requests(now) - self._under_way.n_origin
        return self.duty.ask(self._absent(), now, most) if most > 0 else None

    def _origin_requests(self, now: float) -> int:
        """Chunks to read at once: few while nobody takes what was read, or while nodes crowd it."""
        held, read = self.neighbours.rarity.held, self.neighbours.any_reads
        pace = self._pace.allowed(self._crowd(), now, others_read=read, others_have=held != 0)
        most = min(self.limits.origin_requests, pace)
        return self._spreading.allowed(self.holdings.bits, held, most)

    def _crowd(self) -> Crowd:
        n_own = self._under_way.n_origin
        return crowd_of(self.neighbours, self.duty.group, self._everything, n_own)

    def _absent(self) -> int:
        """Wanted slots that no neighbour can be asked for, nor reads from the origin."""
        rarity = self.neighbours.rarity
        takeable = rarity.held & (self.words.trusted | rarity.held_twice)
        return self._wanted & ~takeable & ~self.neighbours.fetching

    def _origin_slot(self, now: float) -> int | None:
        own = self.duty.own(now) & self._wanted
        if not own or not self.neighbours.are_met(now - self.began_at):
            return None
        candidates = own & self._absent()
        if not candidates or self._under_way.n_origin >= self._origin_requests(now):
            return None
        for preferred in (self._urgent, self._early):
            if candidates & preferred:
                return lowest(candidates & preferred)
        return lowest(candidates)

    def _peer_ask(self, now: float) -> Ask | None:
        rarity = self.neighbours.rarity
        takeable = self._wanted & (self.words.trusted | rarity.held_twice)
        if takeable:
            self._takes_lone_words = False
        elif self._takes_lone_words or (
            not self._under_way and now - self.active_at >= LONE_WORD_S
        ):
            self._takes_lone_words = True
            takeable = self._wanted & rarity.held
        if takeable:
            for preferred in (self._urgent, self._early, takeable):
                if takeable & preferred:
                    one = best_neighbour(self.neighbours, takeable & preferred, now, self.chunk_s)
                    if one is not None:
                        slots = takeable & preferred & one.bits
                        return self._ask(self._choose(slots), one, now)
        elif not self._wanted:
            return self._second_ask(now)
        return None

    def _choose(self, slots: int) -> int:
        if slots & self._urgent:
            return lowest(slots & self._urgent)
        return random_one(self.neighbours.rarity.rarest(slots), self.n_slots, self._uniform)

    def _second_ask(self, now: float) -> Ask | None:
        """End game: everything is under way; ask another for what has been so for long."""
        if self._under_way.n_slots > max(self.limits.peer_requests, END_GAME_RATIO * self.n_slots):
            return None
        sure = self.words.trusted | self.neighbours.rarity.held_twice
        for first in self._under_way.lone(now - self.chunk_s, now - STUCK_S):
            slot, peer = first.slot, first.peer
            if self.holdings.has(slot) or not sure >> slot & 1:
                continue
            one = best_neighbour(self.neighbours, 1 << slot, now, self.chunk_s, but=peer)
            if one is not None:
                return self._ask(slot, one, now)
        return None

    def _ask(self, slot: int, one: Neighbour | None, now: float) -> Ask:
        self.active_at = now
        self._wanted &= ~(1 << slot)
        if one is None:
            return self._under_way.begin(slot, None, now, None)
        one.n_in_flight += 1
        return self._under_way.begin(slot, one.name, now, one.timeout_s(self.chunk_s))

    # What came of it

    def landed(self, ask: Ask) -> None:
        """Its bytes came: nobody else is asked for them; `came` or `abandoned` follows."""
        self._under_way.landed(ask)

    def came(
        self, ask: Ask, crc32c: int, crc64nvme: int, now: float, *, is_shared: bool = True
    ) -> Outcome:
        """Bytes came, whole, with this checksum; `is_shared` as `Holdings.add`."""
        others = self._end(ask, now)
        slot = ask.slot
        if self.holdings.has(slot):
            return Outcome(is_accepted=False, is_late=True)
        if ask.peer is None:
            self.origin_chunk_s = moving_mean(self.origin_chunk_s, now - ask.asked_at)
            self._pace.took(now - ask.asked_at, now, self._crowd(), self.limits.origin_requests)
            self.neighbours.read_here(slot, crc32c, crc64nvme, now)
        else:
            one = self.neighbours.get(ask.peer)
            if not self.words.matches(slot, crc32c):
                if one is not None:
                    self.neighbours.strike(one, now)
                    self.neighbours.forget_slot(one, slot)
                self._want_again(slot)
                return Outcome(is_accepted=False)
            if one is not None:
                one.took(now - ask.asked_at)
            self.chunk_s = moving_mean(self.chunk_s, now - ask.asked_at)
        is_own = ask.peer is None
        self.holdings.add(slot, crc32c, crc64nvme, vouched=is_own, is_shared=is_shared)
        self.duty.fetched(slot)
        self._wanted &= ~(1 << slot)
        self._urgent &= ~(1 << slot)
        return Outcome(is_accepted=True, superseded=others)

    def failed(self, ask: Ask, why: Failure, now: float, holders: Iterable[str] = ()) -> None:
        """A peer did not send the chunk; `holders` are those it named instead."""
        self.abandoned(ask, now)
        one = self.neighbours.get(ask.peer or "")
        if one is None:
            return
        if why is Failure.BUSY:
            one.busy_until = now + (one.ewma_s or self.chunk_s) * (0.5 + self._uniform())
            for name in holders:
                self.polls.hasten(name, now)
            return
        if why is Failure.APART and self.can_fetch:
            self.duty.take(1 << ask.slot)  # of another place, of no use here
        self.neighbours.failed(one, ask.slot, why, now)
        if why is Failure.UNAVAILABLE:
            self.polls.again_at(one.name, one.absent_until)

    def abandoned(self, ask: Ask, now: float) -> None:
        """The shell gave this ask up, or the origin failed; nobody is to blame."""
        self._end(ask, now)
        self._want_again(ask.slot)

    def _end(self, ask: Ask, now: float) -> tuple[Ask, ...]:
        self.active_at = now
        one = self.neighbours.get(ask.peer or "")
        if one is not None and one.n_in_flight:
            one.n_in_flight -= 1
        return self._under_way.end(ask)

    def _want_again(self, slot: int) -> None:
        if not self._under_way.has(slot) and not self.holdings.has(slot):
            self._wanted |= 1 << slot

    def serve_claim(self, slots: Sequence[int], helper: str, now: float) -> list[ClaimState]:
        """Answer a helper that asks for slots this node was elected for."""
        return self.duty.serve(
            slots,
            helper,
            held=self.holdings.bits,
            under_way=of_slots(self._under_way.from_origin(), self.n_slots),
            now=now,
            chunk_s=self.origin_chunk_s or 1.0,
        )

    def claim_answered(self, asked: ClaimAsk, states: Sequence[ClaimState], now: float) -> None:
        self.duty.answered(asked, states, now, self.origin_chunk_s)
