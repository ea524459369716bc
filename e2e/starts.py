"""How long a pod takes to start with its model: from its creation to the first byte it reads."""

import time
from dataclasses import dataclass

from e2e.pods import container, inline, mount, pod
from e2e.tenants import PODS_TIMEOUT_S, Tenant


@dataclass(frozen=True)
class Start:
    """One start of a pod, by the wall clock of the machine, which its node shares."""

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


def start_pod(tenant: Tenant, name: str, model_cache: str, node: str) -> Start:
    """Create a pod, wait for its first byte, and return when that was.

    The time includes kubectl's own start: what creates pods is a program too.
    """
    words = ("first_byte", "/model")
    reader = container("reader", tenant.cluster.image, words, [mount("model")])
    document = pod(name, [reader], [inline("model", model_cache)], node=node)
    created_at = time.time()
    tenant.start(document)
    tenant.kubectl(
        *("wait", f"pod/{name}", "--for=jsonpath={.status.phase}=Succeeded"),
        f"--timeout={PODS_TIMEOUT_S:.0f}s",
        timeout_s=PODS_TIMEOUT_S + 10,
    )
    told = tenant.report(name)
    return Start(created_at, told["firstByteAt"], told["landedAt"])
