"""Runs of a swarm in a laboratory: agents fetch, one of them may be slow, late or die."""

import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from _lab_origin import Asked, lab_origin
from _netlab import Host, Lab, machine_cpu_s
from _processes import cpu_seconds, tree_of
from _scratch import make_file
from _servers import BUCKET
from _stream import goodput_bytes_per_s
from _swarm_agents import Driver, SwarmAgent, swarm_agents
from _swarm_rivals import Race, Rival

SLOW_UPLINK = 0.25
JOINS_AT = 0.5
DIES_AT = 0.3
#: For so long a plain stream is measured on each kind of link, seconds.
STREAM_S = 10.0
#: The throttling origin allows so many times the requests per second that one copy takes.
REQUEST_HEADROOM = 1.5


@dataclass(frozen=True)
class Plan:
    """What is measured; with `variant_size` nodes also what may happen to a swarm."""

    n_files: int
    file_bytes: int
    bytes_per_s: float
    sizes: tuple[int, ...]
    variant_size: int | None
    rounds: int

    @property
    def n_bytes(self) -> int:
        return self.n_files * self.file_bytes


@dataclass(frozen=True)
class Outcome:
    """One swarm's run.

    Attributes:
        seconds: Of the nodes that were to end; since the first was asked to fetch.
        late_s: Of the node that joined late; it is not among `seconds`.
        own_cpu: What agents used, as a share of all cores.
        machine_cpu: How busy the machine was, others included.
    """

    seconds: tuple[float, ...]
    late_s: float
    asked: Asked
    own_cpu: float
    machine_cpu: float

    @property
    def last_s(self) -> float:
        return max(self.seconds)


@dataclass(frozen=True)
class Scenario:
    """What happens to a swarm on its way."""

    name: str
    n_nodes: int
    uplink_of_one: float = 1.0
    joins_at: float | None = None
    dies_at: float | None = None
    is_throttled: bool = False


class Links:
    """The laboratory's goodput, measured once per run."""

    def __init__(self, lab: Lab, plan: Plan, hosts: list[Host], origin: Host) -> None:
        n_bytes = int(STREAM_S * plan.bytes_per_s)
        self.origin = goodput_bytes_per_s(origin, hosts[0], n_bytes)
        self.node = goodput_bytes_per_s(hosts[0], hosts[1], n_bytes)
        lab.set_uplink(hosts[0], plan.bytes_per_s * SLOW_UPLINK)
        self.slow = goodput_bytes_per_s(hosts[0], hosts[1], int(n_bytes * SLOW_UPLINK))
        lab.set_uplink(hosts[0], plan.bytes_per_s)

    def ideal_s(self, n_bytes: int, n_nodes: int, *, one_is_slow: bool = False) -> float:
        uplinks = self.node * (n_nodes - 1) + (self.slow if one_is_slow else self.node)
        copies = (n_nodes - 1) * n_bytes / uplinks
        return max(n_bytes / self.origin, n_bytes / self.node, copies)


class Bench:
    """One run of the benchmark over one laboratory."""

    def __init__(self, plan: Plan, lab: Lab, directory: Path) -> None:
        self.plan = plan
        self.lab = lab
        self.directory = directory
        self.bucket = directory / BUCKET
        for number in range(plan.n_files):
            make_file(self.bucket / f"{number:03}.bin", plan.file_bytes)
        self.key_file = directory / "cluster-key"
        self.key_file.write_text("of a laboratory, at least thirty-two bytes")
        self.origin_host = lab.add_host(plan.bytes_per_s)
        self.hosts = [lab.add_host(plan.bytes_per_s) for _ in range(max(plan.sizes))]
        self.links = Links(lab, plan, self.hosts, self.origin_host)
        self._n_runs = 0

    def ideal_s(self, scenario: Scenario) -> float:
        n_nodes = scenario.n_nodes - (scenario.dies_at is not None)
        is_slow = scenario.uplink_of_one < 1
        return self.links.ideal_s(self.plan.n_bytes, n_nodes, one_is_slow=is_slow)

    def run(self, scenario: Scenario) -> Outcome:
        """One swarm, from empty stores to the last node's last byte."""
        hosts = self.hosts[: scenario.n_nodes]
        ideal_s = self.ideal_s(scenario)
        rate = REQUEST_HEADROOM * self.plan.n_files / ideal_s if scenario.is_throttled else None
        with ExitStack() as stack:
            home = self._home()
            origin = stack.enter_context(
                lab_origin(self.origin_host, self.bucket, self._home("origin"), requests_per_s=rate)
            )
            agents = stack.enter_context(swarm_agents(hosts, home, self.key_file))
            driver = Driver(origin)
            stack.callback(driver.close)
            if scenario.uplink_of_one < 1:
                slow = self.plan.bytes_per_s * scenario.uplink_of_one
                self.lab.set_uplink(hosts[-1], slow)
                stack.callback(self.lab.set_uplink, hosts[-1], self.plan.bytes_per_s)
            busy_before, all_before = machine_cpu_s()
            used_before = _cpu_of(agents)
            began_at = time.monotonic()
            ended = _fetch(scenario, driver, agents, began_at, ideal_s)
            busy, all_cpu = machine_cpu_s()
            own_s = _cpu_of(agents) - used_before
            late_s = ended.get(str(agents[-1].socket), 0.0) if scenario.joins_at else 0.0
            return Outcome(
                tuple(at for socket, at in ended.items() if not late_s or at != late_s),
                late_s,
                origin.asked(),
                own_s / (all_cpu - all_before),
                (busy - busy_before) / (all_cpu - all_before),
            )

    def rival_s(self, rival: Rival, n_nodes: int, patience_s: float) -> float:
        """Seconds until a rival's last node has it all; infinity where it was stopped before."""
        with lab_origin(self.origin_host, self.bucket, self._home("origin")) as origin:
            race = Race(origin, self.hosts[:n_nodes], self._home(), self.bucket, patience_s)
            return rival(race)

    def _home(self, kind: str = "") -> Path:
        self._n_runs += 1
        path = self.directory / f"{kind}{self._n_runs}"
        if kind:
            path.mkdir()
        return path


def _fetch(
    scenario: Scenario,
    driver: Driver,
    agents: list[SwarmAgent],
    began_at: float,
    ideal_s: float,
) -> dict[str, float]:
    """Seconds by socket, of all nodes that live."""
    first = agents[:-1] if scenario.joins_at is not None else agents
    for agent in first:
        driver.begin(agent)
    timers = []
    dead = None
    if scenario.joins_at is not None:
        timers.append(threading.Timer(scenario.joins_at * ideal_s, driver.begin, [agents[-1]]))
    if scenario.dies_at is not None:
        dead = agents[1]
        timers.append(threading.Timer(scenario.dies_at * ideal_s, dead.kill))
    for timer in timers:
        timer.start()
    ended: dict[str, float] = {}
    while len(ended) < len(agents) - (dead is not None):
        done = driver.next_done()
        if dead is not None and done["socket"] == str(dead.socket):
            continue
        if done["error"]:
            raise RuntimeError(f"{scenario.name}: {done['error']}")
        ended[str(done["socket"])] = float(str(done["at"])) - began_at
    for timer in timers:
        timer.cancel()
    return ended


def _cpu_of(agents: list[SwarmAgent]) -> float:
    return sum(cpu_seconds(tree_of(agent.pid)) for agent in agents)
