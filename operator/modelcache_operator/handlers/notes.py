"""Posts what changed as Events: on the ModelCache, and on the pods that wait for it.

An Event is a courtesy: one that cannot be posted is logged, and nothing waits for it.
"""

import hashlib
import logging
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, Protocol

from modelcache_api import model_cache as model_caches
from modelcache_api.model_cache import ModelCache
from modelcache_api.names import API_VERSION, GROUP
from modelcache_operator.kube.client import KubeError
from modelcache_operator.planning.reconcile import Note

log = logging.getLogger(__name__)

COMPONENT = "modelcache-operator"
#: What was said to pods already; Events live an hour, so more is never needed. Arbitrary.
_MAX_SAID = 10_000
#: The API server's bound on an Event's message.
_MAX_MESSAGE = 1024


class Poster(Protocol):
    """What posting needs; see `kube.client.KubeClient`."""

    async def create_event(self, body: dict[str, Any]) -> None: ...
    async def get_pod(self, namespace: str, name: str) -> dict[str, Any] | None: ...


class Notes:
    """Posts Events; the same words to the same pod once."""

    def __init__(self, poster: Poster, *, now: Callable[[], datetime]) -> None:
        self._poster = poster
        self._now = now
        self._said: dict[tuple[str, str, str, str], None] = {}

    async def post(self, model_cache: ModelCache, notes: Iterable[Note]) -> None:
        for note in notes:
            try:
                if note.pod is None:
                    await self._post(_reference_to(model_cache), note)
                else:
                    await self._tell_pod(model_cache.metadata.namespace, note.pod, note)
            except KubeError as e:
                log.warning("Event %s not posted: %s", note.reason, e)

    async def _tell_pod(self, namespace: str, pod: str, note: Note) -> None:
        key = (namespace, pod, note.reason, note.message)
        if key in self._said:
            return
        found = await self._poster.get_pod(namespace, pod)
        if found:
            reference = {
                "apiVersion": "v1",
                "kind": "Pod",
                "namespace": namespace,
                "name": pod,
                "uid": found["metadata"]["uid"],
            }
            await self._post(reference, note)
        self._said[key] = None
        while len(self._said) > _MAX_SAID:
            del self._said[next(iter(self._said))]

    async def _post(self, reference: dict[str, str], note: Note) -> None:
        now = self._now()
        identity = "\0".join((reference["uid"], note.reason, note.message, now.isoformat()))
        digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
        await self._poster.create_event(
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {
                    "name": f"{reference['name'][:200]}.{digest}",
                    "namespace": reference["namespace"],
                },
                "involvedObject": reference,
                "type": "Warning" if note.is_warning else "Normal",
                "reason": note.reason,
                "message": note.message[:_MAX_MESSAGE],
                "firstTimestamp": _seconds(now),
                "lastTimestamp": _seconds(now),
                "count": 1,
                "source": {"component": COMPONENT},
                "reportingComponent": f"{GROUP}/operator",
                "reportingInstance": COMPONENT,
            }
        )


def _reference_to(model_cache: ModelCache) -> dict[str, str]:
    meta = model_cache.metadata
    return {
        "apiVersion": API_VERSION,
        "kind": model_caches.KIND,
        "namespace": meta.namespace,
        "name": meta.name,
        "uid": meta.uid,
    }


def _seconds(now: datetime) -> str:
    return now.strftime("%Y-%m-%dT%H:%M:%SZ")
