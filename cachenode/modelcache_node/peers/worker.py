"""The upload process: ``python -m modelcache_node.peers.worker FD PARENT_PID OPTIONS``.

One thread, one epoll, many connections. It serves chunks from the store by itself, whatever the
agent's event loop does, and carries any other verified request to its parent over the socket FD
(see `wire`). It ends when that socket ends, or with its parent.

Guarantees:
- a chunk is served only to a request that is signed, of now, and new to this node, and only when
  the journal says that the chunk was checked;
- connections, uploads, requests that wait, and the time each may take are bounded (`UploadLimits`).
"""

import gc
import os
import resource
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from modelcache_api.peer_auth import ClusterKeys
from modelcache_node.peers.answers import Signer, answer_head, text_answer
from modelcache_node.peers.connections import FileSlice, PeerConnection, State
from modelcache_node.peers.holdings import Holdings
from modelcache_node.peers.limits import UploadLimits
from modelcache_node.peers.requests import PeerRequest
from modelcache_node.peers.responding import Responder
from modelcache_node.peers.sharing import NonceTable, UploadPlaces
from modelcache_node.peers.transports import AcceptTransport, PlainUpload
from modelcache_node.peers.turns import Turns
from modelcache_node.peers.wire import Ask, Keys, Reply, Usage, decode, encode
from modelcache_node.transfer.control_socket import packets
from modelcache_node.transfer.limits import MoverLimits
from modelcache_node.transfer.pacing import RateLimit
from modelcache_node.transfer.polling import Poller
from modelcache_node.transfer.starting import begin, wall_clock
from modelcache_node.transfer.watching import Watch

#: How often connections are looked at and usage is told. Arbitrary.
SWEEP_S = 0.5
#: How often uploads are looked at that a rate has paused, and that wait for a turn. Arbitrary.
RESUME_S, TURN_S = 0.01, 0.1
#: Connections accepted in a row, before others have their turn. Arbitrary.
ACCEPTS_IN_A_ROW = 64
#: Descriptors beside those of connections: bodies, control, libraries. Arbitrary.
SPARE_FDS = 256
#: Bytes read of a socket at once: requests are short, and a TLS record has 16 KiB.
BUFFER_BYTES = 1 << 16


class Settings(NamedTuple):
    """What a worker is told at its start."""

    listener_fd: int
    shared_fd: int
    blobs: str
    boot_id: str
    provider: str
    bytes_per_s: float | None
    tls_cert: str | None
    tls_key: str | None
    limits: dict[str, float]


class Waiting(NamedTuple):
    """A connection that waits for the parent's answer; a busy one for what its 503 will say."""

    connection: PeerConnection
    signer: Signer
    is_busy: bool
    until: float


