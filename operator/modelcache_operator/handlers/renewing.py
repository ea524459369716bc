"""Has access proved again before proofs run out, and passes on what was proved."""

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Protocol

from modelcache_api.cache_node import Renewal
from modelcache_operator.handlers.snapshot import AccessKey, Key, NodeKey, Snapshot
from modelcache_operator.handlers.work_queue import WorkQueue
from modelcache_operator.kube.client import KubeError
from modelcache_operator.planning.job_arguments import JobSettings
from modelcache_operator.planning.observed import CacheView
from modelcache_operator.planning.renewal_jobs import renewal_manifest
from modelcache_operator.planning.renewing import newest_checks, plan_renewals, renewals_for

log = logging.getLogger(__name__)


class _Kube(Protocol):
    async def create_job(self, manifest: dict[str, Any]) -> dict[str, Any] | None: ...


class Renewals:
    """What is due follows from the proofs that agents report.

    Mutable state: `_newest`, when access was last proved, as of the last look at any namespace.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        queue: WorkQueue[Key],
        kube: _Kube,
        *,
        settings: Callable[[], JobSettings],
        max_age: timedelta,
    ) -> None:
        self._snapshot = snapshot
        self._queue = queue
        self._kube = kube
        self._settings = settings
        self._max_age = max_age
        self._newest: dict[tuple[str, str], datetime] | None = None

    def renewals_for(self, cache: CacheView) -> tuple[Renewal, ...]:
        """What the spec of a node passes on to it."""
        if self._newest is None:
            return cache.spec.renewals
        return renewals_for(cache, self._newest, self._max_age)

    async def reconcile(self, key: AccessKey, now: datetime) -> None:
        """Raises KubeError: the API server is away; the same key again later."""
        snapshot = self._snapshot
        planned = plan_renewals(
            [found for name, found in snapshot.model_caches.items() if name[0] == key.namespace],
            snapshot.nodes,
            snapshot.caches,
            now,
            self._max_age,
        )
        for job in planned.create:
            manifest = renewal_manifest(job, snapshot.nodes[job.node], self._settings())
            try:
                if await self._kube.create_job(manifest):
                    log.info("created Job %s for node %s", manifest["metadata"]["name"], job.node)
            except KubeError as e:
                if not e.is_refusal:
                    raise
                log.warning("%s: access is not proved again: %s", key, e.words)
        self._newest = newest_checks(snapshot.caches.values())
        for name, cache in snapshot.caches.items():
            if self.renewals_for(cache) != cache.spec.renewals:
                self._queue.add(NodeKey(name))
        if planned.again_at is not None:
            self._queue.add_later(key, (planned.again_at - now).total_seconds())
