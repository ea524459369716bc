"""One connection of a peer that asks: read requests, write answers, driven by readiness.

It never blocks, holds at most a request and an answer's head in memory, and closes in any case what
an answer had open. What to answer is its owner's decision (`on_request`).
"""

import os
from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

from modelcache_api.units import KIB, MIB
from modelcache_node.peers.requests import PeerRequest, RequestReader
from modelcache_node.peers.transports import UploadTransport
from modelcache_node.peers.turns import Turns
from modelcache_node.transfer.http1 import MalformedHeadError
from modelcache_node.transfer.pacing import RateLimit
from modelcache_node.transfer.polling import Poller
from modelcache_node.transfer.transports import WOULD_BLOCK

#: Bytes handed to the kernel at once: connections take turns after each. Arbitrary.
PIECE_BYTES = 4 * MIB
#: The same under an upload limit, so that bytes leave evenly. Arbitrary.
LIMITED_PIECE_BYTES = 128 * KIB
#: Of a body that takes its turn, so much of it may wait in the socket; turns mean little with more,
#: and with less a fast link waits for this process. From `benchmarks/peer.py`.
WAITING_SHARE = 32
MIN_WAITING_BYTES = 64 * KIB


class State(Enum):
    """What a connection waits for."""

    HANDSHAKE = "handshake"
    REQUEST = "request"
    OWNER = "owner"  # to answer
    SENDING = "sending"
    CLOSED = "closed"


class FileSlice(NamedTuple):
    """A body: part of an open file, which is closed after it.

    `on_end` is called then, with the number of bytes that were not sent. One that `takes_turn` is
    sent when it is its turn; others at once.
    """

    fd: int
    offset: int
    length: int
    on_end: Callable[[int], None] | None = None
    takes_turn: bool = False


