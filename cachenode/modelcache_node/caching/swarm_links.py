"""One revision's swarm on the wire: asks neighbours for their maps, elected nodes for chunks.

The policy decides; this carries its questions, one task each, and tells it the answers.

Guarantees:
- at most one question for its map is under way per neighbour, and one claim in all;
- whatever a neighbour answers or does not answer, the policy hears of it once.
"""

import asyncio
from array import array
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Protocol

from modelcache_api.claims import pack_claim, unpack_answer
from modelcache_api.errors import InvalidRequestError
from modelcache_api.have_map import MAX_SLOTS, HaveMap
from modelcache_node.caching.members import Members
from modelcache_node.swarm.asks import ClaimAsk
from modelcache_node.swarm.origin_duty import ClaimState
from modelcache_node.swarm.policy import Swarm
from modelcache_node.swarm.uploads import hints
from modelcache_node.transfer.pacing import RateLimit
from modelcache_node.transfer.peer_ranges import (
    BUSY_PAUSE_S,
    PeerBusyError,
    PeerError,
    PeerLacksError,
    PeerMisbehavedError,
)

#: A neighbour without news answers after this long. Arbitrary; below any proxy's patience.
POLL_WAIT_S = 5.0
#: So long the origin is left alone while the operator has not said who else shares a revision; then
#: this node goes on alone. Arbitrary: report, plan and spec take a second or two, on a thousand
#: nodes at once some ten; a node that goes on too early costs the origin a copy.
INTRODUCTION_WAIT_S = 30.0

#: At least so often the origin's rate is looked at by who waits for it, seconds: it may be another.
RATE_LOOK_S = 1.0
#: A node that the origin group leaves without anything for so long, and that could read the origin,
#: reads it for itself: the group may be full, broken, or gone. Arbitrary: far above what a chunk
#: takes, and above the quarter of a minute for which a silent member is passed over.
STARVED_S = 60.0


class PeerCalls(Protocol):
    """Small things asked of other agents; `peers.client.PeerClient` is one. All raise PeerError."""

    async def have(
        self, peer: str, revision: str, *, instance: int, since: int, wait_s: float
    ) -> bytes: ...
    async def claim(self, peer: str, revision: str, body: bytes) -> bytes: ...
    async def manifest(self, peer: str, revision: str) -> bytes: ...
    async def proofs(self, peer: str, revision: str) -> bytes: ...


