"""Wires one agent together and runs it until it is told to stop."""

import asyncio
import datetime as dt
import logging
import os
import signal
import ssl
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from aiohttp import web

from modelcache_api.cache_node import CacheNodeSpec
from modelcache_api.errors import InvalidRequestError
from modelcache_api.file_access import SOCKET_NAME
from modelcache_api.messages import NodeReport
from modelcache_api.names import AGENT_SERVER_NAME
from modelcache_node.caching.cache import Cache
from modelcache_node.caching.members import Introductions, Members, MembersOf
from modelcache_node.caching.swarms import Swarms
from modelcache_node.membership.api_server import ApiServer
from modelcache_node.membership.kubernetes import CacheNodeMembership
from modelcache_node.membership.tokens import TokenReviewer
from modelcache_node.peers.server import UploadOptions, peer_metrics
from modelcache_node.serving.file_api import FileApi
from modelcache_node.serving.health_api import Health, build_health_api
from modelcache_node.serving.job_api import build_job_api
from modelcache_node.serving.local_api import build_local_api
from modelcache_node.serving.peer_api import PeerOptions, is_reachable, open_peers
from modelcache_node.store.store import Store
from modelcache_node.transfer.movers import Movers
from modelcache_node.transfer.ranges import PeerTls
from modelcache_node.transfer.rules import OpenNetwork, Rules

_LOG = logging.getLogger(__name__)

#: Requests under way get this long when the agent stops; sessions are resumed elsewhere anyway.
_STOP_S = 2.0
#: The node's root and the agent's own user may talk to the agent.
_SOCKET_MODE = 0o600

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class AgentOptions:
    """What an agent is told at its start; see ``modelcache agent --help``."""

    data_dir: Path
    listen: Address
    socket: Path
    job_listen: Address | None = None
    health_listen: Address | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    capacity_bytes: int | None = None
    download_limit_bytes_per_s: int | None = None
    origin_limit_bytes_per_s: int | None = None
    movers: int | None = None
    allow_any_disk: bool = False
    node_name: str | None = None
    proof_max_age_s: float | None = None
    rules: Rules = OpenNetwork()  # noqa: RUF009 - immutable
    peers: tuple[Address, ...] = ()
    advertise: Address | None = None
    cluster_key_file: Path | None = None
    upload_limit_bytes_per_s: int | None = None
    peer_ca_file: Path | None = None

    @property
    def peer_tls(self) -> PeerTls | None:
        """Whom to trust among peers over TLS; None speaks plain HTTP."""
        if self.peer_ca_file is None:
            return None
        try:
            return PeerTls(self.peer_ca_file.read_text(), AGENT_SERVER_NAME)
        except OSError as e:
            raise InvalidRequestError(f"--peer-ca-file {self.peer_ca_file}: {e}") from e


async def run_agent(options: AgentOptions) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        InvalidRequestError: the data directory or an option cannot be used as given.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    async with AsyncExitStack() as stack:
        agent = await _open_agent(options, stack)
        cache = agent.cache
        await _serve_local(options, cache, stack)
        health = Health(cache)
        address = await _meet_peers(options, agent, health, stack)
        if options.health_listen:
            await _serve_tcp(build_health_api(health), options.health_listen, stack)
        if options.node_name:
            await _join_kubernetes(options, options.node_name, address, agent, stack)
        _LOG.info("ready: %s", options.socket)
        await stop.wait()


@dataclass(frozen=True, slots=True)
class _Agent:
    """The parts of one agent that others are made of."""

    store: Store
    movers: Movers
    swarms: Swarms
    introductions: Introductions
    cache: Cache


async def _open_agent(options: AgentOptions, stack: AsyncExitStack) -> _Agent:
    store = await asyncio.to_thread(
        Store.open, options.data_dir, allow_any_disk=options.allow_any_disk
    )
    stack.callback(store.close)
    movers = await stack.enter_async_context(
        Movers(
            count=options.movers,
            download_limit_bytes_per_s=options.download_limit_bytes_per_s,
            rules=options.rules,
            peer_tls=options.peer_tls,
        )
    )
    swarms = Swarms(
        store,
        clock=time.monotonic,
        origin_limit_bytes_per_s=options.origin_limit_bytes_per_s,
    )
    cache = Cache(
        store,
        movers,
        swarms,
        capacity_bytes=options.capacity_bytes,
        now=_now,
        clock=time.monotonic,
        version=version("modelcache"),
        proof_max_age_s=options.proof_max_age_s,
    )
    stack.push_async_callback(cache.close)
    return _Agent(store, movers, swarms, Introductions(), cache)


