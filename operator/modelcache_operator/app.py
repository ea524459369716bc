"""Wires the operator's parts and runs them until it is told to stop.

The order at start: our kinds exist, everything is listed, watches run, and only then work begins:
a plan from half of what there is would undo what the other half says.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import kopf
from aiohttp import web

from modelcache_operator.handlers.reconciling import Bounds, Reconciler
from modelcache_operator.handlers.sight import Sight
from modelcache_operator.handlers.snapshot import Key, Snapshot
from modelcache_operator.handlers.watching import (
    build_registry,
    connection_of,
    keep_listening,
    keep_resyncing,
    list_everything,
    wait_for_our_kinds,
    watch_settings,
)
from modelcache_operator.handlers.work_queue import WorkQueue
from modelcache_operator.kube.client import KubeClient, load_configuration
from modelcache_operator.planning.job_arguments import JobSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Options:
    """How to run. `kubeconfig` None: as the pod's ServiceAccount."""

    image: str
    image_pull_policy: str
    image_pull_secrets: tuple[str, ...]
    agent_host: str
    agent_port: int
    agent_ca_file: Path
    health_listen: tuple[str, int]
    workers: int
    kubeconfig: str | None
    proof_max_age_s: float
    origin_limit_bytes_per_s: int | None = None
    job_https_proxy: str = ""
    job_http_proxy: str = ""
    job_no_proxy: str = ""
    job_mirrors: str = ""
    job_authorities_file: Path | None = None


async def run(options: Options) -> None:
    """Run until SIGTERM or SIGINT.

    Raises:
        UnavailableError: there is no way to the API server.
    """
    client = KubeClient(await load_configuration(options.kubeconfig))
    snapshot = Snapshot()
    queue: WorkQueue[Key] = WorkQueue()
    sight = Sight(_now())
    reconciler = Reconciler(
        snapshot,
        queue,
        client,
        sight=sight,
        settings=_job_settings(options),
        now=_now,
        clock=time.monotonic,
        bounds=Bounds(timedelta(seconds=options.proof_max_age_s), options.origin_limit_bytes_per_s),
    )
    ready = asyncio.Event()
    async with contextlib.aclosing(client), _serving_health(options.health_listen, ready):
        await wait_for_our_kinds(client)
        await list_everything(client, snapshot)
        for key in snapshot.all_keys():
            queue.add(key)
        login = _login(options.kubeconfig)
        watching = kopf.operator(
            registry=build_registry(snapshot, queue, login),
            settings=watch_settings(),
            clusterwide=True,
            standalone=True,
        )
        ready.set()
        await _run_with(
            watching,
            queue.run(reconciler.reconcile, workers=options.workers),
            keep_resyncing(client, snapshot, queue),
            keep_listening(client, snapshot, sight, queue, _now),
        )


async def _run_with(leader: Any, *followers: Any) -> None:
    """Run all; when `leader` ends, or one fails, all end."""
    async with asyncio.TaskGroup() as tasks:
        others = [tasks.create_task(follower) for follower in followers]
        await tasks.create_task(leader)  # kopf ends at a signal
        for task in others:
            task.cancel()


def _job_settings(options: Options) -> Callable[[], JobSettings]:
    host = f"[{options.agent_host}]" if ":" in options.agent_host else options.agent_host

    authorities = options.job_authorities_file

    def current() -> JobSettings:
        return JobSettings(
            image=options.image,
            image_pull_policy=options.image_pull_policy,
            image_pull_secrets=options.image_pull_secrets,
            agent_url=f"https://{host}:{options.agent_port}",
            agent_ca_pem=options.agent_ca_file.read_text(),  # anew: certificates are renewed
            https_proxy=options.job_https_proxy,
            http_proxy=options.job_http_proxy,
            no_proxy=options.job_no_proxy,
            mirrors=options.job_mirrors,
            authorities_pem=authorities.read_text() if authorities else "",
        )

    return current


def _login(kubeconfig: str | None) -> Callable[..., Any]:
    """Kopf asks at start, and again whenever the API server says 401: tokens are rotated."""

    async def log_in(**_: Any) -> kopf.ConnectionInfo:
        return connection_of(await load_configuration(kubeconfig))

    return log_in


@contextlib.asynccontextmanager
async def _serving_health(listen: tuple[str, int], ready: asyncio.Event) -> AsyncIterator[None]:
    """``/healthz``: the event loop turns; ``/readyz``: everything was listed once."""

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n") if ready.is_set() else web.Response(status=503)

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, *listen).start()
        yield
    finally:
        await runner.cleanup()


def _now() -> datetime:
    return datetime.now(UTC)