class UploadWorker:
    """See the module. Its mutable state: connections, and requests that wait for the parent."""

    def __init__(
        self,
        control: socket.socket,
        settings: Settings,
        *,
        accept_transport: AcceptTransport,
        clock: Callable[[], float],
        now: Callable[[], float],
    ) -> None:
        """`clock` is monotonic, `now` the wall clock; both in seconds."""
        self._control = control
        self._accept_transport = accept_transport
        self._clock = clock
        self._limits = UploadLimits(**settings.limits)  # type: ignore[arg-type]  # from JSON
        self._listener = socket.socket(fileno=settings.listener_fd)
        self._responder = Responder(
            settings.provider,
            Holdings(Path(settings.blobs), UUID(settings.boot_id)),
            NonceTable(settings.shared_fd),
            UploadPlaces(settings.shared_fd, self._limits.uploads),
            clock=clock,
            now=now,
            ask=self._ask,
        )
        rate = settings.bytes_per_s
        self._rate = None if rate is None else RateLimit(rate, clock())
        self._watch_limits = MoverLimits(
            inactivity_timeout_s=self._limits.inactivity_timeout_s,
            min_bytes_per_s=self._limits.min_bytes_per_s,
            speed_window_s=self._limits.speed_window_s,
        )
        self._turns = Turns(clock)
        self._poller = Poller()
        self._buffer = memoryview(bytearray(BUFFER_BYTES))
        self._connections: dict[PeerConnection, Watch] = {}
        self._waiting: dict[int, Waiting] = {}
        self._last_ask = 0
        self._is_accepting = False
        self._sent_before = 0
        self._usage = Usage()
        self._runs = True

    def run(self) -> None:
        """Work until the control socket ends."""
        self._poller.watch(self._control.fileno(), self, for_write=False)
        swept_at = self._clock()
        while self._runs:
            for owner in self._poller.poll(self._patience_s()):
                if owner is self:
                    self._listen()
                elif owner is self._listener:
                    self._accept()
                elif isinstance(owner, PeerConnection) and owner.is_open:
                    self._advance(owner)
            for connection in self._turns.in_order(self._paused()):
                self._advance(connection)
            now = self._clock()
            if now - swept_at >= SWEEP_S:
                swept_at = now
                self._sweep(now)

    def _paused(self) -> list[PeerConnection]:
        may_pause = self._rate is not None or self._turns.is_awaited
        return [one for one in self._connections if one.is_paused] if may_pause else []

    def _patience_s(self) -> float:
        """Turns end with an event or, for one that is held up, some time."""
        if self._rate is not None and self._paused():
            return RESUME_S
        return TURN_S if self._turns.is_awaited else SWEEP_S

    # The parent

    def _listen(self) -> None:
        """Take all the messages there are."""
        for packet, fd in packets(self._control):
            if not packet:
                self._runs = False
                return
            message = decode(packet)
            if isinstance(message, Keys):
                keys = tuple(key.encode("latin-1") for key in message.keys)
                self._responder.keys = ClusterKeys(keys)
                self._accept_more()
            elif isinstance(message, Reply):
                self._pass_on(message, fd)

    def _tell(self, message: Ask | Usage) -> bool:
        """Never waits for the parent: what its queue does not take is not sent."""
        try:
            self._control.send(encode(message), socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except (BrokenPipeError, ConnectionResetError):
            self._runs = False
        return True

    def _ask(
        self,
        connection: PeerConnection,
        signer: Signer,
        request: PeerRequest,
        asker: str | None,
        *,
        is_busy: bool,
    ) -> None:
        """Have the parent answer a request, if not too many wait for it already."""
        limits = self._limits
        self._last_ask += 1
        body = request.body.decode("latin-1")
        ask = Ask(self._last_ask, request.method, request.target, asker, body)
        if len(self._waiting) >= limits.asks or not self._tell(ask):
            retry_after_s = self._responder.retry_after_s
            connection.answer(text_answer(signer, 503, "", retry_after_s=retry_after_s))
            return
        until = self._clock() + (limits.hint_timeout_s if is_busy else limits.ask_timeout_s)
        self._waiting[ask.id] = Waiting(connection, signer, is_busy, until)
        connection.wait_for_owner()

    def _pass_on(self, reply: Reply, fd: int) -> None:
        waiting = self._waiting.pop(reply.id, None)
        if waiting is None or waiting.connection.state is not State.OWNER:
            os.close(fd)
            return
        status, headers = reply.status, [("Content-Type", reply.content_type)]
        if waiting.is_busy:
            status, headers = 503, [("Retry-After", str(self._responder.retry_after_s))]
        head = answer_head(waiting.signer, status, reply.length, f"sha256:{reply.sha256}", headers)
        waiting.connection.answer_late(head, FileSlice(fd, 0, reply.length))
        self._forget_closed(waiting.connection)

    # Connections

    def _accept_more(self) -> None:
        if not self._is_accepting and self._responder.keys is not None:
            self._poller.watch(self._listener.fileno(), self._listener, for_write=False)
            self._is_accepting = True

    def _accept_no_more(self) -> None:
        self._poller.forget(self._listener.fileno())
        self._is_accepting = False

    def _accept(self) -> None:
        for _ in range(ACCEPTS_IN_A_ROW):
            if len(self._connections) >= self._limits.connections and not self._make_room():
                self._accept_no_more()
                return
            try:
                accepted, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError:  # no descriptor left, for one: the next sweep tries again
                self._accept_no_more()
                return
            try:
                accepted.settimeout(0.0)
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection = PeerConnection(
                    self._accept_transport(accepted),
                    poller=self._poller,
                    buffer=self._buffer,
                    rate=self._rate,
                    turns=self._turns,
                    clock=self._clock,
                    on_request=self._responder.on_request,
                )
            except OSError:
                accepted.close()
                continue
            self._connections[connection] = Watch(self._watch_limits, 0, self._clock())
            self._advance(connection)

    def _make_room(self) -> bool:
        """Close the oldest connection that does nothing: strangers first."""
        idle = [
            one
            for one in self._connections
            if one.state in {State.HANDSHAKE, State.REQUEST} and not one.is_reading
        ]
        idle = idle or [one for one in self._connections if one.state is State.REQUEST]
        oldest = next((one for one in idle if not one.is_known), next(iter(idle), None))
        if oldest is None:
            return False
        oldest.close()
        self._forget_closed(oldest)
        return True

    def _advance(self, connection: PeerConnection) -> None:
        connection.advance()
        self._forget_closed(connection)

    def _forget_closed(self, connection: PeerConnection) -> None:
        if connection.is_open or self._connections.pop(connection, None) is None:
            return
        self._sent_before += connection.sent
        if connection in {one.connection for one in self._waiting.values()}:
            self._waiting = {
                key: one for key, one in self._waiting.items() if one.connection is not connection
            }
        self._accept_more()

    def _sweep(self, now: float) -> None:
        for connection in list(self._connections):
            if self._is_overdue(connection, now):
                connection.close()
                self._forget_closed(connection)
        for ask, waiting in list(self._waiting.items()):
            if now >= waiting.until:
                del self._waiting[ask]
                self._answer_unasked(waiting)
        self._accept_more()
        self._tell_usage()

    def _is_overdue(self, connection: PeerConnection, now: float) -> bool:
        watch = self._connections[connection]
        if connection.state is State.SENDING and not connection.is_paused:
            return watch.verdict(connection.sent, now) is not None
        self._connections[connection] = Watch(self._watch_limits, connection.sent, now)
        limits = self._limits
        if connection.state is State.HANDSHAKE or connection.is_reading:
            return now - connection.changed_at >= limits.head_timeout_s
        if connection.state is State.REQUEST:
            idle_s = limits.idle_timeout_s if connection.is_known else limits.head_timeout_s
            return now - connection.changed_at >= idle_s
        return False

    def _answer_unasked(self, waiting: Waiting) -> None:
        """The parent did not answer in time."""
        text = "" if waiting.is_busy else "the agent does not answer now"
        answer = text_answer(waiting.signer, 503, text, retry_after_s=self._responder.retry_after_s)
        waiting.connection.answer_late(answer)
        self._forget_closed(waiting.connection)

    def _tell_usage(self) -> None:
        counts = self._responder.counts
        usage = Usage(
            bytes_sent=self._sent_before + sum(one.sent for one in self._connections),
            uploads=counts.uploads,
            busy=counts.busy,
            refused=counts.refused,
            connections=len(self._connections),
        )
        if usage != self._usage:
            self._usage = usage
            used = os.times()
            self._tell(usage._replace(cpu_seconds=used.user + used.system))


def raise_fd_limit(connections: int) -> None:
    """Let this process have as many descriptors as its bounds may need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + SPARE_FDS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def main() -> None:
    control, options = begin(sys.argv)
    settings = Settings(**options)
    accept_transport: AcceptTransport = PlainUpload
    if settings.tls_cert and settings.tls_key:
        from modelcache_node.peers.tls import tls_uploads  # noqa: PLC0415 - costs 5 MiB

        accept_transport = tls_uploads(settings.tls_cert, settings.tls_key)
    raise_fd_limit(UploadLimits(**settings.limits).connections)  # type: ignore[arg-type]
    gc.freeze()  # what is there now stays; a collection need not look at it
    UploadWorker(
        control,
        settings,
        accept_transport=accept_transport,
        clock=time.monotonic,
        now=wall_clock,
    ).run()


if __name__ == "__main__":
    main()
