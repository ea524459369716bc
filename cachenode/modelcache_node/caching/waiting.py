"""The volumes that wait on this node: the operator sends Jobs for them."""

from collections.abc import Callable
from dataclasses import dataclass

from modelcache_api.messages import (
    LeaseAnswer,
    LeaseRequest,
    LeaseState,
    RevisionReport,
    WantedReport,
)
from modelcache_api.reasons import Reason
from modelcache_node.caching.reporting import Failure

#: A volume that waits asks again within the kubelet's back-off of 2 min 2 s plus one call's two
#: minutes; one that has not for this long is gone.
WANTED_S = 600.0
#: Far above the pods of one node; the oldest are forgotten beyond it, and ask again.
MAX_WAITING = 2000


@dataclass(frozen=True, slots=True)
class _Wanted:
    wish: LeaseRequest
    since: float
    renewed_at: float


class Waiting:
    """By volume, what it waits for. `now` is the wall clock in seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._by_volume: dict[str, _Wanted] = {}

    def want(self, volume_id: str, wish: LeaseRequest) -> bool:
        """Note that a volume waits; whether that is news."""
        now = self._now()
        known = self._by_volume.pop(volume_id, None)
        self._by_volume[volume_id] = _Wanted(wish, known.since if known else now, now)
        if len(self._by_volume) > MAX_WAITING:
            del self._by_volume[next(iter(self._by_volume))]
        return known is None

    def forget(self, volume_id: str) -> bool:
        """A volume waits no longer; whether it did."""
        return self._by_volume.pop(volume_id, None) is not None

    @property
    def wishes(self) -> list[LeaseRequest]:
        return [one.wish for one in self._by_volume.values()]

    def report(self) -> list[WantedReport]:
        """One entry per ModelCache and pod; volumes that have not asked for long are dropped."""
        horizon = self._now() - WANTED_S
        for volume_id in [v for v, one in self._by_volume.items() if one.renewed_at < horizon]:
            del self._by_volume[volume_id]
        return [
            WantedReport(
                namespace=one.wish.namespace,
                model_cache=one.wish.model_cache,
                model_cache_uid=one.wish.model_cache_uid,
                pod_name=one.wish.pod_name,
                since=one.since,
            )
            for one in self._by_volume.values()
        ]


def not_yet(
    report: RevisionReport | None, failure: Failure | None = None, *, bytes_per_s: float = 0.0
) -> LeaseAnswer:
    """What a volume is told that waits.

    `report` None: nothing of its model is here; then `failure` is why, if it was here once.
    """
    if report is None and failure is not None:
        return LeaseAnswer(state=LeaseState.WAITING, reason=failure.reason, message=failure.message)
    if report is None:
        return LeaseAnswer(
            state=LeaseState.WAITING,
            reason=Reason.NOT_PROVED,
            message="no prefetch Job of this namespace has reached this node yet",
        )
    return LeaseAnswer(
        state=LeaseState.WAITING,
        reason=report.reason,
        message=report.message,
        revision=report.revision,
        bytes_present=report.bytes_present,
        bytes_total=report.bytes_total,
        bytes_per_s=bytes_per_s,
    )
