"""How long a pod takes to start with its model: from its creation to the first byte it reads."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from e2e.pods import container, inline, mount, pod
from e2e.tenants import Tenant


@dataclass(frozen=True)
class Wanted:
    """One pod to start."""

    name: str
    model_cache: str
    node: str


@dataclass(frozen=True)
class Start:
    """One start of a pod, by the wall clock of the machine, which its node shares."""

    pod: str
    created_at: float
    first_byte_at: float
    landed_at: float
    """When the model's last byte was written to the node's disk."""

    @property
    def total_s(self) -> float:
        return self.first_byte_at - self.created_at

    @property
    def after_landing_s(self) -> float:
        return self.first_byte_at - self.landed_at


def start_pods(tenant: Tenant, wanted: Sequence[Wanted]) -> list[Start]:
    """Start pods one after the other, each when the one before has ended; return when they did.

    The time includes kubectl's own start: what creates pods is a program too.
    """
    created_at = {}
    for one in wanted:
        words = ("first_byte", "/model")
        reader = container("reader", tenant.cluster.image, words, [mount("model")])
        document = pod(one.name, [reader], [inline("model", one.model_cache)], node=one.node)
        created_at[one.name] = time.time()
        tenant.start(document)
        tenant.wait_phase(one.name, "Succeeded")
    told = {name: tenant.report(name) for name in created_at}
    tenant.remove(*created_at, wait=False)
    return [
        Start(name, created_at[name], told[name]["firstByteAt"], told[name]["landedAt"])
        for name in created_at
    ]
