"""What the swarm simulator is given, and what it finds."""

from dataclasses import dataclass, field

from modelcache_node.swarm.limits import SwarmLimits


@dataclass
class Scenario:
    """What to simulate. Rates are in chunks per second."""

    n_nodes: int
    n_chunks: int
    seed: int = 0
    rate: float = 20.0
    origin_rate: float | None = None
    latency_s: float = 0.001
    limits: SwarmLimits = field(default_factory=SwarmLimits)
    #: Uplink and downlink of some nodes, as parts of `rate`.
    slow_up: dict[int, float] = field(default_factory=dict)
    slow_down: dict[int, float] = field(default_factory=dict)
    #: When nodes begin, and when they die, in parts of the ideal time.
    joins_at: dict[int, float] = field(default_factory=dict)
    dies_at: dict[int, float] = field(default_factory=dict)
    revives_at: dict[int, float] = field(default_factory=dict)
    #: Requests per second above which the origin answers 429.
    origin_requests_per_s: float | None = None
    #: Nodes without a grant, and nodes that hold everything from the start.
    without_grant: frozenset[int] = frozenset()
    complete: frozenset[int] = frozenset()
    #: Part of messages (maps, claims, chunk requests) that get lost.
    loss: float = 0.0
    #: Nodes that send wrong bytes; nodes whose maps state checksums of their own.
    corrupt: frozenset[int] = frozenset()
    liars: frozenset[int] = frozenset()
    #: Maps are as old as this when they are read.
    stale_s: float = 0.0

    @property
    def ideal_s(self) -> float:
        """The time that no system can beat with one egress copy: T*."""
        n_fed = self.n_nodes - len(self.complete)
        up = sum(self.rate * self.slow_up.get(node, 1.0) for node in range(self.n_nodes))
        down = min(self.rate * self.slow_down.get(node, 1.0) for node in range(self.n_nodes))
        seeds = len(self.complete)
        bounds = [self.n_chunks / down, (n_fed - (0 if seeds else 1)) * self.n_chunks / up]
        if not seeds:
            bounds.append(self.n_chunks / (self.origin_rate or self.rate))
        return max(bounds)

    @property
    def ideal_end_s(self) -> float:
        """The same with the last node that joins: it cannot have begun before."""
        joins_s = max(self.joins_at.values(), default=0.0) * self.ideal_s
        return max(self.ideal_s, joins_s + (self.n_chunks / self.rate if joins_s else 0.0))


@dataclass
class Result:
    """What came of it."""

    ended: bool
    seconds: float
    ratio: float
    origin_fetches: int
    origin_requests: int
    messages_per_node: float
    busy_replies: int
    wrong_sends: int
    wrong_held: int
    finished_at: dict[int, float]
    blamed: dict[int, int]

    def origin_ratio(self, scenario: Scenario) -> float:
        return self.origin_fetches / scenario.n_chunks
