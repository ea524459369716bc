"""The agent's own CacheNode: its spec is watched, its status written.

While the API server is away the last spec stands and reports wait. The object is made by the
operator; until it is there, the agent tries again.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from datetime import datetime
from urllib.parse import quote

from pydantic import ValidationError

from modelcache_api.cache_node import HEARTBEAT_S, PLURAL, CacheNode, CacheNodeSpec, CacheNodeStatus
from modelcache_api.messages import NodeReport
from modelcache_api.names import GROUP, VERSION
from modelcache_node.membership.api_server import ApiServer, ApiServerError
from modelcache_node.membership.reporting import is_transition, status_of

log = logging.getLogger(__name__)

_COLLECTION = f"/apis/{GROUP}/{VERSION}/{PLURAL}"
#: How often the report is looked at for a transition, seconds: the delay that the operator sees.
_POLL_S = 1.0
#: Pauses after a failure double between these, seconds, with full jitter: a thousand agents must
#: not meet a returning API server together.
_MIN_PAUSE_S, _MAX_PAUSE_S = 1.0, 30.0
_GONE = 410


class CacheNodeMembership:
    """Keeps one node's CacheNode; `run` until cancelled.

    `on_spec` is called with every new spec, never twice with the same in a row; what it raises
    ends `run`. `report` is asked about once a second and must not block.
    """

    def __init__(
        self,
        api: ApiServer,
        node_name: str,
        *,
        address: str,
        report: Callable[[], Awaitable[NodeReport]],
        on_spec: Callable[[CacheNodeSpec], Awaitable[None]],
        now: Callable[[], datetime],
    ) -> None:
        self._api = api
        self._node_name = node_name
        self._path = f"{_COLLECTION}/{quote(node_name, safe='')}"
        self._address = address
        self._report = report
        self._on_spec = on_spec
        self._now = now
        self._spec: CacheNodeSpec | None = None
        self._written: CacheNodeStatus | None = None

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_watching(), name="watch CacheNode")
            tasks.create_task(self._keep_reporting(), name="report CacheNode")

    async def _keep_watching(self) -> None:
        pause = _Pause()
        while True:
            try:
                await self._watch_once(pause)
            except (ApiServerError, ValidationError) as e:
                log.warning("own CacheNode not seen, the last spec stands: %s", e)
                await pause.after_failure()

    async def _watch_once(self, pause: "_Pause") -> None:
        """Read the object, then follow it until the watch ends."""
        found = await self._api.get(self._path)
        await self._take(CacheNode.model_validate(found))
        resource_version = found["metadata"]["resourceVersion"]
        while True:
            query = {
                "fieldSelector": f"metadata.name={self._node_name}",
                "resourceVersion": resource_version,
            }
            async for event in self._api.watch(_COLLECTION, query):
                pause.reset()
                if event["type"] == "ERROR":
                    _raise_watch_error(event)
                resource_version = event["object"]["metadata"]["resourceVersion"]
                if event["type"] in {"ADDED", "MODIFIED"}:
                    await self._take(CacheNode.model_validate(event["object"]))
            await asyncio.sleep(_MIN_PAUSE_S)  # a server that ends every watch at once

    async def _take(self, node: CacheNode) -> None:
        if node.status.heartbeat_at is None:
            self._written = None  # the object was made anew
        if node.spec != self._spec:
            self._spec = node.spec
            await self._on_spec(node.spec)

    async def _keep_reporting(self) -> None:
        loop = asyncio.get_running_loop()
        pause = _Pause()
        written_at_s = 0.0
        while True:
            status = status_of(
                await self._report(), address=self._address, heartbeat_at=self._now()
            )
            is_due = loop.time() - written_at_s >= HEARTBEAT_S
            if is_transition(self._written, status) or is_due:
                try:
                    await self._api.merge(f"{self._path}/status", {"status": status.wire()})
                except ApiServerError as e:
                    log.warning("status not written: %s", e)
                    await pause.after_failure()
                    continue
                self._written, written_at_s = status, loop.time()
                pause.reset()
            await asyncio.sleep(_POLL_S)


def _raise_watch_error(event: dict[str, dict[str, object]]) -> None:
    status = event["object"]
    code = status.get("code")
    if code != _GONE:
        raise ApiServerError(f"watch ended: {status.get('message')}")
    raise ApiServerError("watch fell too far behind; reading anew", status=_GONE)


class _Pause:
    """Exponential back-off with full jitter."""

    def __init__(self) -> None:
        self._failures = 0

    def reset(self) -> None:
        self._failures = 0

    async def after_failure(self) -> None:
        longest_s = min(_MAX_PAUSE_S, _MIN_PAUSE_S * 2**self._failures)
        self._failures = min(self._failures + 1, 10)
        await asyncio.sleep(random.uniform(_MIN_PAUSE_S / 2, longest_s))
