"""What an agent is to other agents: it serves chunks, answers small questions, and can ask them.

Without a cluster key agents speak to each other only on loopback, where there is nobody else; any
other address then answers health alone.
"""

import asyncio
import ipaddress
import logging
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from modelcache_api.peer_auth import ClusterKeys
from modelcache_node.peers.api import PeerApi, SwarmHost
from modelcache_node.peers.client import PeerClient
from modelcache_node.peers.server import PeerReply, PeerServer, UploadOptions
from modelcache_node.serving.cluster_keys import follow_keys, read_keys
from modelcache_node.serving.health_api import Health
from modelcache_node.transfer.movers import Movers
from modelcache_node.transfer.ranges import PeerTls

_LOG = logging.getLogger(__name__)

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class PeerOptions:
    """How this agent meets others.

    Attributes:
        listen: Where it serves them.
        peers: Agents named by hand.
        key_file: The cluster's keys; None: only on loopback.
        upload: How chunks are served.
        tls: How others are known over TLS; None: plain HTTP.
        advertise: Where others reach it, if that is not where it listens.
    """

    listen: Address
    peers: Sequence[Address]
    key_file: Path | None
    upload: UploadOptions
    tls: PeerTls | None
    advertise: Address | None = None

    @property
    def may_speak(self) -> bool:
        return self.key_file is not None or all(map(_is_loopback, (self.listen, *self.peers)))


@dataclass(frozen=True, slots=True)
class Peers:
    """This agent among others, running."""

    server: PeerServer
    client: PeerClient
    address: str


async def open_peers(
    options: PeerOptions,
    host: SwarmHost,
    health: Health,
    movers: Movers,
    stack: AsyncExitStack,
    *,
    now: Callable[[], float],
) -> Peers:
    """Serve and ask others until the stack unwinds. Call it only if `options.may_speak`.

    Raises:
        InvalidRequestError: the key file cannot be used.
        OSError: the address cannot be listened on.
    """
    path = options.key_file
    keys = ClusterKeys.of_loopback() if path is None else read_keys(path)

    async def answer_public(target: str) -> PeerReply:
        status, text = health.healthz() if target == "/healthz" else health.metrics()
        return PeerReply(status, text.encode(), "text/plain")

    server = await stack.enter_async_context(
        PeerServer(options.listen, options.upload, keys, answer=PeerApi(host, answer_public))
    )
    address = _shown(options.advertise or server.address)
    client = await stack.enter_async_context(
        PeerClient(keys, asker=address, now=now, tls=options.tls)
    )
    movers.use_cluster_keys(keys, asker=address)

    def use(changed: ClusterKeys) -> None:
        server.use_keys(changed)
        client.keys = changed
        movers.use_cluster_keys(changed, asker=address)

    if path is not None:
        following = asyncio.create_task(follow_keys(path, keys, use))
        stack.callback(following.cancel)
    _LOG.info("peers are served on %s, as %s", _shown(server.address), address)
    return Peers(server, client, address)


def _is_loopback(address: Address) -> bool:
    host = address[0]
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_reachable(address: Address) -> bool:
    """Whether others can be told this address: it is not that of every interface."""
    try:
        return bool(address[0]) and not ipaddress.ip_address(address[0]).is_unspecified
    except ValueError:
        return True


def _shown(address: Address) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
