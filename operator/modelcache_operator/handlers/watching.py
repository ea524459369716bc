"""kopf as the watch engine, and nothing more of it.

One handler per kind puts events into the snapshot and keys into the queue. kopf keeps streams
alive and logs in anew; it writes nothing: no finalizer, no annotation, no Event. It does not tell
what was deleted while a stream was broken, so the whole is listed again now and then.
"""

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime
from typing import Any

import kopf
from kubernetes.aio.client import Configuration

from modelcache_api.names import GROUP, VERSION
from modelcache_operator.handlers.sight import Sight
from modelcache_operator.handlers.snapshot import Key, Snapshot
from modelcache_operator.handlers.work_queue import WorkQueue
from modelcache_operator.kube.client import (
    CACHE_NODES,
    JOBS,
    KINDS,
    MODEL_CACHES,
    NODES,
    Kind,
    KubeClient,
    KubeError,
)
from modelcache_operator.planning.placement import is_live

log = logging.getLogger(__name__)

#: Everything is listed again this often, seconds: the bound on how long a missed event is missed.
RESYNC_S = 300.0
#: How often to see whether a node, or the API server, fell silent, seconds.
_LISTENING_S = 15.0
#: Between looks for our kinds at start, seconds.
_DISCOVERY_PAUSE_S = 2.0


def build_registry(
    snapshot: Snapshot, queue: WorkQueue[Key], login: Callable[..., Awaitable[Any]]
) -> kopf.OperatorRegistry:
    registry = kopf.OperatorRegistry()
    kopf.on.login(registry=registry)(login)
    places: dict[Kind, tuple[str, ...]] = {
        MODEL_CACHES: (GROUP, VERSION, MODEL_CACHES.plural),
        CACHE_NODES: (GROUP, VERSION, CACHE_NODES.plural),
        JOBS: ("batch", "v1", JOBS.plural),
        NODES: ("", "v1", NODES.plural),
    }
    for kind, place in places.items():
        handler = _handler(kind, snapshot, queue)
        kopf.on.event(*place, id=f"see-{kind.plural}", registry=registry)(handler)
    return registry


def connection_of(configuration: Configuration) -> kopf.ConnectionInfo:
    """The client's configuration in kopf's words, so that both go the same way."""
    scheme, _, token = (configuration.api_key.get("BearerToken") or "").partition(" ")
    return kopf.ConnectionInfo(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
        scheme=scheme.title() or None,
        token=token or None,
    )


class _Patience:
    """Pauses between tries of one request, seconds: without an end, so that kopf never gives up.

    An outage of the API server is no reason to stop: what is known is still true.
    """

    def __iter__(self) -> Iterator[float]:
        yield from (1.0, 1.0, 2.0, 3.0, 5.0, 8.0)
        yield from itertools.repeat(15.0)


def watch_settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.scanning.disabled = True
    settings.watching.server_timeout = 600
    settings.watching.connect_timeout = 10
    settings.networking.connect_timeout = 10
    settings.networking.request_timeout = 60
    settings.networking.error_backoffs = _Patience()
    # One task per object that changed within this time; with a limit on tasks, each of which waits
    # that long for more, a thousand nodes that report at once would be heard a minute late.
    settings.queueing.idle_timeout = 1.0
    settings.process.ultimate_exiting_timeout = 20
    settings.watching.label_selectors["batch", "v1", JOBS.plural] = JOBS.label_selector
    return settings


def _handler(kind: Kind, snapshot: Snapshot, queue: WorkQueue[Key]) -> Callable[..., Any]:
    async def see(event: kopf.RawEvent, **_: Any) -> None:
        take = snapshot.drop if event["type"] == "DELETED" else snapshot.put
        for key in take(kind, event["object"]):
            queue.add(key)

    return see


async def wait_for_our_kinds(client: KubeClient) -> None:
    """Kopf looks once what kinds there are; the definitions may just have been installed."""
    while True:
        try:
            if await client.serves_our_kinds():
                return
            log.info("the API server does not serve our kinds yet")
        except KubeError as e:
            log.warning("API server: %s", e)
        await asyncio.sleep(_DISCOVERY_PAUSE_S)


async def list_everything(client: KubeClient, snapshot: Snapshot) -> set[Key]:
    """Bring the snapshot up to date with lists; the keys that differ from before.

    Raises:
        KubeError: the API server is away, and the snapshot only partly renewed.
    """
    concerned: set[Key] = set()
    for kind in KINDS:
        bodies, version = await client.list_all(kind)
        concerned |= snapshot.replace(kind, bodies, version)
    return concerned


async def keep_resyncing(client: KubeClient, snapshot: Snapshot, queue: WorkQueue[Key]) -> None:
    """List and look at everything now and then; runs until cancelled."""
    while True:
        await asyncio.sleep(RESYNC_S)
        try:
            await list_everything(client, snapshot)
        except KubeError as e:
            log.warning("resync: %s", e)
        for key in snapshot.all_keys():
            queue.add(key)


async def keep_listening(
    client: KubeClient,
    snapshot: Snapshot,
    sight: Sight,
    queue: WorkQueue[Key],
    now: Callable[[], datetime],
) -> None:
    """Silence is no event: look for it; runs until cancelled."""
    known = live_nodes(snapshot, sight, now())
    while True:
        await asyncio.sleep(_LISTENING_S)
        try:
            await client.ping()
            sight.saw(now())
        except KubeError as e:
            log.warning("%s", e)
            sight.missed()
        live = live_nodes(snapshot, sight, now())
        for name in sorted(known ^ live):
            log.info("agent of node %s is %s", name, "heard" if name in live else "silent")
        if live != known:
            known = live
            for key in snapshot.all_keys():
                queue.add(key)


def live_nodes(snapshot: Snapshot, sight: Sight, now: datetime) -> frozenset[str]:
    caches = sight.fair(snapshot.caches, now)
    return frozenset(
        name for name, cache in caches.items() if is_live(snapshot.nodes.get(name), cache, now)
    )
