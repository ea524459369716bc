"""One keep-alive connection to an origin, driven by readiness: connect, ask, check, receive.

A connection never blocks and holds no bytes: what arrives passes through the worker's one buffer
into the range's sink. Its state is the method that handles the next event.
"""

import errno
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from modelcache_node.transfer.checking import (
    MAX_ERROR_BODY_BYTES,
    Accepted,
    Expected,
    check_head,
    judge_error,
)
from modelcache_node.transfer.failures import FailureKind, RangeFailedError
from modelcache_node.transfer.http1 import Head, HeadReader, MalformedHeadError
from modelcache_node.transfer.polling import Poller
from modelcache_node.transfer.sinks import RangeSink
from modelcache_node.transfer.transports import (
    WOULD_BLOCK,
    OpenTransport,
    PlainTransport,
    Transport,
)
from modelcache_node.transfer.wire import Assignment, Done

if TYPE_CHECKING:
    from modelcache_node.transfer.peer_exchange import PeerExchange

#: An error's body up to this length is read to its end, to keep the connection. Arbitrary.
MAX_DRAINED_BYTES = 64 << 10
#: Bytes lie in the buffer as they will in the file, within a page: between addresses that are not
#: congruent the kernel copies at half the speed (measured on loopback).
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
#: How a body in chunks ends (RFC 9112, section 7.1).
_LAST_CHUNK = b"0\r\n\r\n"


class StaleConnectionError(Exception):
    """The origin closed an idle connection as we asked again: nothing was lost, ask on another."""


