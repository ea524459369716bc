"""The plugin's parts, put together and run until it is asked to stop."""

import asyncio
import contextlib
import logging
import os
import signal
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path, PurePosixPath

import grpc.aio

from modelcache_api.file_access import SOCKET_NAME as FILES_SOCKET_NAME
from modelcache_csi._proto import csi_pb2_grpc, registration_pb2_grpc
from modelcache_csi.agent_client import AgentClient
from modelcache_csi.events import PodEvents
from modelcache_csi.fuse.negotiation import Features
from modelcache_csi.fuse.probing import missing_features
from modelcache_csi.grpc_sockets import serving
from modelcache_csi.health import health_served
from modelcache_csi.identity import IdentityService
from modelcache_csi.kube_client import connected
from modelcache_csi.lazy_processes import LOST_AFTER_S, LazyProcesses
from modelcache_csi.lazy_volumes import LazyVolumes
from modelcache_csi.leases import CHECK_INTERVAL_S, LeaseBook
from modelcache_csi.metrics import PublishDurations
from modelcache_csi.mounts import Mounts
from modelcache_csi.node import NodeService
from modelcache_csi.orphans import sweep_forever
from modelcache_csi.publishing import AGENT_PATIENCE_S, Publisher
from modelcache_csi.registration import SOCKET_NAME, RegistrationService
from modelcache_csi.sizes import RevisionSizes

#: The keeper's socket, in the directory of the agent's.
KEEPER_SOCKET_NAME = "keeper.sock"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Settings:
    """What the command line says.

    `csi_socket_on_host` is the CSI socket's path as the kubelet sees it. `registration_dir` None:
    not registered. `has_kubelets_mounts`: this process shares the kubelet's mount namespace.
    `health_port` None: no health endpoint. `keeper_socket` None: beside the agent's.
    """

    node_name: str
    csi_socket: Path
    csi_socket_on_host: str
    registration_dir: Path | None
    kubelet_root: PurePosixPath
    data_dir: Path
    agent_socket: Path
    health_host: str
    health_port: int | None
    keeper_socket: Path | None = None
    lazy_features: Features = field(default_factory=Features)
    lazy_lost_after_s: float = LOST_AFTER_S
    has_kubelets_mounts: bool = False
    lease_check_s: float = CHECK_INTERVAL_S
    agent_patience_s: float = AGENT_PATIENCE_S


async def run(settings: Settings, *, stop: asyncio.Event | None = None) -> None:
    """Serve until SIGTERM or SIGINT, or until `stop` is set."""
    stop = stop or _stop_on_signals()
    mounts = Mounts(kubelet_root=settings.kubelet_root, data_dir=settings.data_dir)
    durations = PublishDurations()
    async with contextlib.AsyncExitStack() as running:
        kube = await running.enter_async_context(connected())
        agent = await running.enter_async_context(AgentClient(settings.agent_socket))
        leases = LeaseBook(
            agent,
            lambda: _mounted_leases(mounts),
            check_s=settings.lease_check_s,
            lazy_lacks=await asyncio.to_thread(missing_features, settings.lazy_features),
        )
        events = PodEvents(kube, node_name=settings.node_name, utc_now=lambda: datetime.now(UTC))
        lazy = LazyVolumes(
            lazy_processes(settings),
            mounts=mounts,
            leases=leases,
            events=events,
            data_dir=settings.data_dir,
        )
        publisher = Publisher(
            mounts=mounts,
            lazy=lazy,
            leases=leases,
            kube=kube,
            events=events,
            clock=time.monotonic,
            agent_patience_s=settings.agent_patience_s,
        )
        node = NodeService(
            node_name=settings.node_name,
            kubelet_root=settings.kubelet_root,
            mounts=mounts,
            publisher=publisher,
            sizes=RevisionSizes(settings.data_dir),
            durations=durations,
            refusal=_refusal(settings, mounts),
        )
        tasks = await running.enter_async_context(asyncio.TaskGroup())
        background = [
            tasks.create_task(leases.keep_reported()),
            tasks.create_task(events.post_forever()),
            tasks.create_task(sweep_forever(mounts, publisher)),
            tasks.create_task(lazy.watch_forever()),
        ]
        await _serve(running, settings, node, durations)
        log.info("serving on %s", settings.csi_socket, extra={"pid": os.getpid()})
        await stop.wait()
        log.info("stopping")
        for task in background:
            task.cancel()


async def _serve(
    running: contextlib.AsyncExitStack,
    settings: Settings,
    node: NodeService,
    durations: PublishDurations,
) -> None:
    """Open the sockets: CSI first, because the kubelet calls it as soon as it is registered."""

    def add_csi(server: grpc.aio.Server) -> None:
        identity = IdentityService(version("modelcache"))
        csi_pb2_grpc.add_IdentityServicer_to_server(identity, server)
        csi_pb2_grpc.add_NodeServicer_to_server(node, server)

    def add_registration(server: grpc.aio.Server) -> None:
        registration = RegistrationService(settings.csi_socket_on_host)
        registration_pb2_grpc.add_RegistrationServicer_to_server(registration, server)

    await running.enter_async_context(serving(settings.csi_socket, add_csi))
    registration_socket: Path | None = None
    if settings.registration_dir is not None:
        registration_socket = settings.registration_dir / SOCKET_NAME
        await running.enter_async_context(serving(registration_socket, add_registration))
    if settings.health_port is not None:
        await running.enter_async_context(
            health_served(
                host=settings.health_host,
                port=settings.health_port,
                csi_socket=settings.csi_socket,
                registration_socket=registration_socket,
                durations=durations,
            )
        )


def lazy_processes(settings: Settings) -> LazyProcesses:
    """Where a plugin of these settings finds keeper and agent."""
    beside = settings.agent_socket.parent
    return LazyProcesses(
        keeper_socket=settings.keeper_socket or beside / KEEPER_SOCKET_NAME,
        files_socket=beside / FILES_SOCKET_NAME,
        allowed=settings.lazy_features,
        clock=time.monotonic,
        lost_after_s=settings.lazy_lost_after_s,
    )


def _mounted_leases(mounts: Mounts) -> dict[str, str]:
    return {mount.target.lease_id: mount.revision for mount in mounts.published()}


def _refusal(settings: Settings, mounts: Mounts) -> str | None:
    """Why a mount made here would not reach pods; without this check they would see nothing."""
    if settings.has_kubelets_mounts or mounts.is_shared():
        return None
    refusal = (
        f"{settings.kubelet_root} is not a shared mount here, pods would find their volumes empty:"
        " the plugin's volume of it needs mountPropagation: Bidirectional"
    )
    log.error(refusal)
    return refusal


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop
