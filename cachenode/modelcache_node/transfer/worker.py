"""The mover process: ``python -m modelcache_node.transfer.worker FD PARENT_PID LIMITS``.

One thread, one epoll, many connections, one small buffer. Assignments come over the socket FD
(see `wire`), so that every connection has its next range at hand. It ends when that socket ends,
or with its parent (PR_SET_PDEATHSIG), whichever it notices first.
"""

import gc
import mmap
import os
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from modelcache_node.transfer.connections import Connection, StaleConnectionError
from modelcache_node.transfer.control_socket import packets
from modelcache_node.transfer.failures import FailureKind, RangeFailedError
from modelcache_node.transfer.limits import MoverLimits
from modelcache_node.transfer.polling import Poller
from modelcache_node.transfer.sinks import RangeSink, WriteBehind
from modelcache_node.transfer.starting import begin, wall_clock
from modelcache_node.transfer.transports import OpenTransport, PlainTransport
from modelcache_node.transfer.watching import Watch
from modelcache_node.transfer.wire import (
    Assignment,
    Cancel,
    Cancelled,
    Done,
    Failed,
    Hold,
    Keys,
    Trust,
    Usage,
    decode,
    encode,
)

if TYPE_CHECKING:
    from modelcache_api.peer_auth import ClusterKeys
    from modelcache_node.transfer.peer_exchange import PeerExchange
    from modelcache_node.transfer.tls import TrustStore

#: How often connections are looked at and usage is told. Arbitrary.
SWEEP_S = 0.5
#: Connections for urgent ranges, beyond those at work. Arbitrary; as many as readers may have.
URGENT_CONNECTIONS = 4