class SwarmLink:
    """One download's part in its swarm. Its tasks are those of the group that `step` is given."""

    def __init__(
        self,
        revision: str,
        policy: Swarm,
        *,
        me: str,
        calls: PeerCalls | None,
        members: Callable[[], Members | None],
        clock: Callable[[], float],
        origin_limit_bytes_per_s: int | None = None,
    ) -> None:
        """Without `calls` this node is alone, and reads everything from the origin.

        `origin_limit_bytes_per_s` counts where members come without a share of their own.

        `members` gives None until somebody said who shares the revision.
        """
        self.policy = policy
        #: Set, and replaced, when there may be something to do, or to tell.
        self.changed = asyncio.Event()
        self._revision = revision
        self._me = me
        self._calls = calls if policy.n_slots <= MAX_SLOTS else None
        self._members = members
        self._clock = clock
        self._known: Members | None = None
        self._origin_limit_bytes_per_s = origin_limit_bytes_per_s
        self._origin_rate = RateLimit(origin_limit_bytes_per_s, clock())
        self._alone_at = clock() + INTRODUCTION_WAIT_S
        self._addresses: dict[str, str] = {}
        self._asking: set[asyncio.Task[None]] = set()

    @property
    def is_introduced(self) -> bool:
        """Whether the origin may be read: it is known who else does, or was asked for too long."""
        return self._known is not None

    @property
    def has_offers(self) -> bool:
        """Whether a neighbour has anything of this revision."""
        return bool(self.policy.neighbours.rarity.held)

    async def may_read_origin(self, n_bytes: int) -> None:
        """Wait until so many bytes may be asked of the origin."""
        while (wait_s := self._origin_rate.wait_s(self._clock())) > 0:  # noqa: ASYNC110 - a rate
            await asyncio.sleep(min(wait_s, RATE_LOOK_S))
        self._origin_rate.take(n_bytes)

    def address(self, name: str) -> str | None:
        return self._addresses.get(name)

    def names(self, addresses: Iterable[str]) -> list[str]:
        """Members at these addresses; what leads elsewhere is left out."""
        wanted = set(addresses)
        return [name for name, address in self._addresses.items() if address in wanted]

    def name_at(self, address: str) -> str:
        """The member at this address; empty if there is none."""
        return next(iter(self.names([address])), "")

    def holders(self, slot: int, asker: str) -> tuple[str, ...]:
        """Addresses of neighbours that hold a slot, for `asker`, an address."""
        found = hints(slot, self.policy.neighbours, self.name_at(asker), self._clock())
        return tuple(self._addresses[name] for name in found if name in self._addresses)

    def map_for(self, asker: str, instance: int, since: int, uploads_queued: int) -> HaveMap:
        """What a neighbour at this address is told; if it was away, its own map is due.

        Not of others: two that ask each other whenever they are asked would never pause.
        """
        self.policy.uploads_queued = uploads_queued
        for name in self.names([asker]):
            one = self.policy.neighbours.get(name)
            if one is not None and one.is_absent:
                self.policy.polls.hasten(name, self._clock())
        return self.policy.map_for(instance, since)

    def told(self, asker: str) -> None:
        """The neighbour at this address was given a map."""
        for name in self.names([asker]):
            self.policy.neighbours.told(name, can_fetch=self.policy.can_fetch)
        self.pulse()

    def step(self, tasks: asyncio.TaskGroup) -> None:
        """Ask whatever the policy wants to know now."""
        now = self._clock()
        self._follow_members()
        if self._is_starved(now):
            self.policy.duty.set_group([self._me])
        for name, instance, since in self.policy.due_polls(now):
            self._begin(tasks, self._poll(name, instance, since))
        claim = self.policy.next_claim(now)
        if claim is not None:
            self._begin(tasks, self._claim(claim))

    def stop(self) -> None:
        """Ask nothing more."""
        for task in self._asking:
            task.cancel()

    def pulse(self) -> None:
        """Wake whoever waits for a change."""
        self.changed.set()
        self.changed = asyncio.Event()

    def _follow_members(self) -> None:
        members = self._members()
        if members is None and self._known is None and self._clock() >= self._alone_at:
            members = _NOBODY
        if members is None or members is self._known:
            return
        if self._known is None:
            self.policy.began_at = self._clock()
        limit = members.origin_bytes_per_s or self._origin_limit_bytes_per_s
        self._origin_rate.change(limit, self._clock())
        self._known = members
        self._addresses = members.addresses()
        weights = {one.name: one.weight for one in members.neighbours} if self._calls else {}
        group = [one.name for one in members.group] if self._calls else []
        self.policy.set_members(weights, group or [self._me])

    def _is_starved(self, now: float) -> bool:
        is_left_out = self.policy.can_fetch and not self.policy.duty.is_member
        return is_left_out and now - self.policy.active_at >= STARVED_S

    def _begin(self, tasks: asyncio.TaskGroup, asking: Coroutine[Any, Any, None]) -> None:
        task = tasks.create_task(asking)
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _poll(self, name: str, instance: int, since: int) -> None:
        assert self._calls is not None
        try:
            raw = await self._calls.have(
                self._addresses[name],
                self._revision,
                instance=instance,
                since=since,
                wait_s=POLL_WAIT_S,
            )
            self.policy.hear(name, HaveMap.unpack(raw), self._clock())
        except (InvalidRequestError, PeerMisbehavedError):
            self.policy.told_nonsense(name, self._clock())
        except PeerLacksError:
            self.policy.unheard(name, self._clock(), is_there=True)
        except PeerBusyError:  # there, and with all that it offers
            self.policy.polls.again_at(name, self._clock() + BUSY_PAUSE_S)
        except PeerError:
            self.policy.unheard(name, self._clock())
        self.pulse()

    async def _claim(self, claim: ClaimAsk) -> None:
        assert self._calls is not None
        try:
            raw = await self._calls.claim(
                self._addresses[claim.member], self._revision, pack_claim(claim.slots)
            )
            states = [ClaimState(one) for one in unpack_answer(raw, len(claim.slots))]
            self.policy.claim_answered(claim, states, self._clock())
        except PeerBusyError:
            self.policy.duty.put_off(claim, self._clock() + BUSY_PAUSE_S)
        except (InvalidRequestError, PeerError):
            self.policy.duty.unanswered(claim, self._clock())
        self.pulse()


#: Of a node that was introduced to no one.
_NOBODY = Members()
#: Of a node that reads nothing from the origin.
NO_SLOTS: "array[int]" = array("I")