class PeerConnection:
    """See the module. Used by one thread; `close` it in any case.

    Attributes:
        state: What it waits for.
        is_known: A request of this cluster came over it.
        is_paused: It would send, and its turn or the upload limit does not allow it yet.
        changed_at: When `state` last changed, or a request began to come.
        sent: Bytes of bodies, of all answers so far.
    """

    def __init__(
        self,
        transport: UploadTransport,
        *,
        poller: Poller,
        buffer: memoryview,
        rate: RateLimit | None,
        turns: Turns,
        clock: Callable[[], float],
        on_request: Callable[["PeerConnection", PeerRequest], None],
    ) -> None:
        """Take over an accepted one; all share `turns`, and `rate`, which is None without one."""
        self.state = State.HANDSHAKE
        self.is_known = False
        self.is_paused = False
        self.changed_at = clock()
        self.sent = 0
        self._transport = transport
        self._poller = poller
        self._buffer = buffer
        self._rate = rate
        self._turns = turns
        self._clock = clock
        self._on_request = on_request
        self._reader = RequestReader()
        self._head = memoryview(b"")
        self._body: FileSlice | None = None
        self._closes_after = False

    @property
    def is_open(self) -> bool:
        return self.state is not State.CLOSED

    @property
    def is_reading(self) -> bool:
        """Part of a request came, and the rest is due."""
        return self.state is State.REQUEST and self._reader.has_begun

    def advance(self) -> None:
        """Handle readiness, or go on after a pause."""
        try:
            try:
                self._step()
            except MalformedHeadError as e:
                if self.state is not State.REQUEST:
                    raise ConnectionError("it speaks out of turn") from e
                self.answer(_plain(400, str(e)), closes=True)
        except OSError:
            self.close()

    def _step(self) -> None:
        if self.state is State.HANDSHAKE:
            self._shake_hands()
        elif self.state is State.SENDING:
            self._write()
        elif self.is_open:
            self._read()
        self._serve()

    def wait_for_owner(self) -> None:
        """The answer comes later; the peer's end is noticed meanwhile."""
        self._enter(State.OWNER)

    def answer(self, head: bytes, body: FileSlice | None = None, *, closes: bool = False) -> None:
        """Send an answer, whose body is closed in any case."""
        if not self.is_open:
            _end(body)
            return
        self._head = memoryview(head)
        self._body = body
        self._closes_after |= closes
        if body is not None and body.takes_turn:
            self._transport.let_wait(max(body.length // WAITING_SHARE, MIN_WAITING_BYTES))
        self._enter(State.SENDING)
        self._write()

    def answer_late(self, head: bytes, body: FileSlice | None = None) -> None:
        """`answer`, outside of `advance`."""
        try:
            self.answer(head, body)
            self._serve()
        except OSError:
            self.close()

    def close(self) -> None:
        """Idempotent. What was being sent is cut off."""
        if self.is_open:
            self._poller.forget(self._transport.fileno())
            self._transport.close()
            self._enter(State.CLOSED)
            self._drop_body()

    def _shake_hands(self) -> None:
        wants = self._transport.handshake()
        if wants is None:
            self._enter(State.REQUEST)
            self._read()  # a request may have come with the handshake's end
        if self.is_open:
            self._watch(for_write=wants == "write")

    def _read(self) -> None:
        n_bytes = self._transport.receive(self._buffer)
        if n_bytes == WOULD_BLOCK:
            return
        if n_bytes == 0:
            self.close()
            return
        if self.state is State.REQUEST and not self._reader.has_begun:
            self.changed_at = self._clock()
        self._reader.feed(self._buffer[:n_bytes])

    def _serve(self) -> None:
        """Have the requests that came whole answered, one by one."""
        while self.state is State.REQUEST:
            request = self._reader.next_request()
            if request is None:
                self._watch(for_write=False)
                return
            self._closes_after = not request.keeps_alive
            self._on_request(self, request)

    def _write(self) -> None:
        if self._head:
            sent = self._transport.send(self._head)
            if sent != WOULD_BLOCK:
                self._head = self._head[sent:]
        if not self._head:
            self._write_body()
        if self.state is State.SENDING and not self.is_paused:
            self._watch(for_write=True)

    def _write_body(self) -> None:
        """One piece, so that other connections have their turn."""
        body = self._body
        if body is None or body.length == 0:
            self._finish()
            return
        if not self._may_send(body):
            self.is_paused = True
            self._poller.forget(self._transport.fileno())
            return
        self.is_paused = False
        piece_bytes = PIECE_BYTES if self._rate is None else LIMITED_PIECE_BYTES
        sent = self._transport.send_file(body.fd, body.offset, min(piece_bytes, body.length))
        if sent == WOULD_BLOCK:
            return
        if sent == 0:
            raise ConnectionError("the file is shorter than it was")
        if self._rate is not None:
            self._rate.take(sent)
        self.sent += sent
        self._body = body._replace(offset=body.offset + sent, length=body.length - sent)
        if self._body.length == 0:
            self._finish()

    def _may_send(self, body: FileSlice) -> bool:
        if self._rate is not None and self._rate.wait_s(self._clock()) > 0:
            return False
        return not body.takes_turn or self._turns.may_go_on(self)

    def _finish(self) -> None:
        self._drop_body()
        if self._closes_after:
            self.close()
        else:
            self._enter(State.REQUEST)

    def _drop_body(self) -> None:
        body, self._body = self._body, None
        if body is not None and body.takes_turn:
            self._turns.end(self, is_whole=body.length == 0)
        _end(body)

    def _watch(self, *, for_write: bool) -> None:
        self._poller.watch(self._transport.fileno(), self, for_write=for_write)

    def _enter(self, state: State) -> None:
        self.state = state
        self.is_paused = False
        self.changed_at = self._clock()


def _end(body: FileSlice | None) -> None:
    if body is not None:
        os.close(body.fd)
        if body.on_end is not None:
            body.on_end(body.length)


def _plain(status: int, text: str) -> bytes:
    body = f"{text}\n".encode("latin-1", "replace")
    head = f"HTTP/1.1 {status} Refused\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body
