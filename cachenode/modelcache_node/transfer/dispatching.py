"""Which range goes to which worker, and when: queues per origin, workers, and their accounts.

Guarantees:
- a worker has at most `depth` ranges: one for each connection and one waiting behind it;
- of one origin, no more are under way than its window allows; one origin's troubles do not hold
  up another's ranges;
- a ticket is settled once: by its result, its failure, its worker's death or its cancellation.
"""

import asyncio
import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

from modelcache_node.transfer.addresses import Endpoint
from modelcache_node.transfer.failures import FailureKind, RangeFailedError
from modelcache_node.transfer.holding import MAX_URGENT, Holding
from modelcache_node.transfer.limits import MoverLimits
from modelcache_node.transfer.pacing import RateLimit, RetryBudget, Window, backoff_s
from modelcache_node.transfer.processes import WorkerProcess
from modelcache_node.transfer.ranges import URGENT_PRIORITY, MoverStats
from modelcache_node.transfer.wire import (
    SYSTEM_TRUST,
    Assignment,
    Cancel,
    Cancelled,
    Done,
    Failed,
    Hold,
    Keys,
    Trust,
    Usage,
    decode,
    encode,
)

#: Ranges at a worker per connection: one under way, one at hand when it ends.
RANGES_PER_CONNECTION = 2
#: A worker that lived at least this long was not broken from the start. Arbitrary.
QUICK_DEATH_S = 5.0
#: Sets of authorities, and origins, kept in mind at once. Arbitrary; idle ones go first.
MAX_PROFILES = 256
MAX_ORIGINS = 256

_MODULE = "modelcache_node.transfer.worker"


@dataclass(slots=True, eq=False)
class Ticket:
    """One attempt at a range."""

    assignment: Assignment
    priority: int
    settled: asyncio.Future[Done] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    worker: "_Worker | None" = None

    @property
    def is_gone(self) -> bool:
        """It waits no more."""
        return self.worker is not None or self.settled.done()


@dataclass(slots=True, eq=False)
class _Worker:
    """A worker process and the ranges it has."""

    process: WorkerProcess
    began_at: float
    tickets: dict[int, Ticket] = field(default_factory=dict)
    cancelling: dict[int, asyncio.Future[None]] = field(default_factory=dict)
    profiles: set[int] = field(default_factory=set)
    usage: Usage = Usage(0, 0.0)  # noqa: RUF009 - immutable


class _Origin:
    """Ranges of one origin: those that wait, and how many may be under way."""

    def __init__(self, ceiling: int, now: float) -> None:
        self.window = Window(ceiling)
        self.budget = RetryBudget(now)
        self.waiting: list[tuple[int, int, Ticket]] = []