async def _meet_peers(
    options: AgentOptions, agent: _Agent, health: Health, stack: AsyncExitStack
) -> str:
    """Serve other agents, at the address that is returned; or health alone: empty."""
    tls = options.peer_tls
    certificate = None
    if tls and options.tls_cert and options.tls_key:
        certificate = (options.tls_cert, options.tls_key)
    peer_options = PeerOptions(
        listen=options.listen,
        peers=options.peers,
        key_file=options.cluster_key_file,
        upload=UploadOptions(
            agent.store.root / "blobs",
            agent.store.boot_id,
            bytes_per_s=options.upload_limit_bytes_per_s,
            tls=certificate,
        ),
        tls=tls,
        advertise=options.advertise,
    )
    if not peer_options.may_speak:
        _LOG.warning("no --cluster-key-file: %s answers health only", _shown(options.listen))
        await _serve_tcp(build_health_api(health), options.listen, stack)
        return ""
    peers = await open_peers(peer_options, agent.swarms, health, agent.movers, stack, now=_now)
    health.more_metrics = lambda: peer_metrics(peers.server.stats())
    named = tuple(_shown(one) for one in options.peers)
    if named and not options.advertise and not is_reachable(options.listen):
        raise InvalidRequestError("--peer needs --advertise where --listen is no single address")
    me, members_of = peers.address, _members_by_hand(peers.address, named)
    if options.node_name and not named:
        me, members_of = options.node_name, agent.introductions.members_of
    agent.swarms.connect(me, peers.client, members_of, peers.server.uploads_under_way)
    return peers.address


def _members_by_hand(address: str, named: tuple[str, ...]) -> MembersOf:
    try:
        members = Members.by_hand(address, named)
    except ValueError as e:
        raise InvalidRequestError(f"--peer: {e}") from e
    return lambda _: members


async def _serve_local(options: AgentOptions, cache: Cache, stack: AsyncExitStack) -> None:
    options.socket.parent.mkdir(parents=True, exist_ok=True)
    options.socket.unlink(missing_ok=True)  # the store's lock says that no other agent runs
    runner = await _runner(build_local_api(cache), stack)
    mask = os.umask(0o777 & ~_SOCKET_MODE)
    try:
        await web.UnixSite(runner, str(options.socket)).start()
    finally:
        os.umask(mask)
    files = FileApi(cache.files)
    await stack.enter_async_context(files.served(options.socket.with_name(SOCKET_NAME)))


async def _serve_tcp(
    app: web.Application,
    address: Address,
    stack: AsyncExitStack,
    tls: ssl.SSLContext | None = None,
) -> None:
    runner = await _runner(app, stack)
    await web.TCPSite(runner, address[0] or None, address[1], ssl_context=tls).start()


async def _runner(app: web.Application, stack: AsyncExitStack) -> web.AppRunner:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_STOP_S)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    return runner


async def _join_kubernetes(
    options: AgentOptions, node_name: str, address: str, agent: _Agent, stack: AsyncExitStack
) -> None:
    """Serve Jobs, follow this node's CacheNode, and report to it, until the stack unwinds."""
    cache = agent.cache
    api = await stack.enter_async_context(ApiServer.in_cluster())
    if options.job_listen:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(str(options.tls_cert), str(options.tls_key))
        review = TokenReviewer(api, node_name, clock=time.monotonic)
        await _serve_tcp(build_job_api(cache, review), options.job_listen, stack, context)

    async def report() -> NodeReport:
        return cache.report()

    async def follow(spec: CacheNodeSpec) -> None:
        agent.introductions.take(spec)
        await cache.follow(spec)

    membership = CacheNodeMembership(
        api,
        node_name,
        address=address,
        report=report,
        on_spec=follow,
        now=lambda: dt.datetime.now(dt.UTC),
    )
    for running in (membership.run(), cache.peer_starts.run()):
        task = asyncio.create_task(running)
        task.add_done_callback(_die_with)
        stack.callback(task.cancel)


def _shown(address: Address) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _die_with(task: asyncio.Task[None]) -> None:
    """A bug in what runs beside must not leave an agent that nobody hears of, or half of one."""
    if not task.cancelled() and task.exception():
        _LOG.critical("the agent ends by a bug", exc_info=task.exception())
        os.kill(os.getpid(), signal.SIGTERM)


def _now() -> float:
    return dt.datetime.now(dt.UTC).timestamp()