class Worker:
    """Assignments in, ranges out. Its mutable state: the queue and the connections."""

    def __init__(
        self,
        control: socket.socket,
        limits: MoverLimits,
        *,
        clock: Callable[[], float],
        now: Callable[[], float],
    ) -> None:
        """`clock` is monotonic, `now` the wall clock; both in seconds."""
        self._control = control
        self._now = now
        self._limits = limits
        self._peer_limits = limits._replace(inactivity_timeout_s=limits.peer_inactivity_timeout_s)
        self._clock = clock
        self._poller = Poller()
        self._buffer = memoryview(mmap.mmap(-1, limits.buffer_bytes))
        self._behind = WriteBehind(limits.dirty_bytes, limits.keep_cached_bytes)
        self._pending: deque[Assignment] = deque()
        self._connections: dict[Connection, Watch] = {}
        self._trust: TrustStore | None = None
        self._keys: ClusterKeys | None = None
        self._asker = ""
        self._received_before = 0
        self._told_bytes = 0
        self._is_held = False
        self._runs = True

    def run(self) -> None:
        """Work until the control socket ends."""
        self._poller.watch(self._control.fileno(), self, for_write=False)
        swept_at = self._clock()
        while self._runs:
            for owner in self._poller.poll(SWEEP_S):
                if owner is self:
                    self._listen()
                elif isinstance(owner, Connection) and owner.is_open:
                    self._advance(owner)
            if self._pending:
                self._fill()
            now = self._clock()
            if now - swept_at >= SWEEP_S:
                swept_at = now
                self._sweep(now)

    # The parent

    def _listen(self) -> None:
        """Take all the messages there are."""
        for packet, fd in packets(self._control):
            if not packet:
                self._runs = False
                return
            message = decode(packet)
            if isinstance(message, Assignment):
                if message.is_urgent:
                    self._pending.appendleft(message)
                else:
                    self._pending.append(message)
            elif isinstance(message, Hold):
                self._hold(is_on=message.is_on)
            elif isinstance(message, Cancel):
                self._cancel(message.id)
            elif isinstance(message, Keys):
                self._use_keys(message)
            elif isinstance(message, Trust):
                self._trust_store().add(message.profile, fd)

    def _tell(self, message: Done | Failed | Cancelled | Usage) -> None:
        """Blocks while the parent does not read: results are not piled up here."""
        try:
            self._control.send(encode(message))
        except (BrokenPipeError, ConnectionResetError):
            self._runs = False

    def _cancel(self, range_id: int) -> None:
        kept = (one for one in self._pending if one.id != range_id)
        self._pending = deque(kept)
        for connection in list(self._connections):
            if connection.assignment and connection.assignment.id == range_id:
                connection.close()
                self._end(connection)
        self._tell(Cancelled(range_id))

    # Ranges and connections

    def _hold(self, *, is_on: bool) -> None:
        self._is_held = is_on
        if not is_on:
            self._poller.resume()
            return
        for connection in self._connections:
            if connection.assignment and not connection.assignment.is_urgent:
                connection.pause()

    def _fill(self) -> None:
        """Give every connection that may work a range, in the order of the queue."""
        while self._pending and (self._pending[0].is_urgent or not self._is_held):
            assignment = self._pending.popleft()
            try:
                connection = self._connection_for(assignment)
                if connection is None:
                    self._pending.appendleft(assignment)
                    return
                self._start(connection, assignment)
            except RangeFailedError as e:
                self._fail(assignment, e)

    def _connection_for(self, assignment: Assignment) -> Connection | None:
        """An idle connection to the right place, or a new one if there is room for it."""
        idle = [one for one in self._connections if one.is_idle]
        for connection in idle:
            if connection.pool == assignment.pool:
                return connection
        extra = URGENT_CONNECTIONS if assignment.is_urgent else 0
        if len(self._connections) - len(idle) >= self._limits.connections + extra:
            return None
        if len(idle) >= self._limits.idle_connections:
            idle[0].close()
            self._forget(idle[0])
        return Connection(
            assignment,
            self._transport_for(assignment),
            poller=self._poller,
            buffer=self._buffer,
            clock=self._clock,
        )

    def _start(self, connection: Connection, assignment: Assignment) -> None:
        limits = self._peer_limits if assignment.is_peer else self._limits
        self._connections[connection] = Watch(limits, connection.received, self._clock())
        sink = RangeSink(
            assignment.path,
            assignment.offset,
            assignment.length,
            self._behind,
            wants_crc64nvme=assignment.wants_crc64nvme,
        )
        try:
            connection.start(
                assignment, sink, self._exchange_for(assignment) if assignment.is_peer else None
            )
        except StaleConnectionError:
            self._end(connection)
            self._pending.appendleft(assignment)
        except RangeFailedError:
            self._end(connection)
            raise

    def _advance(self, connection: Connection) -> None:
        assignment = connection.assignment
        try:
            done = connection.advance()
        except StaleConnectionError:
            assert assignment is not None
            self._pending.appendleft(assignment)
        except RangeFailedError as e:
            if assignment is not None:
                self._fail(assignment, e)
        else:
            if done is None and connection.is_open:
                return
            if done is not None:
                self._tell(done)
        self._end(connection)

    def _end(self, connection: Connection) -> None:
        """After a range's end, good or bad, or that of an idle connection."""
        if connection.assignment is not None:
            connection.finish()
        if not connection.is_open:
            self._forget(connection)

    def _forget(self, connection: Connection) -> None:
        if self._connections.pop(connection, None) is not None:
            self._received_before += connection.received

    def _fail(self, assignment: Assignment, error: RangeFailedError) -> None:
        self._tell(
            Failed(
                assignment.id,
                error.kind,
                error.message,
                error.retry_after,
                error.location,
                error.hints,
            )
        )

    def _sweep(self, now: float) -> None:
        for connection, watch in list(self._connections.items()):
            assignment = connection.assignment
            reason = watch.verdict(connection.received, now) if connection.is_ready else None
            if not connection.is_ready and now - connection.began_at >= self._connect_timeout_s:
                reason = f"no connection after {self._connect_timeout_s:.0f} s"
            if assignment is not None and reason:
                connection.close()
                self._fail(assignment, RangeFailedError(FailureKind.UNAVAILABLE, reason))
                self._end(connection)
        if not self._pending and all(one.assignment is None for one in self._connections):
            self._behind.let_go()
        self._tell_usage()

    @property
    def _connect_timeout_s(self) -> float:
        return self._limits.connect_timeout_s

    def _tell_usage(self) -> None:
        received = self._received_before + sum(one.received for one in self._connections)
        if received != self._told_bytes:
            self._told_bytes = received
            used = os.times()
            self._tell(Usage(received, used.user + used.system))

    def _transport_for(self, assignment: Assignment) -> OpenTransport:
        if assignment.scheme == "http":
            return PlainTransport
        name = assignment.server_name or assignment.host
        secure = self._trust_store().transport_to(name, assignment.trust)
        if assignment.proxy_port is None:
            return secure
        from modelcache_node.transfer.proxies import through  # noqa: PLC0415 - few have a proxy

        host = f"[{assignment.host}]" if ":" in assignment.host else assignment.host
        return through(f"{host}:{assignment.port}", secure)

    # Peers: what they need is imported for the first of them only

    def _use_keys(self, message: Keys) -> None:
        from modelcache_api.peer_auth import ClusterKeys  # noqa: PLC0415

        self._keys = ClusterKeys(tuple(key.encode("latin-1") for key in message.keys))
        self._asker = message.asker

    def _exchange_for(self, assignment: Assignment) -> "PeerExchange":
        from modelcache_node.transfer.peer_exchange import PeerExchange  # noqa: PLC0415

        assert self._keys is not None, "keys come before the first range of a peer"
        nonce = os.urandom(16).hex()
        return PeerExchange(assignment, self._keys, asker=self._asker, nonce=nonce, now=self._now())

    def _trust_store(self) -> "TrustStore":
        if self._trust is None:
            # Plain HTTP does without: that saves a worker's start 20 ms and 5 MiB.
            from modelcache_node.transfer.tls import TrustStore  # noqa: PLC0415

            self._trust = TrustStore()
        return self._trust


def main() -> None:
    control, options = begin(sys.argv)
    limits = MoverLimits(**options)
    gc.freeze()  # what is there now stays; a collection need not look at it
    Worker(control, limits, clock=time.monotonic, now=wall_clock).run()


if __name__ == "__main__":
    main()