class Dispatcher:
    """See the module. Belongs to one event loop; `start` it, and `stop` it in any case."""

    def __init__(
        self,
        count: int,
        limits: MoverLimits,
        *,
        bytes_per_s: float | None,
        clock: Callable[[], float],
        uniform: Callable[[float, float], float],
    ) -> None:
        self._count = count
        self._limits = limits
        self._clock = clock
        self._uniform = uniform
        self._rate = RateLimit(bytes_per_s, clock())
        self._workers: list[_Worker] = []
        self._origins: dict[Endpoint, _Origin] = {}
        self._profiles: dict[str, int] = {}
        self._keys: Keys | None = None
        self._ids = itertools.count(1)
        self._timers: set[asyncio.TimerHandle] = set()
        self._reaping: set[asyncio.Task[None]] = set()
        self._holding = Holding(self._hold, clock=clock, call_later=self._call_later)
        self._is_pump_due = False
        self._is_stopping = False
        self._quick_deaths = 0
        self._ended_usage = Usage(0, 0.0)
        self._n_done = self._n_retries = self._n_throttled = self._n_restarts = 0

    @property
    def depth(self) -> int:
        """Ranges that one worker is given at once."""
        return self._limits.connections * RANGES_PER_CONNECTION

    @property
    def worker_pids(self) -> list[int]:
        return [one.process.pid for one in self._workers]

    def start(self) -> None:
        """Start the workers; does not wait until they are up."""
        for _ in range(self._count):
            self._spawn()

    async def stop(self) -> None:
        """End the workers; whoever still waits for a range is cancelled."""
        self._is_stopping = True
        for timer in self._timers:
            timer.cancel()
        for origin in self._origins.values():
            for _, _, ticket in origin.waiting:
                ticket.settled.cancel()
        await asyncio.gather(*(one.process.stop() for one in self._workers), *self._reaping)

    def next_id(self) -> int:
        return next(self._ids)

    def use_keys(self, keys: Keys) -> None:
        """Have workers sign and verify with these from now on."""
        self._keys = keys
        for worker in self._workers:
            worker.process.send(encode(keys))

    def trust_profile(self, pem: str | None) -> int:
        """The number under which workers know these authorities."""
        if pem is None:
            return SYSTEM_TRUST
        if pem not in self._profiles:
            while len(self._profiles) >= MAX_PROFILES:
                self._profiles.pop(next(iter(self._profiles)))
            self._profiles[pem] = self.next_id()
        return self._profiles[pem]

    async def carry(self, ticket: Ticket) -> Done:
        """Have a worker fetch this range.

        Raises:
            RangeFailedError: it was not fetched.
        """
        if ticket.priority > URGENT_PRIORITY or not self._assign_at_once(ticket):
            origin = self._origin_of(ticket.assignment)
            heapq.heappush(origin.waiting, (ticket.priority, ticket.assignment.id, ticket))
            self._pump()
        try:
            return await ticket.settled
        except asyncio.CancelledError:
            await self._withdraw(ticket)
            raise

    def hurry(self, path: str, offset: int, priority: int) -> None:
        """Let a range that still waits go before others: as if asked for with this priority."""
        for origin in self._origins.values():
            for _, number, ticket in list(origin.waiting):
                meant = (ticket.assignment.path, ticket.assignment.offset) == (path, offset)
                if meant and not ticket.is_gone and ticket.priority > priority:
                    ticket.priority = priority
                    heapq.heappush(origin.waiting, (priority, number, ticket))

    def spend_retry(self, endpoint: Endpoint) -> float:
        """Take a retry out of an origin's budget; returns how long it must wait, in seconds."""
        self._n_retries += 1
        return self._origin_at(endpoint).budget.spend(self._clock())

    def stats(self) -> MoverStats:
        usages = [self._ended_usage, *(worker.usage for worker in self._workers)]
        return MoverStats(
            bytes_received=sum(usage.bytes_received for usage in usages),
            ranges=self._n_done,
            retries=self._n_retries,
            throttled=self._n_throttled,
            restarts=self._n_restarts,
            cpu_seconds=sum(usage.cpu_seconds for usage in usages),
        )

    # Ranges

    def _pump(self) -> None:
        """Assign ranges as long as there are any, room for them, and the rate allows."""
        while not self._is_stopping:
            worker = min(self._workers, key=lambda one: len(one.tickets), default=None)
            if worker is None or len(worker.tickets) >= self.depth:
                return
            wait_s = self._rate.wait_s(self._clock())
            if wait_s > 0:
                self._pump_later(wait_s)
                return
            ticket = self._next_ticket()
            if ticket is None:
                return
            self._assign(worker, ticket)

    def _next_ticket(self) -> Ticket | None:
        """The first in order among the origins that have room."""
        for origin in self._origins.values():
            while origin.waiting and origin.waiting[0][2].is_gone:  # withdrawn, or hurried
                heapq.heappop(origin.waiting)
        ready = [one for one in self._origins.values() if one.waiting and one.window.has_room]
        if not ready:
            return None
        return heapq.heappop(min(ready, key=lambda one: one.waiting[0]).waiting)[2]

    def _assign(self, worker: _Worker, ticket: Ticket) -> None:
        assignment = ticket.assignment
        if assignment.trust != SYSTEM_TRUST and assignment.trust not in worker.profiles:
            pem = next(pem for pem, one in self._profiles.items() if one == assignment.trust)
            worker.process.send_file(encode(Trust(assignment.trust)), pem.encode())
            worker.profiles.add(assignment.trust)
        ticket.worker = worker
        worker.tickets[assignment.id] = ticket
        self._origin_of(assignment).window.in_flight += 1
        self._rate.take(assignment.length)
        worker.process.send(encode(assignment))

    def _assign_at_once(self, ticket: Ticket) -> bool:
        """Give an urgent range to a worker before all others, if it has not too many of these."""
        worker = min(self._workers, key=lambda one: len(one.tickets), default=None)
        if worker is None or len(worker.tickets) >= self.depth + MAX_URGENT:
            return False
        ticket.assignment = ticket.assignment._replace(is_urgent=True)
        self._assign(worker, ticket)
        self._holding.begin(ticket.assignment.id)
        return True

    def _hold(self, *, is_on: bool) -> None:
        for worker in self._workers:
            worker.process.send(encode(Hold(is_on)))

    async def _withdraw(self, ticket: Ticket) -> None:
        """Have the worker forget a range; returns when it will write nothing more of it."""
        worker, range_id = ticket.worker, ticket.assignment.id
        if worker is None or range_id not in worker.tickets:
            return
        forgotten = worker.cancelling.setdefault(
            range_id, asyncio.get_running_loop().create_future()
        )
        worker.process.send(encode(Cancel(range_id)))
        await asyncio.shield(forgotten)

    def _release(self, worker: _Worker, range_id: int) -> Ticket | None:
        self._holding.end(range_id)
        ticket = worker.tickets.pop(range_id, None)
        if ticket is not None:
            self._origin_of(ticket.assignment).window.in_flight -= 1
        return ticket

    def _origin_of(self, assignment: Assignment) -> _Origin:
        return self._origin_at(Endpoint(assignment.scheme, assignment.host, assignment.port))

    def _origin_at(self, endpoint: Endpoint) -> _Origin:
        origin = self._origins.get(endpoint)
        if origin is None:
            if len(self._origins) >= MAX_ORIGINS:
                self._forget_idle_origin()
            origin = _Origin(self._count * self.depth, self._clock())
            self._origins[endpoint] = origin
        return origin

    def _forget_idle_origin(self) -> None:
        for endpoint, origin in self._origins.items():
            if not origin.waiting and not origin.window.in_flight:
                del self._origins[endpoint]
                return

    # Workers

    def _spawn(self) -> None:
        process = WorkerProcess(
            _MODULE, self._limits._asdict(), on_packet=self._on_packet, on_end=self._on_end
        )
        if self._keys is not None:
            process.send(encode(self._keys))
        self._workers.append(_Worker(process, self._clock()))
        self._pump()

    def _on_packet(self, process: WorkerProcess, packet: bytes) -> None:
        worker = next(one for one in self._workers if one.process is process)
        message = decode(packet)
        if isinstance(message, Done):
            self._on_done(worker, message)
        elif isinstance(message, Failed):
            self._on_failed(worker, message)
        elif isinstance(message, Cancelled):
            self._release(worker, message.id)
            forgotten = worker.cancelling.pop(message.id, None)
            if forgotten and not forgotten.done():
                forgotten.set_result(None)
        elif isinstance(message, Usage):
            worker.usage = message
        self._pump()

    def _on_done(self, worker: _Worker, done: Done) -> None:
        ticket = self._release(worker, done.id)
        if ticket is None:
            return
        self._n_done += 1
        origin = self._origin_of(ticket.assignment)
        origin.window.succeeded()
        origin.budget.earn()
        if not ticket.settled.done():
            ticket.settled.set_result(done)

    def _on_failed(self, worker: _Worker, failed: Failed) -> None:
        ticket = self._release(worker, failed.id)
        if ticket is None:
            return
        kind = FailureKind(failed.kind)
        if kind is FailureKind.THROTTLED:
            self._n_throttled += 1
            self._origin_of(ticket.assignment).window.throttled(self._clock())
        if not ticket.settled.done():
            ticket.settled.set_exception(
                RangeFailedError(
                    kind, failed.message, failed.retry_after, failed.location, failed.hints
                )
            )

    def _on_end(self, process: WorkerProcess) -> None:
        worker = next(one for one in self._workers if one.process is process)
        self._workers.remove(worker)
        self._ended_usage = Usage(
            self._ended_usage.bytes_received + worker.usage.bytes_received,
            self._ended_usage.cpu_seconds + worker.usage.cpu_seconds,
        )
        for forgotten in worker.cancelling.values():
            if not forgotten.done():
                forgotten.set_result(None)
        for range_id in list(worker.tickets):
            ticket = self._release(worker, range_id)
            if ticket and not ticket.settled.done():
                ticket.settled.set_exception(
                    RangeFailedError(FailureKind.UNAVAILABLE, "a mover process ended")
                )
        if not self._is_stopping:
            self._replace(worker)

    def _replace(self, worker: _Worker) -> None:
        reaping = asyncio.get_running_loop().create_task(worker.process.stop())
        self._reaping.add(reaping)
        reaping.add_done_callback(self._reaping.discard)
        self._n_restarts += 1
        is_quick = self._clock() - worker.began_at < QUICK_DEATH_S
        self._quick_deaths = self._quick_deaths + 1 if is_quick else 0
        # The first death costs no time: a mover that is broken from its start dies again.
        pause_s = backoff_s(self._quick_deaths, self._uniform) if self._quick_deaths > 1 else 0.0
        self._call_later(pause_s, self._spawn)

    # Timers

    def _pump_later(self, delay_s: float) -> None:
        if not self._is_pump_due:
            self._is_pump_due = True
            self._call_later(delay_s, self._pump_due)

    def _pump_due(self) -> None:
        self._is_pump_due = False
        self._pump()

    def _call_later(self, delay_s: float, action: Callable[[], None]) -> None:
        def act() -> None:
            self._timers.discard(timer)
            if not self._is_stopping:
                action()

        timer = asyncio.get_running_loop().call_later(delay_s, act)
        self._timers.add(timer)
