"""Upload workers, seen from the agent: started, replaced when they die, and asked on their behalf.

Guarantees:
- chunks are served while the agent's event loop is busy;
- a worker that dies is replaced; connections that come meanwhile wait in the listener's queue;
- no key reaches a worker's command line or environment.
"""

import asyncio
import hashlib
import logging
import os
import random
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import UUID

from modelcache_api.errors import ModelCacheError
from modelcache_api.peer_auth import ClusterKeys
from modelcache_node.peers.limits import UploadLimits
from modelcache_node.peers.sharing import make_shared_file, places_taken
from modelcache_node.peers.wire import Ask, Keys, Reply, Usage, decode, encode
from modelcache_node.transfer.pacing import backoff_s
from modelcache_node.transfer.processes import WorkerProcess

_LOG = logging.getLogger(__name__)

MAX_WORKERS = 4
#: Connections that wait to be accepted. Arbitrary; the kernel bounds it further (somaxconn).
BACKLOG = 1024
#: The agent answers a peer's question within this time, or not at all; below the workers' own.
ANSWER_TIMEOUT_S = 32.0
#: A worker that lived at least this long was not broken from the start. Arbitrary.
QUICK_DEATH_S = 5.0
_MODULE = "modelcache_node.peers.worker"


@dataclass(frozen=True, slots=True)
class PeerCall:
    """A request that workers do not answer by themselves.

    `asker` is the address of who signed it, holder of the cluster's key; None: anybody.
    """

    method: str
    target: str
    asker: str | None
    body: bytes


@dataclass(frozen=True, slots=True)
class PeerReply:
    """Its answer."""

    status: int
    body: bytes = b""
    content_type: str = "application/octet-stream"


AnswerCall = Callable[[PeerCall], Awaitable[PeerReply]]


@dataclass(frozen=True, slots=True)
class UploadOptions:
    """How chunks are served.

    Attributes:
        blobs: The store's directory of this name.
        boot_id: Of this boot.
        workers: Processes; None chooses by the number of cores.
        bytes_per_s: Bound on all uploads together; None: none.
        tls: Certificate and key, as files of PEM text; None serves plain HTTP.
        limits: Bounds of this node's uploads.
    """

    blobs: Path
    boot_id: UUID
    workers: int | None = None
    bytes_per_s: float | None = None
    tls: tuple[Path, Path] | None = None
    limits: UploadLimits = UploadLimits()  # noqa: RUF009 - immutable


