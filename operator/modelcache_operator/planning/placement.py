"""Which nodes should hold a model, and which of them can be talked to now.

A node counts as a cache node from the first report of its agent on. A short absence (a reboot,
an upgrade) moves nothing: the node stays in the placement and merely is not ready, because
fetching hundreds of gigabytes elsewhere costs more than waiting.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from modelcache_api.cache_node import HEARTBEAT_S
from modelcache_api.model_cache import Placement, Toleration, TolerationOperator
from modelcache_operator.planning.observed import CacheView, NodeView, Taint

#: A status this old says nothing any more: two heartbeats may be lost, and clocks may differ.
STALE_AFTER = timedelta(seconds=2.5 * HEARTBEAT_S)
#: A node that is not ready, or whose agent is silent, for this long is no longer planned with.
#: Arbitrary; longer than a reboot or an upgrade takes.
GONE_AFTER = timedelta(minutes=15)

#: Taints that keep other work off accelerators; the model's pods tolerate them.
ACCELERATOR_TAINTS = frozenset(
    {
        "amd.com/gpu",
        "aws.amazon.com/neuron",
        "gpu.intel.com/i915",
        "gpu.intel.com/xe",
        "google.com/tpu",
        "habana.ai/gaudi",
        "nvidia.com/gpu",
    }
)
#: Taints that Kubernetes itself sets for a state of the node: cordon, pressure, not ready.
_STATE_TAINT_PREFIX = "node.kubernetes.io/"


def placed_nodes(
    key: str,
    placement: Placement,
    nodes: Mapping[str, NodeView],
    caches: Mapping[str, CacheView],
    now: datetime,
) -> tuple[str, ...]:
    """Names of the nodes that should hold the model, most preferred first.

    The order depends on `key` and the names alone, so that a node which comes or goes moves at
    most one place of `placement.max_nodes`.
    """
    eligible = [
        name
        for name, node in nodes.items()
        if is_eligible(node, placement) and is_member(node, caches.get(name), now)
    ]
    ordered = by_rendezvous(key, eligible)
    return tuple(ordered[: placement.max_nodes])


def is_eligible(node: NodeView, placement: Placement) -> bool:
    """Whether labels and taints of `node` admit the model."""
    wanted = placement.node_selector.items()
    return (
        node.is_linux
        and all(node.labels.get(key) == value for key, value in wanted)
        and all(_is_tolerated(taint, placement.tolerations) for taint in node.taints)
    )


def is_member(node: NodeView, cache: CacheView | None, now: datetime) -> bool:
    """Whether `node` runs a cache, or did a short while ago."""
    if cache is None or cache.heartbeat_at is None:
        return False
    silent_since = min(filter(None, (cache.heartbeat_at, node.not_ready_since)))
    return now - silent_since < GONE_AFTER


def is_live(node: NodeView | None, cache: CacheView | None, now: datetime) -> bool:
    """Whether the cache's status can be believed: of this boot, and recent."""
    if node is None or cache is None or cache.heartbeat_at is None:
        return False
    return (
        node.not_ready_since is None
        and now - cache.heartbeat_at < STALE_AFTER
        and (not node.boot_id or node.boot_id == cache.boot_id)
    )


def by_rendezvous(key: str, names: Iterable[str]) -> Sequence[str]:
    """`names` by highest random weight for `key`."""
    return sorted(names, key=lambda name: hashlib.sha256(f"{key}\0{name}".encode()).digest())


def _is_tolerated(taint: Taint, tolerations: Sequence[Toleration]) -> bool:
    return (
        taint.effect == "PreferNoSchedule"
        or taint.key in ACCELERATOR_TAINTS
        or taint.key.startswith(_STATE_TAINT_PREFIX)
        or any(_tolerates(toleration, taint) for toleration in tolerations)
    )


def _tolerates(toleration: Toleration, taint: Taint) -> bool:
    if toleration.effect is not None and toleration.effect != taint.effect:
        return False
    if toleration.operator is TolerationOperator.EXISTS:
        return not toleration.key or toleration.key == taint.key
    return toleration.key == taint.key and (toleration.value or "") == taint.value
