"""Publishing a volume: from the pod's wish to the mount, and back.

A publish that finds the model complete is three short steps: ask the API server for the
ModelCache, ask the agent for a lease, mount. One that does not, waits at the agent in slices:
the agent answers the moment the last chunk lands, and between slices the ModelCache is read again
so that a new revision, or a problem that the operator found, is noticed. A lazy volume does not
wait for bytes: what is not there yet is mounted as it comes.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from modelcache_api.errors import ModelCacheError, ModelCacheNotFoundError, UnavailableError
from modelcache_api.messages import LeaseAnswer, LeaseRequest, LeaseState
from modelcache_api.names import revision_hex
from modelcache_csi import audit
from modelcache_csi.busy import BusyKeys
from modelcache_csi.errors import (
    AgentAwayError,
    AlreadyPublishedError,
    NotReadyError,
    UnknownRevisionError,
)
from modelcache_csi.events import PodEvents
from modelcache_csi.kube_client import KnownModelCache, KubeClient
from modelcache_csi.lazy_volumes import LazyVolumes
from modelcache_csi.leases import LeaseBook
from modelcache_csi.mounts import Mounts
from modelcache_csi.progress import waiting_text
from modelcache_csi.volume_context import Mode, Publish, TargetPath

#: Seconds for which one request waits at the agent. Arbitrary; how late a changed ModelCache is
#: noticed, against a request to the API server per waiting pod.
WAIT_SLICE_S = 15.0
#: Seconds for which a call waits in all. The kubelet's deadline is 120 s (v1.34,
#: pkg/volume/csi/csi_plugin.go, csiTimeout).
MAX_WAIT_S = 115.0
#: Seconds for which a call bears with an agent that is away: its supervisor needs about one to
#: have it back, the kubelet's next call may be two minutes off. Arbitrary.
AGENT_PATIENCE_S = 10.0
#: Between two tries meanwhile. Arbitrary.
_RETRY_PAUSE_S = 0.25
#: Kept free below a caller's deadline, for the mount and the answer. Arbitrary.
DEADLINE_MARGIN_S = 4.0

_Result = TypeVar("_Result")
log = logging.getLogger(__name__)


class Publisher:
    """Publishes and unpublishes volumes. At most one call per target; a second is turned away.

    Mutable state: `_busy`; `_published`, what the mounts made by this process were asked to be (a
    mount of an earlier process is known by its revision alone).
    """

    def __init__(
        self,
        *,
        mounts: Mounts,
        lazy: LazyVolumes,
        leases: LeaseBook,
        kube: KubeClient,
        events: PodEvents,
        clock: Callable[[], float],
        agent_patience_s: float = AGENT_PATIENCE_S,
    ) -> None:
        self._mounts = mounts
        self._lazy = lazy
        self._leases = leases
        self._kube = kube
        self._events = events
        self._clock = clock
        self._agent_patience_s = agent_patience_s
        self._busy = BusyKeys()
        self._published: dict[TargetPath, Publish] = {}

    async def publish(self, publish: Publish, *, deadline_s: float | None) -> bool:
        """Make the volume appear. Cancelling stops the waiting, never a mount half-way.

        Args:
            publish: What is asked for.
            deadline_s: Seconds until the caller gives up; None when it did not say.

        Returns:
            Whether the model was there already, so that nothing had to be waited for.

        Raises:
            VolumeBusyError: another call works on the target.
            NotReadyError: not in time; the next call waits on.
            AlreadyPublishedError: the target holds another volume.
            ModelCacheError: as the agent or the API server says.
        """
        with self._busy.hold(str(publish.target)):
            return await self._publish(publish, self._wait_s(deadline_s))

    async def unpublish(self, target: TargetPath) -> None:
        """Make the volume disappear; that it is gone already is success.

        Raises:
            VolumeBusyError: somebody still reads it, or another call works on it.
        """
        with self._busy.hold(str(target)):
            await uninterrupted(self._unmount(target))

    async def _publish(self, publish: Publish, wait_s: float) -> bool:
        present = await asyncio.to_thread(self._mounts.revision_at, publish.target)
        if present is not None:
            self._check_same(publish, present)
            return True
        try:
            answer, request, is_local = await self._leased(publish, wait_s)
        except (NotReadyError, UnavailableError):
            raise
        except ModelCacheError as e:
            await self._refused(publish, e)
            raise
        await uninterrupted(self._mount(publish, answer, request))
        self._events.ready(publish, answer.revision or "")
        return is_local

    @staticmethod
    def _wait_s(deadline_s: float | None) -> float:
        if deadline_s is None:
            return MAX_WAIT_S
        return max(0.0, min(MAX_WAIT_S, deadline_s - DEADLINE_MARGIN_S))

    def _check_same(self, publish: Publish, present: str) -> None:
        before = self._published.get(publish.target)
        is_other_model = before is not None and (
            (before.volume_id, before.pod.namespace, before.model_cache)
            != (publish.volume_id, publish.pod.namespace, publish.model_cache)
        )
        if is_other_model or (publish.revision or present) != present:
            raise AlreadyPublishedError(
                f"{publish.target} already holds another volume, revision {present}"
            )

    async def _leased(
        self, publish: Publish, wait_s: float
    ) -> tuple[LeaseAnswer, LeaseRequest, bool]:
        give_up_at = self._clock() + wait_s
        slice_s, is_local = 0.0, True
        while True:
            model = await self._kube.find_model_cache(publish.pod.namespace, publish.model_cache)
            request = _lease_request(publish, model, slice_s)
            answer = await self._acquired(publish.target.lease_id, request, give_up_at)
            if answer.state is not LeaseState.WAITING:
                return answer, request, is_local
            is_local = False
            self._events.waiting(publish, answer, model.problem)
            slice_s = min(WAIT_SLICE_S, give_up_at - self._clock())
            if slice_s <= 0:
                raise NotReadyError(waiting_text(publish.model_cache, answer, model.problem))

    async def _acquired(
        self, lease_id: str, request: LeaseRequest, give_up_at: float
    ) -> LeaseAnswer:
        give_up_at = min(give_up_at, self._clock() + request.wait_s + self._agent_patience_s)
        while True:
            try:
                return await self._leases.acquire(lease_id, request)
            except AgentAwayError:
                if self._clock() + _RETRY_PAUSE_S > give_up_at:
                    raise
            await asyncio.sleep(_RETRY_PAUSE_S)
            request = request.model_copy(update={"wait_s": 0.0})

    async def _refused(self, publish: Publish, error: ModelCacheError) -> None:
        audit.refused(publish, error)
        self._events.refused(publish, error)
        if not error.retryable or isinstance(error, ModelCacheNotFoundError):
            # After a final answer the kubelet does not unpublish: leave no wish at the agent.
            await self._leases.release(publish.target.lease_id)

    async def _mount(self, publish: Publish, answer: LeaseAnswer, request: LeaseRequest) -> None:
        try:
            revision = _granted_revision(publish, answer)
            if answer.state is LeaseState.INCOMPLETE:
                await self._lazy.mount(publish, revision, request)
            else:
                await asyncio.to_thread(self._mounts.ensure_mounted, publish.target, revision)
        except BaseException:
            await self._leases.release(publish.target.lease_id)
            raise
        self._published[publish.target] = publish
        audit.mounted(publish, revision)

    async def _unmount(self, target: TargetPath) -> None:
        await asyncio.to_thread(self._mounts.ensure_unmounted, target)
        await self._lazy.forget(target)
        self._published.pop(target, None)
        await self._leases.release(target.lease_id)


def _lease_request(publish: Publish, model: KnownModelCache, wait_s: float) -> LeaseRequest:
    if publish.revision and model.revisions is not None and publish.revision not in model.revisions:
        raise UnknownRevisionError(
            f"ModelCache {publish.model_cache!r} has no revision {publish.revision}:"
            " its status lists those that it has"
        )
    return LeaseRequest(
        namespace=publish.pod.namespace,
        model_cache=publish.model_cache,
        model_cache_uid=model.uid,
        revision=publish.revision or model.revision,
        pod_name=publish.pod.name,
        pod_uid=publish.pod.uid,
        wait_s=wait_s,
        lazy=publish.mode is Mode.LAZY,
    )


def _granted_revision(publish: Publish, answer: LeaseAnswer) -> str:
    """Of the answer only the digest is used, never a path: the agent is unprivileged."""
    revision = answer.revision or ""
    revision_hex(revision)
    if publish.revision not in {None, revision}:
        raise AgentAwayError("the cache agent granted a lease of another revision")
    return revision


async def uninterrupted(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Await `work` to its end, also when the caller is cancelled meanwhile."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
