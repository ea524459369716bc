"""A swarm in virtual time: the agents' own policy, on simulated nodes, links and an origin.

The model: streams share a link's rate evenly; an uplink sends a few chunks at a time, in the order
of requests, the origin as many as it is asked for; a downlink takes chunks as they arrive, no
faster than its rate. Requests and answers take `latency_s`. Maps are asked for as often as the
policy says. Time is exact, not stepped, and everything random comes from one seed, so that a run
can be repeated.

What it leaves out: losses and unfairness of TCP, disks, CPU. It ranks policies and finds dead ends;
what a real cluster reaches is for the benchmarks.

The content of a slot is its true checksum; a node that holds another has wrong bytes. Every send of
wrong bytes by an honest node is counted: that must not happen.
"""

import heapq
import random
from collections.abc import Callable

from modelcache_api.chunk_slots import ChunkSlots
from modelcache_node.peers.turns import AT_ONCE
from modelcache_node.swarm.asks import Ask, ClaimAsk, Failure
from modelcache_node.swarm.policy import Swarm
from modelcache_node.swarm.uploads import admits, hints
from modelcache_operator.planning.swarms import Peer, lists_for
from support.shared_link import SharedLink
from support.swarm_scenarios import Result, Scenario

_BLOB = "5" * 64
_WRONG = 0xBAD
#: A stuck run is given up after so many times the ideal.
_PATIENCE = 40.0

At = Callable[..., None]


class Node:
    """One agent: its policy, its links, what its chunks really contain."""

    def __init__(
        self, number: int, scenario: Scenario, slots: ChunkSlots, rng: random.Random, at: At
    ) -> None:
        self.number = number
        self.name = f"node-{number}"
        self.down_s = 1 / (scenario.rate * scenario.slow_down.get(number, 1.0))
        self.down_free = 0.0
        self.uplink = SharedLink(
            at, scenario.rate * scenario.slow_up.get(number, 1.0), at_once=AT_ONCE
        )
        self.queued: list[int] = []
        self.is_alive = False
        self.life = 0
        self.wrong: set[int] = set()
        self.finished_at: float | None = None
        self.slots = slots
        self.rng = rng
        self.limits = scenario.limits
        self.members: tuple[dict[str, float], list[str]] = ({}, [])
        self.policy: Swarm | None = None

    def start(self, now: float, *, can_fetch: bool, kept: "Node | None" = None) -> None:
        self.is_alive, self.life = True, self.life + 1
        former = self.policy
        self.policy = Swarm(
            self.name,
            self.slots,
            instance=self.rng.getrandbits(64),
            uniform=self.rng.random,
            now=now,
            limits=self.limits,
        )
        self.policy.set_members(*self.members)
        self.policy.set_can_fetch(now, can_fetch=can_fetch)
        self.policy.want(range(self.slots.n_slots))
        if former is not None:  # what was on disk
            for slot in range(self.slots.n_slots):
                if former.holdings.has(slot):
                    self.policy.hold(slot, former.holdings.checksums(slot)[0], 0, vouched=False)


