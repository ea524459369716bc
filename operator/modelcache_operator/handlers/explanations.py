"""Looks up why a Job failed or does not start, as seldom as will do."""

import dataclasses
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Protocol

from modelcache_operator.planning.assessing import PENDING_AFTER
from modelcache_operator.planning.explaining import explain
from modelcache_operator.planning.observed import JobState, JobView, Said

#: A pending Job's story may change; it is read again after this.
_RETOLD_AFTER = timedelta(seconds=30)
#: Stories read in one pass: where a thousand Jobs fail, the first few say why. Arbitrary.
_MAX_READ_AT_ONCE = 5
#: Stories remembered. Arbitrary; some hundred bytes each.
_MAX_KNOWN = 10_000


class Reader(Protocol):
    """The reads that explain a Job; see `kube.client.KubeClient`."""

    async def pods_of_job(self, namespace: str, job: str) -> list[dict[str, Any]]: ...
    async def events_about(self, namespace: str, uid: str) -> list[dict[str, Any]]: ...


class Explanations:
    """Remembers what was said of which Job, in which state."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._known: dict[tuple[str, JobState], tuple[datetime, Said | None]] = {}

    async def explain(self, jobs: Sequence[JobView], now: datetime) -> list[JobView]:
        """`jobs`, those in trouble with what is said of them."""
        told: list[JobView] = []
        n_read = 0
        for job in sorted(jobs, key=lambda job: job.created_at, reverse=True):
            if not _is_in_trouble(job, now):
                told.append(job)
                continue
            known = self._known.get((job.uid, job.state))
            if (known is None or _is_old(job, known[0], now)) and n_read < _MAX_READ_AT_ONCE:
                n_read += 1
                known = (now, await self._read(job))
                self._remember(job, known)
            told.append(dataclasses.replace(job, said=known[1]) if known else job)
        return told

    async def _read(self, job: JobView) -> Said | None:
        pods = await self._reader.pods_of_job(job.namespace, job.name)
        said = explain(job, pods, [])
        if pods and job.state is JobState.FAILED:
            return said
        events = await self._reader.events_about(job.namespace, job.uid)
        for pod in pods[-1:]:
            events += await self._reader.events_about(job.namespace, pod["metadata"]["uid"])
        return explain(job, pods, events)

    def _remember(self, job: JobView, told: tuple[datetime, Said | None]) -> None:
        self._known.pop((job.uid, job.state), None)
        self._known[job.uid, job.state] = told
        while len(self._known) > _MAX_KNOWN:
            del self._known[next(iter(self._known))]


def _is_in_trouble(job: JobView, now: datetime) -> bool:
    if job.state is JobState.FAILED:
        return True
    return job.state is JobState.PENDING and now - job.created_at >= PENDING_AFTER


def _is_old(job: JobView, read_at: datetime, now: datetime) -> bool:
    return job.state is JobState.PENDING and now - read_at >= _RETOLD_AFTER
