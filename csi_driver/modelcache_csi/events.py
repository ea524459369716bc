"""Tells pods' owners what their pods wait for: Events on the pods, on transitions only.

Posting is decoupled from publishing by a bounded queue, so that an API server that is slow or
away delays no pod.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from modelcache_api.errors import ModelCacheError
from modelcache_api.messages import LeaseAnswer
from modelcache_api.names import CSI_DRIVER
from modelcache_api.reasons import Reason
from modelcache_csi.kube_client import KubeClient
from modelcache_csi.progress import quarter, waiting_text
from modelcache_csi.volume_context import Publish

#: Events waiting to be posted. Arbitrary; above a full node's pods, all starting at once.
MAX_QUEUED = 512
#: Pods whose last Event is remembered. Arbitrary; several times the pods of a node.
MAX_REMEMBERED = 2048
#: Events per pod, ever: a pod that fails in many ways floods nobody. Arbitrary.
MAX_PER_POD = 20
#: Characters of a message. Kubernetes, ValidateEvent: 1,024.
_MAX_MESSAGE = 1024

log = logging.getLogger(__name__)


class EventType(StrEnum):
    """The two types that Kubernetes has."""

    NORMAL = "Normal"
    WARNING = "Warning"


@dataclass(slots=True)
class _Told:
    """What one pod was told last, and how often it was told anything."""

    transition: tuple[str, ...] = ()
    n_events: int = 0


class PodEvents:
    """Events of one node. Methods return at once; `post_forever` does the posting."""

    def __init__(
        self, kube: KubeClient, *, node_name: str, utc_now: Callable[[], datetime]
    ) -> None:
        self._kube = kube
        self._node_name = node_name
        self._utc_now = utc_now
        self._told: OrderedDict[tuple[str, str], _Told] = OrderedDict()
        self._queue: asyncio.Queue[tuple[str, dict[str, Any]]] = asyncio.Queue(MAX_QUEUED)

    def waiting(self, publish: Publish, answer: LeaseAnswer, problem: str | None) -> None:
        """The model is not there yet. Told once per reason and quarter of the way."""
        is_progress = answer.reason is Reason.FETCHING and problem is None
        self._tell(
            publish,
            transition=("waiting", answer.reason, str(quarter(answer)), problem or ""),
            event_type=EventType.NORMAL if is_progress else EventType.WARNING,
            reason="WaitingForModel",
            message=waiting_text(publish.model_cache, answer, problem),
        )

    def ready(self, publish: Publish, revision: str) -> None:
        """The volume is published. Told only to a pod that was told before that it waits."""
        told = self._told.get(_key(publish))
        if told is not None and told.transition[:1] != ("ready",):
            self._tell(
                publish,
                transition=("ready",),
                event_type=EventType.NORMAL,
                reason="ModelReady",
                message=f"model {publish.model_cache} is mounted, revision {revision}",
            )

    def refused(self, publish: Publish, error: ModelCacheError) -> None:
        """The volume cannot be published until somebody does something."""
        self._tell(
            publish,
            transition=("refused", error.reason),
            event_type=EventType.WARNING,
            reason=error.reason.value,
            message=str(error),
        )

    def lazy(self, publish: Publish, missing: tuple[str, ...]) -> None:
        """A lazy mount lacks what newer kernels have. Told once."""
        self._tell(
            publish,
            transition=("lazy", *missing),
            event_type=EventType.NORMAL,
            reason="LazyMountLimited",
            message=f"this node's kernel lacks for lazy mounts: {', '.join(missing)}."
            " Reads are right, and go through a process of ours",
        )

    def lost(self, publish: Publish) -> None:
        """A lazy mount had to be given up: its readers get errors."""
        self._tell(
            publish,
            transition=("lost",),
            event_type=EventType.WARNING,
            reason="LazyMountLost",
            message=f"the lazy mount of model {publish.model_cache} was without a server for too"
            " long and was aborted; delete the pod",
        )

    async def post_forever(self) -> None:
        while True:
            namespace, event = await self._queue.get()
            await self._kube.post_event(namespace, event)

    def _tell(
        self,
        publish: Publish,
        *,
        transition: tuple[str, ...],
        event_type: EventType,
        reason: str,
        message: str,
    ) -> None:
        told = self._told.setdefault(_key(publish), _Told())
        self._told.move_to_end(_key(publish))
        if len(self._told) > MAX_REMEMBERED:
            self._told.popitem(last=False)
        if told.transition == transition or told.n_events >= MAX_PER_POD:
            return
        told.transition = transition
        told.n_events += 1
        try:
            self._queue.put_nowait(
                (publish.pod.namespace, self._event(publish, event_type, reason, message))
            )
        except asyncio.QueueFull:
            log.warning("an Event is dropped: %d wait to be posted", MAX_QUEUED)

    def _event(
        self, publish: Publish, event_type: EventType, reason: str, message: str
    ) -> dict[str, Any]:
        now = self._utc_now().strftime("%Y-%m-%dT%H:%M:%SZ")
        return {
            "apiVersion": "v1",
            "kind": "Event",
            # The API server makes the rest of the name up.
            "metadata": {
                "generateName": f"{publish.pod.name[:200]}.",
                "namespace": publish.pod.namespace,
            },
            "involvedObject": {
                "apiVersion": "v1",
                "kind": "Pod",
                "namespace": publish.pod.namespace,
                "name": publish.pod.name,
                "uid": publish.pod.uid,
            },
            "type": event_type.value,
            "reason": reason,
            "message": message[:_MAX_MESSAGE],
            "source": {"component": CSI_DRIVER, "host": self._node_name},
            "reportingComponent": CSI_DRIVER,
            "reportingInstance": self._node_name,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }


def _key(publish: Publish) -> tuple[str, str]:
    return publish.pod.uid, publish.model_cache
