"""Leases: what this node's mounts keep from being evicted, as the agent knows it.

The mount table is the truth, the book below adds the volumes that are being mounted right now,
and the agent is told the sum when this process or the agent starts and whenever a release could
not be delivered. A report replaces all that the agent knew, so nothing else has to be retried.

Guarantees:

- A lease stands at the agent from before its volume is mounted until after it is unmounted.
- A report cannot drop a lease granted meanwhile: a grant that overlaps a report is asked again.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping

from modelcache_api.errors import ModelCacheError
from modelcache_api.messages import LeaseAnswer, LeaseReport, LeaseRequest, LeaseState
from modelcache_csi.agent_client import AgentClient
from modelcache_csi.errors import AgentAwayError

#: Between two looks at the agent: after its restart, leases are back this soon. Arbitrary; the
#: agent evicts nothing before.
CHECK_INTERVAL_S = 5.0

log = logging.getLogger(__name__)


class LeaseBook:
    """Leases held by this process, and their report. For one event loop.

    Mutable state: `_held` (lease id to revision, from the grant to the unmount), `_is_report_due`
    and `_reports` (how many reports were begun).
    """

    def __init__(
        self,
        agent: AgentClient,
        mounted: Callable[[], Mapping[str, str]],
        *,
        check_s: float,
        lazy_lacks: tuple[str, ...] = (),
    ) -> None:
        """`mounted` reads lease ids and revisions from the mount table; it blocks. `lazy_lacks`
        is what this node's kernel has not: told with every report.
        """
        self._agent = agent
        self._mounted = mounted
        self._check_s = check_s
        self._lazy_lacks = lazy_lacks
        self._held: dict[str, str] = {}
        self._is_report_due = True
        self._reports = 0
        self._reporting = asyncio.Lock()

    async def acquire(self, lease_id: str, request: LeaseRequest) -> LeaseAnswer:
        """Ask the agent for a lease, waiting as the request says.

        Cancelling is safe: a lease granted to nobody is dropped by the next report.

        Raises:
            AgentAwayError: the agent is away.
            ModelCacheError: as the agent says.
        """
        try:
            while True:
                reports = self._reports_seen()
                answer = await self._agent.lease(lease_id, request)
                if answer.state is LeaseState.WAITING:
                    return answer
                self._held[lease_id] = _granted(answer)
                if reports == self._reports_seen() and not self._reporting.locked():
                    return answer
                async with self._reporting:
                    request = request.model_copy(update={"wait_s": 0.0})
        except BaseException:
            self._held.pop(lease_id, None)
            self._is_report_due = True
            raise

    async def release(self, lease_id: str) -> None:
        """Give a lease back; when the agent is away, by the next report."""
        self._held.pop(lease_id, None)
        reports = self._reports_seen()
        try:
            await self._agent.release(lease_id)
        except ModelCacheError as e:
            log.info("lease is released with the next report: %s", e, extra={"lease": lease_id})
            self._is_report_due = True
        if reports != self._reports_seen() or self._reporting.locked():
            self._is_report_due = True  # a report on its way may still have named the lease

    def _reports_seen(self) -> tuple[int, bool]:
        """Differs from an earlier value, or the lock is held, when a report overlaps with it."""
        return self._reports, self._reporting.locked()

    async def keep_reported(self) -> None:
        """Report whenever it is due, for ever. Errors are logged and tried again."""
        is_away = False
        while True:
            try:
                await self.report_if_due()
                is_away = False
            except (ModelCacheError, OSError, ValueError) as e:
                if not is_away:
                    log.warning("leases are not reported yet: %s", e)
                is_away = True
            await asyncio.sleep(self._check_s)

    async def report_if_due(self) -> bool:
        """Report the leases unless the agent has them. Returns whether it was done."""
        if not self._is_report_due and (await self._agent.status()).leases_reported:
            return False
        async with self._reporting:
            self._reports += 1
            self._is_report_due = False
            try:
                before = dict(self._held)
                mounted = await asyncio.to_thread(self._mounted)
                leases = {**before, **mounted, **self._held}
                report = LeaseReport(leases=leases, lazy_lacks=self._lazy_lacks)
                await self._agent.report_leases(report)
            except BaseException:
                self._is_report_due = True
                raise
        log.info("leases reported", extra={"leases": len(leases)})
        return True


def _granted(answer: LeaseAnswer) -> str:
    if answer.revision is None:
        raise AgentAwayError("the cache agent granted a lease of no revision")
    return answer.revision
