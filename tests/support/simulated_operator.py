"""The operator's parts over a simulated cluster, without kopf, sockets or a real clock."""

from modelcache_operator.handlers.reconciling import Bounds, Reconciler
from modelcache_operator.handlers.sight import Sight
from modelcache_operator.handlers.snapshot import Key, Snapshot
from modelcache_operator.kube.client import KINDS, Kind
from modelcache_operator.planning.job_arguments import JobSettings
from support.simulated_cluster import Object, SimulatedCluster

SETTINGS = JobSettings("image", "IfNotPresent", (), "https://10.96.0.7:7443", "PEM")


class Queue:
    """The keys to work on, and when; the cluster's clock decides."""

    def __init__(self, cluster: SimulatedCluster) -> None:
        self._cluster = cluster
        self.due_s: dict[Key, float] = {}

    def add(self, key: Key) -> None:
        self.add_later(key, 0.0)

    def add_later(self, key: Key, delay_s: float) -> None:
        due_s = self._cluster.now_s + max(0.0, delay_s)
        self.due_s[key] = min(due_s, self.due_s.get(key, due_s))

    def take(self) -> Key | None:
        ready = [key for key, due_s in self.due_s.items() if due_s <= self._cluster.now_s]
        if not ready:
            return None
        key = self._cluster.random.choice(ready)
        del self.due_s[key]
        return key


class Operator:
    """The operator's parts over a simulated cluster.

    Every event may be delivered twice; up to `lag` of them wait, and the next to come is any.
    """

    def __init__(
        self, cluster: SimulatedCluster, *, lag: int = 0, bounds: Bounds | None = None
    ) -> None:
        self.cluster = cluster
        self.snapshot = Snapshot()
        self.queue = Queue(cluster)
        self.sight = Sight(cluster.now())
        self._lag = lag
        self._waiting: list[tuple[str, Kind, Object]] = []
        cluster.listeners = [self._hear]
        self._reconciler = Reconciler(
            self.snapshot,
            self.queue,
            cluster,
            sight=self.sight,
            settings=lambda: SETTINGS,
            now=cluster.now,
            clock=cluster.clock,
            bounds=bounds,
        )

    async def start(self) -> None:
        for kind in KINDS:
            self.snapshot.replace(kind, *(await self.cluster.list_all(kind)))
        for key in self.snapshot.all_keys():
            self.queue.add(key)

    async def resync(self) -> None:
        """Look at everything again, as the operator does now and then."""
        await self.start()
        await self.settle()

    async def settle(self, *, passes: int = 500) -> None:
        """Work until nothing is to do now."""
        for _ in range(passes):
            self._deliver(len(self._waiting))
            key = self.queue.take()
            if key is None:
                return
            await self._reconciler.reconcile(key)
        raise AssertionError(f"still busy after {passes} passes: {self.queue.due_s}")

    async def run(self, *, steps: int = 12, step_s: float = 5.0) -> None:
        """Let the cluster and the operator go on together."""
        for _ in range(steps):
            await self.settle()
            self.cluster.step()
            self.cluster.now_s += step_s
        await self.settle()

    def _hear(self, event: str, kind: Kind, body: Object) -> None:
        copies = 2 if self._lag and self.cluster.random.random() < 0.3 else 1
        self._waiting += [(event, kind, body)] * copies
        self._deliver(len(self._waiting) - self._lag)

    def _deliver(self, count: int) -> None:
        for _ in range(count):
            index = self.cluster.random.randrange(len(self._waiting)) if self._lag else 0
            event, kind, body = self._waiting.pop(index)
            take = self.snapshot.drop if event == "DELETED" else self.snapshot.put
            for key in take(kind, body):
                self.queue.add(key)