class Simulator:
    """Runs one scenario to its end, or until it is clear that there is none."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.rng = random.Random(scenario.seed)
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[..., None], tuple]] = []
        self._n_events = 0
        self.slots = ChunkSlots(((_BLOB, scenario.n_chunks),))
        self.truth = [self.rng.getrandbits(31) + 2 * _WRONG for _ in range(scenario.n_chunks)]
        self.nodes = [
            Node(number, scenario, self.slots, self.rng, self._at)
            for number in range(scenario.n_nodes)
        ]
        self.by_name = {node.name: node for node in self.nodes}
        self.origin = SharedLink(self._at, scenario.origin_rate or scenario.rate)
        self.origin_allowance_at = 0.0
        self.n_origin_fetches = self.n_origin_requests = self.n_messages = 0
        self.n_busy = self.n_wrong_sends = 0
        self.n_unfinished = 0
        self._connect()

    def run(self) -> Result:
        scenario, ideal_s = self.scenario, self.scenario.ideal_s
        for node in self.nodes:
            self._at(scenario.joins_at.get(node.number, 0.0) * ideal_s, self._start, node)
        for number, part in scenario.dies_at.items():
            self._at(part * ideal_s, self._die, self.nodes[number])
        for number, part in scenario.revives_at.items():
            self._at(part * ideal_s, self._start, self.nodes[number])
        dead_for_good = set(scenario.dies_at) - set(scenario.revives_at)
        self.n_unfinished = scenario.n_nodes - len(dead_for_good)
        deadline = _PATIENCE * ideal_s + 120
        while self._events and self.n_unfinished > 0 and self.now < deadline:
            self.now, _, action, args = heapq.heappop(self._events)
            action(*args)
        return self._result(self.n_unfinished <= 0)

    def _result(self, ended: bool) -> Result:
        finished = {n.number: n.finished_at for n in self.nodes if n.finished_at is not None}
        seconds = max(finished.values(), default=self.now)
        return Result(
            ended=ended,
            seconds=seconds,
            ratio=seconds / self.scenario.ideal_end_s,
            origin_fetches=self.n_origin_fetches,
            origin_requests=self.n_origin_requests,
            messages_per_node=self.n_messages / self.scenario.n_nodes,
            busy_replies=self.n_busy,
            wrong_sends=self.n_wrong_sends,
            wrong_held=sum(len(node.wrong) for node in self.nodes if node.finished_at is not None),
            finished_at=finished,
            blamed={
                number: sum(
                    bool(one.n_avoided)
                    for node in self.nodes
                    if node.policy
                    for one in node.policy.neighbours
                    if one.name == self.nodes[number].name
                )
                for number in self.scenario.corrupt | self.scenario.liars
            },
        )

    # Who knows whom

    def _connect(self) -> None:
        """As the operator introduces them."""
        peers = tuple(Peer(node.name, node.name, zone="") for node in self.nodes)
        for node in self.nodes:
            neighbours, group = lists_for(node.name, f"seed {self.scenario.seed}", peers)
            node.members = ({one.name: 1.0 for one in neighbours}, [one.name for one in group])

    # Life and death

    def _start(self, node: Node) -> None:
        can_fetch = node.number not in self.scenario.without_grant
        node.start(self.now, can_fetch=can_fetch)
        if node.number in self.scenario.complete:
            for slot, crc in enumerate(self.truth):
                node.policy.hold(slot, crc, 0, vouched=True)
            self._finish(node)
        self._poll(node, node.life)

    def _die(self, node: Node) -> None:
        node.is_alive = False
        node.queued = []
        if node.finished_at is not None and node.number not in self.scenario.revives_at:
            del node.finished_at
            node.finished_at = None
            self.n_unfinished += 1

    def _finish(self, node: Node) -> None:
        if node.finished_at is None:
            node.finished_at = self.now
            self.n_unfinished -= 1

    # Maps

    def _poll(self, node: Node, life: int) -> None:
        """Ask for every map that is due; come back at the pace the policy gives."""
        if node.life != life or not node.is_alive:
            return
        policy = node.policy
        for name, instance, since in policy.due_polls(self.now):
            self.n_messages += 2
            other = self.by_name[name]
            if self._lost():
                self._at(self.now + 1.0, self._unheard, node, name)
            elif not other.is_alive:
                policy.unheard(name, self.now)
            elif self.scenario.stale_s:
                told = self._map(node, other, instance, since)
                self._at(self.now + self.scenario.stale_s, self._heard, node, name, told)
            else:
                policy.hear(name, self._map(node, other, instance, since), self.now)
        self._drop_overruled(node)
        self._pump(node)
        self._at(self.now + policy.poll_pause_s / 2, self._poll, node, life)

    def _map(self, node: Node, other: Node, instance: int, since: int):
        told = other.policy.map_for(instance, since)
        other.policy.neighbours.told(node.name, can_fetch=told.can_fetch)
        if other.number in self.scenario.liars and told.present:
            for number, slot in enumerate(told.present):
                if not told.vouched >> number & 1:
                    told.crc32c[number] = self.truth[slot] ^ _WRONG
        return told

    def _heard(self, node: Node, name: str, told) -> None:
        if node.is_alive:
            node.policy.hear(name, told, self.now)
            self._drop_overruled(node)
            self._pump(node)

    def _unheard(self, node: Node, name: str) -> None:
        if node.is_alive:
            node.policy.unheard(name, self.now)

    def _drop_overruled(self, node: Node) -> None:
        for slot in node.policy.take_dropped():
            node.wrong.discard(slot)

    # Chunks

    def _pump(self, node: Node) -> None:
        while (ask := node.policy.next_ask(self.now)) is not None:
            if ask.peer is None:
                self._ask_origin(node, node.life, ask, 0)
            else:
                self.n_messages += 2
                self._at(self.now + self.scenario.latency_s, self._arrive, node, node.life, ask)
        claim = node.policy.next_claim(self.now)
        if claim is not None:
            self.n_messages += 2
            self._at(self.now + self.scenario.latency_s, self._claim, node, node.life, claim)

    def _arrive(self, node: Node, life: int, ask: Ask) -> None:
        other = self.by_name[ask.peer]
        if self._lost():
            self._at(self.now + ask.timeout_s, self._fail, node, life, ask, Failure.UNAVAILABLE)
        elif not other.is_alive:
            self._fail(node, life, ask, Failure.UNAVAILABLE)
        elif not other.policy.holdings.has(ask.slot):
            self._fail(node, life, ask, Failure.LACKS)
        elif not admits(len(other.queued), other.queued.count(ask.slot)):
            self.n_busy += 1
            names = hints(ask.slot, other.policy.neighbours, node.name, self.now)
            self._at(
                self.now + self.scenario.latency_s, self._fail, node, life, ask, Failure.BUSY, names
            )
        else:
            other.queued.append(ask.slot)
            other.policy.uploads_queued = len(other.queued)
            other.uplink.send(self.now, self._arrive_down, node, life, ask, other, other.life)

    def _arrive_down(self, node: Node, life: int, ask: Ask, other: Node, other_life: int) -> None:
        node.down_free = max(self.now, node.down_free + node.down_s)
        self._at(node.down_free, self._deliver, node, life, ask, other, other_life)

    def _fail(
        self, node: Node, life: int, ask: Ask, why: Failure, holders: tuple[str, ...] = ()
    ) -> None:
        if node.life == life and node.is_alive:
            node.policy.failed(ask, why, self.now, holders)
            self._pump(node)

    def _deliver(self, node: Node, life: int, ask: Ask, other: Node, other_life: int) -> None:
        if other.life == other_life:
            if not other.is_alive:
                self._fail(node, life, ask, Failure.UNAVAILABLE)
                return
            other.queued.remove(ask.slot)
            other.policy.uploads_queued = len(other.queued)
        elif other.life != other_life:
            self._fail(node, life, ask, Failure.UNAVAILABLE)
            return
        if node.life != life or not node.is_alive:
            return
        is_wrong = ask.slot in other.wrong
        self.n_wrong_sends += is_wrong
        crc = self.truth[ask.slot]
        if is_wrong or other.number in self.scenario.corrupt | self.scenario.liars:
            crc ^= _WRONG
        self._take(node, ask, crc)

    def _take(self, node: Node, ask: Ask, crc: int) -> None:
        policy = node.policy
        outcome = policy.came(ask, crc, 0, self.now)
        for late in outcome.superseded:
            policy.abandoned(late, self.now)
        if outcome.is_accepted and crc != self.truth[ask.slot]:
            node.wrong.add(ask.slot)
        self._drop_overruled(node)
        if policy.holdings.bits.bit_count() == self.slots.n_slots:
            self._finish(node)
        self._pump(node)

    # The origin

    def _ask_origin(self, node: Node, life: int, ask: Ask, attempt: int) -> None:
        if node.life != life or not node.is_alive:
            return
        self.n_origin_requests += 1
        limit = self.scenario.origin_requests_per_s
        if limit is not None:
            self.origin_allowance_at = max(self.origin_allowance_at, self.now - 1.0)
            if self.origin_allowance_at > self.now:
                pause_s = self.rng.uniform(0, min(5.0, 0.1 * 2**attempt))
                self._at(self.now + pause_s, self._ask_origin, node, life, ask, attempt + 1)
                return
            self.origin_allowance_at += 1 / limit
        self.n_origin_fetches += 1
        self.origin.send(self.now, self._origin_sent, node, life, ask)

    def _origin_sent(self, node: Node, life: int, ask: Ask) -> None:
        node.down_free = max(self.now, node.down_free + node.down_s)
        self._at(node.down_free, self._from_origin, node, life, ask)

    def _from_origin(self, node: Node, life: int, ask: Ask) -> None:
        if node.life == life and node.is_alive:
            self._take(node, ask, self.truth[ask.slot])

    def _claim(self, node: Node, life: int, claim: ClaimAsk) -> None:
        if node.life != life or not node.is_alive:
            return
        other = self.by_name[claim.member]
        if self._lost():
            self._at(self.now + 1.0, self._claim_failed, node, life, claim)
        elif not other.is_alive:
            node.policy.duty.unanswered(claim, self.now)
            self._pump(node)
        else:
            states = other.policy.serve_claim(claim.slots, node.name, self.now)
            node.policy.claim_answered(claim, states, self.now)
            self._pump(node)

    def _claim_failed(self, node: Node, life: int, claim: ClaimAsk) -> None:
        if node.life == life and node.is_alive:
            node.policy.duty.unanswered(claim, self.now)
            self._pump(node)

    # Events

    def _lost(self) -> bool:
        return bool(self.scenario.loss) and self.rng.random() < self.scenario.loss

    def _at(self, when: float, action: Callable[..., None], *args: object) -> None:
        self._n_events += 1
        heapq.heappush(self._events, (when, self._n_events, action, args))