class Connection:
    """See the module. Used by one thread; `close` it in any case.

    Attributes:
        pool: What it is connected to; see `Assignment.pool`.
        assignment: The range under way, or None.
        received: Body bytes, of all ranges so far.
        is_open: False once it must not be used again.
        is_ready: True once requests can be sent.
        began_at: When it began to connect or, later, when the range was asked for.
    """

    def __init__(
        self,
        assignment: Assignment,
        open_transport: OpenTransport,
        *,
        poller: Poller,
        buffer: memoryview,
        clock: Callable[[], float],
    ) -> None:
        """Begin to connect to where an assignment leads; `start` it afterwards.

        Raises:
            RangeFailedError: no address can be connected to.
        """
        self.pool = assignment.pool
        self.assignment: Assignment | None = None
        self.received = 0
        self.is_open = True
        self.is_ready = False
        self.began_at = clock()
        self._open_transport = open_transport
        self._poller = poller
        self._buffer = buffer
        self._clock = clock
        self._n_served = 0
        self._addresses = list(assignment.addresses)
        self._port = assignment.proxy_port or assignment.port
        self._step: Callable[[], Done | None]
        self._connect_next("it has no address")

    @property
    def is_idle(self) -> bool:
        return self.is_open and self.assignment is None

    def start(
        self, assignment: Assignment, sink: RangeSink, exchange: "PeerExchange | None" = None
    ) -> None:
        """Ask for a range, as soon as the connection stands.

        Args:
            assignment: The range.
            sink: Takes its bytes.
            exchange: What is said to a peer and expected of it; None for an origin.

        Raises:
            RangeFailedError, StaleConnectionError: as `advance`.
        """
        self.assignment = assignment
        self._sink = sink
        self._exchange = exchange
        self._expected = Expected(
            assignment.offset, assignment.length, assignment.validator, assignment.total_bytes
        )
        self._head = HeadReader()
        request = exchange.request if exchange else assignment.request.encode("latin-1")
        self._unsent = memoryview(request)
        if self.is_ready:
            self._ask()

    def advance(self) -> Done | None:
        """Handle readiness; returns the range when it is done.

        Raises:
            RangeFailedError: the range failed; `is_open` says whether the connection lives on.
            StaleConnectionError: see there.
        """
        try:
            return self._step()
        except MalformedHeadError as e:
            self.close()
            raise RangeFailedError(FailureKind.MISBEHAVED, str(e)) from e
        except RangeFailedError:
            raise
        except OSError as e:
            raise self._broken(e) from e

    def finish(self) -> None:
        """Let go of the range that ended."""
        self._sink.close()
        self.assignment = None
        self._n_served += 1
        if self.is_open:
            self._await_idle()

    def pause(self) -> None:
        """Read and write nothing until the poller resumes: who sends has to wait then."""
        self._poller.pause(self._transport.fileno())

    def close(self) -> None:
        """Idempotent. Bytes still under way are lost."""
        if self.is_open:
            self.is_open = False
            self._poller.forget(self._transport.fileno())
            self._transport.close()

    # Connecting

    def _connect_next(self, reason: str) -> None:
        while self._addresses:
            address = self._addresses.pop(0)
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            raw = socket.socket(family, socket.SOCK_STREAM)
            raw.settimeout(0.0)
            code = raw.connect_ex((address, self._port))
            if code in {0, errno.EINPROGRESS}:
                self._raw = raw
                self._transport: Transport = PlainTransport(raw)
                self._step = self._finish_connect
                self._poller.watch(raw.fileno(), self, for_write=True)
                return
            reason = f"{address}: {os.strerror(code)}"
            raw.close()
        self.is_open = False
        raise RangeFailedError(
            FailureKind.UNAVAILABLE, f"cannot connect to {self._where}: {reason}"
        )

    def _finish_connect(self) -> None:
        raw = self._raw
        self._poller.forget(raw.fileno())
        code = raw.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raw.close()
            self._connect_next(os.strerror(code))
            return
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._transport = self._open_transport(raw)
        self._step = self._shake_hands
        self._shake_hands()

    def _shake_hands(self) -> None:
        try:
            wants = self._transport.handshake()
        except RangeFailedError:
            self.close()
            raise
        if wants is not None:
            self._poller.watch(self._transport.fileno(), self, for_write=wants == "write")
            return
        self.is_ready = True
        if self.assignment is None:
            self._await_idle()
        else:
            self._ask()

    # Asking

    def _ask(self) -> None:
        self.began_at = self._clock()
        self._step = self._send
        try:
            self._send()
        except OSError as e:
            raise self._broken(e) from e

    def _send(self) -> None:
        sent = self._transport.send(self._unsent)
        if sent != WOULD_BLOCK:
            self._unsent = self._unsent[sent:]
        if not self._unsent:
            self._step = self._read_head
        self._poller.watch(self._transport.fileno(), self, for_write=bool(self._unsent))

    # Receiving

    def _read_head(self) -> Done | None:
        n_bytes = self._transport.receive(self._buffer)
        if n_bytes == WOULD_BLOCK:
            return None
        if n_bytes == 0:
            raise ConnectionResetError("closed before the answer")
        found = self._head.feed(self._buffer[:n_bytes])
        if found is None:
            return None
        self._answer, n_body = found
        body = self._buffer[n_bytes - n_body : n_bytes]
        accepted = self._check(self._answer)
        if accepted is None:
            self._error_body = b""
            self._step = self._read_error
            self._take_error(body)
            return None
        self._accepted = accepted
        self._step = self._read_body
        return self._take_body(body)

    def _check(self, head: Head) -> Accepted | None:
        try:
            if self._exchange is not None:
                return self._exchange.check_head(self._expected, head)
            return check_head(self._expected, head)
        except RangeFailedError:
            self.close()  # a body that nobody wants is on its way
            raise

    def _read_body(self) -> Done | None:
        remaining = self._sink.remaining
        at = self._sink.position % PAGE_BYTES
        n_bytes = self._transport.receive(self._buffer[at : at + remaining])
        if n_bytes == WOULD_BLOCK:
            return None
        if n_bytes == 0:
            length = self._expected.length
            raise ConnectionResetError(f"broke off after {length - remaining} of {length} bytes")
        return self._take_body(self._buffer[at : at + n_bytes])

    def _take_body(self, body: memoryview) -> Done | None:
        sink, assignment = self._sink, self.assignment
        assert assignment is not None
        if len(body) > sink.remaining:
            self.close()
            raise RangeFailedError(FailureKind.MISBEHAVED, "sent more bytes than it announced")
        if body:
            self.received += len(body)
            self._write(body)
        if sink.remaining:
            return None
        if not self._answer.keeps_alive:
            self.close()
        if self._exchange is not None:
            self._exchange.check_body(sink.crc32c)
        return Done(
            assignment.id,
            sink.crc32c,
            sink.crc64nvme,
            self._accepted.validator,
            self._accepted.total_bytes,
            self._clock() - self.began_at,
        )

    def _write(self, body: memoryview) -> None:
        try:
            self._sink.take(body)
        except RangeFailedError:
            self.close()  # the rest of the body has nowhere to go
            raise

    def _read_error(self) -> None:
        n_bytes = self._transport.receive(self._buffer)
        if n_bytes == 0:
            self.close()
            raise self._judge_error()
        if n_bytes != WOULD_BLOCK:
            self._take_error(self._buffer[:n_bytes])

    def _take_error(self, body: memoryview) -> None:
        """Collect an error's body; judge it when it is whole or long enough."""
        self._error_body += body
        length = self._answer.content_length
        if length is None or length > MAX_DRAINED_BYTES:
            is_enough = len(self._error_body) >= MAX_ERROR_BODY_BYTES
            if not is_enough and not self._error_body.endswith(_LAST_CHUNK):
                return
            self.close()
        elif len(self._error_body) < length:
            return
        elif len(self._error_body) > length or not self._answer.keeps_alive:
            self.close()
        raise self._judge_error()

    def _judge_error(self) -> RangeFailedError:
        body = self._error_body[:MAX_ERROR_BODY_BYTES]
        if self._exchange is not None:
            return self._exchange.judge_error(self._answer, body)
        return judge_error(self._expected, self._answer, body)

    # Idling, and the end

    def _await_idle(self) -> None:
        self._step = self._notice_end
        self._poller.watch(self._transport.fileno(), self, for_write=False)

    def _notice_end(self) -> None:
        """An idle connection became readable: it was closed, or speaks out of turn."""
        self.close()

    @property
    def _where(self) -> str:
        return f"{self.pool[1]}:{self.pool[2]}"

    def _broken(self, error: OSError) -> Exception:
        """What an error of the connection means for its range."""
        is_unanswered = self._step in {self._send, self._read_head} and not self._head.has_begun
        was_ready = self.is_ready
        self.close()
        if is_unanswered and self._n_served:
            return StaleConnectionError()
        what = "connection to" if was_ready else "handshake with"
        return RangeFailedError(FailureKind.UNAVAILABLE, f"{what} {self._where} failed: {error}")