class PeerServer:
    """See the module. An async context manager; belongs to one event loop."""

    def __init__(
        self,
        listen: tuple[str, int],
        options: UploadOptions,
        keys: ClusterKeys,
        *,
        answer: AnswerCall,
        clock: Callable[[], float] = time.monotonic,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """Start nothing yet. `answer` is called for whatever is not a chunk."""
        self._listen = listen
        self._options = options
        self._keys = keys
        self._answer = answer
        self._clock = clock
        self._uniform = uniform
        self._count = options.workers or default_count(os.cpu_count() or 1)
        self._workers: dict[WorkerProcess, float] = {}
        self._usages: dict[WorkerProcess, Usage] = {}
        self._ended = Usage()
        self._answering: set[asyncio.Task[None]] = set()
        self._reaping: set[asyncio.Task[None]] = set()
        self._timers: set[asyncio.TimerHandle] = set()
        self._quick_deaths = 0
        self._is_stopping = False
        self._listener: socket.socket
        self._shared_fd = -1

    async def __aenter__(self) -> Self:
        """Listen, and start the workers; does not wait until they are up.

        Raises:
            OSError: the address cannot be listened on.
        """
        host, port = self._listen
        family = socket.AF_INET6 if ":" in host or not host else socket.AF_INET
        self._listener = socket.create_server(
            (host, port), family=family, backlog=BACKLOG, dualstack_ipv6=not host
        )
        self._listener.settimeout(0.0)
        self._shared_fd = make_shared_file()
        for _ in range(self._count):
            self._spawn()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop and reap the workers; uploads under way are cut off."""
        self._is_stopping = True
        for timer in self._timers:
            timer.cancel()
        for task in self._answering:
            task.cancel()
        await asyncio.gather(*(one.stop() for one in tuple(self._workers)), *self._reaping)
        await asyncio.gather(*self._answering, return_exceptions=True)
        self._listener.close()
        os.close(self._shared_fd)

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens: the port is the one that was given by the system."""
        host, port = self._listener.getsockname()[:2]
        return str(host), int(port)

    @property
    def worker_pids(self) -> list[int]:
        """Processes at work now, for who measures them."""
        return [one.pid for one in self._workers]

    def use_keys(self, keys: ClusterKeys) -> None:
        """Sign and verify with these from now on."""
        self._keys = keys
        for worker in self._workers:
            worker.send(encode(_packed(keys)))

    def stats(self) -> Usage:
        """Totals since the start, of all workers together; connections are those of now."""
        total = self._ended._replace(connections=0)
        for usage in self._usages.values():
            total = _added(total, usage)
        return total

    def uploads_under_way(self) -> int:
        """Places taken now, over all workers."""
        return places_taken(self._shared_fd, self._options.limits.uploads)

    def _spawn(self) -> None:
        options = self._options
        cert, key = options.tls or (None, None)
        settings = {
            "listener_fd": self._listener.fileno(),
            "shared_fd": self._shared_fd,
            "blobs": str(options.blobs),
            "boot_id": str(options.boot_id),
            "provider": _shown(self.address),
            "bytes_per_s": options.bytes_per_s and options.bytes_per_s / self._count,
            "tls_cert": cert and str(cert),
            "tls_key": key and str(key),
            "limits": options.limits._asdict(),
        }
        worker = WorkerProcess(
            _MODULE,
            settings,
            on_packet=self._on_packet,
            on_end=self._on_end,
            inherited=(self._listener.fileno(), self._shared_fd),
        )
        self._workers[worker] = self._clock()
        self._usages[worker] = Usage()
        worker.send(encode(_packed(self._keys)))

    def _on_packet(self, worker: WorkerProcess, packet: bytes) -> None:
        message = decode(packet)
        if isinstance(message, Usage):
            self._usages[worker] = message
        elif isinstance(message, Ask):
            task = asyncio.get_running_loop().create_task(self._reply(worker, message))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)

    async def _reply(self, worker: WorkerProcess, ask: Ask) -> None:
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                call = PeerCall(ask.method, ask.target, ask.asker, ask.body.encode("latin-1"))
                reply = await self._answer(call)
        except TimeoutError:
            reply = PeerReply(503)
        except ModelCacheError as e:
            reply = PeerReply(404, str(e).encode(), "text/plain")
        except Exception:  # noqa: BLE001 - the edge that reports it
            _LOG.exception("a peer's %s failed", ask.target)
            reply = PeerReply(500)
        digest = hashlib.sha256(reply.body).hexdigest()
        head = Reply(ask.id, reply.status, reply.content_type, len(reply.body), digest)
        worker.send_file(encode(head), reply.body)

    def _on_end(self, worker: WorkerProcess) -> None:
        began_at = self._workers.pop(worker)
        usage = self._usages.pop(worker)
        self._ended = _added(self._ended, usage)
        if self._is_stopping:
            return
        reaping = asyncio.get_running_loop().create_task(worker.stop())
        self._reaping.add(reaping)
        reaping.add_done_callback(self._reaping.discard)
        is_quick = self._clock() - began_at < QUICK_DEATH_S
        self._quick_deaths = self._quick_deaths + 1 if is_quick else 0
        pause_s = backoff_s(self._quick_deaths, self._uniform) if self._quick_deaths > 1 else 0.0
        _LOG.warning("an upload worker ended; starting another in %.1f s", pause_s)
        self._call_later(pause_s, self._spawn)

    def _call_later(self, delay_s: float, action: Callable[[], None]) -> None:
        def act() -> None:
            self._timers.discard(timer)
            if not self._is_stopping:
                action()

        timer = asyncio.get_running_loop().call_later(delay_s, act)
        self._timers.add(timer)


def peer_metrics(stats: Usage) -> dict[str, float]:
    """By their names in ``/metrics``."""
    return {
        "peer_sent_bytes_total": stats.bytes_sent,
        "peer_uploads_total": stats.uploads,
        "peer_busy_total": stats.busy,
        "peer_refused_total": stats.refused,
        "peer_connections": stats.connections,
        "peer_upload_cpu_seconds_total": stats.cpu_seconds,
    }


def default_count(n_cores: int) -> int:
    """One worker per eight cores: sendfile is cheap, and movers come first."""
    return max(1, min(MAX_WORKERS, n_cores // 8))


def _added(one: Usage, other: Usage) -> Usage:
    return Usage(*(a + b for a, b in zip(one, other, strict=True)))  # type: ignore[arg-type]


def _packed(keys: ClusterKeys) -> Keys:
    return Keys([key.decode("latin-1") for key in keys.keys])


def _shown(address: tuple[str, int]) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
