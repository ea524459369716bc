"""Serves one mount: from the kernel's requests to answers, until it is unmounted.

One thread, which never waits for anything but all of its sources at once: the device, the agent,
the keeper, the process that watches over it.

Guarantees:
- a READ is answered with bytes that the journal calls present, never with others;
- it is refused with EIO only when the agent says that what is absent is gone for good, or when the
  disk cannot read what is present; for everything else it waits;
- whatever this process had taken from the kernel when it is killed, its successor answers: by the
  kernel sending it again, or by the ledger.
"""

import errno
import logging
import os
import select
import stat
import time
from collections.abc import Callable, Sequence
from enum import Enum, auto
from pathlib import Path

from modelcache_api.file_access import BlobGone, BlobHandedOver
from modelcache_csi.fuse import decoding, fd_passing, protocol
from modelcache_csi.fuse.about import MountAbout
from modelcache_csi.fuse.agent_link import AgentLink
from modelcache_csi.fuse.answering import (
    Agreed,
    Answer,
    Answerer,
    GiveUp,
    OpenBacking,
    Outcome,
    ReadBytes,
    passthrough_open,
    plain_open,
)
from modelcache_csi.fuse.blobs import MAX_OPEN, OpenBlobs, chunks_of
from modelcache_csi.fuse.device import Device, UnmountedError
from modelcache_csi.fuse.keeper_client import KeptMount
from modelcache_csi.fuse.ledger import NO_BACKING, SERVER, Ledger
from modelcache_csi.fuse.negotiation import features_of
from modelcache_csi.fuse.protocol import Opcode
from modelcache_csi.fuse.tree import Tree
from modelcache_csi.fuse.waiting import Waiting, WaitingReads

#: Between two looks at the journals while a READ waits. Arbitrary: far below the time that a chunk
#: takes to come, and a look costs microseconds.
LOOK_S = 0.005
#: Between two looks when nobody waits: at what became complete, at an agent that is away. Also
#: how often a sign of life is given. Arbitrary.
IDLE_LOOK_S = 0.5
#: Requests answered before the other sources are looked at. Arbitrary.
_BATCH = 64

log = logging.getLogger(__name__)


class Ended(Enum):
    """Why `serve` returned."""

    UNMOUNTED = auto()
    ORPHANED = auto()


class Server:
    """One mount's server. Forked processes go on with their copy.

    Mutable state, beside that of its parts: `_completed`, blobs of which the kernel has to be told;
    `_notifiers`, processes that tell it; `_unasked`, blobs that this agent was not asked for yet;
    `_next_look_s`.
    """

    def __init__(
        self,
        device: Device,
        ledger: Ledger,
        about: MountAbout,
        blobs: OpenBlobs,
        *,
        agent_socket: Path,
        kept: KeptMount,
    ) -> None:
        self._device = device
        self._ledger = ledger
        self._tree = Tree(about.manifest, mtime_s=about.mtime_s)
        self._blobs = blobs
        self._answerer = Answerer(self._tree, about.allowed, is_complete=blobs.is_complete)
        self._agent = AgentLink(agent_socket, about.manifest.revision, clock=time.monotonic)
        self._kept = kept
        self._waiting = WaitingReads()
        self._completed: set[int] = set()
        self._notifiers: set[int] = set()
        self._unasked: list[int] = []
        self._next_look_s = float("-inf")
        self.on_handed_over: Callable[[int, list[int]], None] = lambda *_: None
        blobs.on_complete = self._completed.add

    def size_of(self, blob_index: int) -> int:
        return self._tree.blobs[blob_index].size_bytes

    def succeed(self, *, is_successor: bool) -> None:
        """Begin to serve, when nobody else does any more.

        With `is_successor` what a dead predecessor left is taken up; otherwise this process is
        the predecessor's fork, and knows it all.
        """
        self._ledger.take(SERVER, wait=True)
        self._notifiers.clear()  # whose children they are, they are not ours
        if not is_successor:
            return
        self._waiting = WaitingReads()
        self._ledger.recount()
        pending = self._ledger.pending()
        agreed = self._ledger.agreed
        if agreed is not None:
            self._answerer.features = features_of(agreed[1])
        try:
            if agreed is None or not self._answerer.features.resend:
                self._succeed_by_ledger(pending)
            else:
                self._ledger.forget_requests()
                if pending is not None and _is_init(pending):
                    self._do(pending)
                self._device.write(protocol.pack_resend())
        except UnmountedError:
            log.info("unmounted meanwhile")

    def _succeed_by_ledger(self, pending: bytes | None) -> None:
        for slot, raw in list(self._ledger.kept()):
            outcome = self._answerer.handle(decoding.parse(raw))
            if isinstance(outcome, ReadBytes):
                self._waiting.add(Waiting(outcome, slot))
        if pending is not None:
            self._do(pending)
            self._ledger.empty_inbox()

    def serve(self, parent_fd: int) -> Ended:
        """Until the mount is gone, or the process of that pidfd is."""
        try:
            while True:
                self._look()
                sources = self._sources(parent_fd)
                for fd, _ in sources.poll(self._timeout_ms()):
                    if fd == parent_fd:
                        return Ended.ORPHANED
                    self._attend(fd)
                self._answer_waiting()
        except UnmountedError:
            return Ended.UNMOUNTED

    # -- what comes in

    def _sources(self, parent_fd: int) -> "select.poll":
        sources = select.poll()
        for fd in (parent_fd, self._agent.fileno(), self._kept.fileno()):
            if fd is not None:
                sources.register(fd, select.POLLIN)
        # Without room for another READ the kernel keeps its requests; an abort shows all the same.
        sources.register(self._device.fd, select.POLLIN if self._ledger.has_room else 0)
        return sources

    def _timeout_ms(self) -> int:
        return int(1000 * (LOOK_S if self._waiting else IDLE_LOOK_S))

    def _attend(self, fd: int) -> None:
        if fd == self._device.fd:
            self._serve_kernel()
        elif fd == self._agent.fileno():
            self._hear_agent()
        elif fd == self._kept.fileno():
            self._kept.lost()
            self._next_look_s = float("-inf")

    def _serve_kernel(self) -> None:
        inbox = self._ledger.inbox
        for _ in range(_BATCH):
            n_bytes = self._device.read_into(inbox)
            if n_bytes is None:
                return
            self._do(inbox[:n_bytes])
            self._ledger.empty_inbox()
            if not self._ledger.has_room:
                return

    def _do(self, raw: memoryview | bytes) -> None:
        try:
            request = decoding.parse(raw)
        except decoding.MalformedRequestError as e:
            log.error("a request makes no sense: %s", e)  # noqa: TRY400  # no bug of ours
            if e.unique:
                self._device.write(protocol.refusal(e.unique, errno.EIO))
            return
        self._fulfil(self._answerer.handle(request), raw)

    def _fulfil(self, outcome: Outcome, raw: memoryview | bytes) -> None:
        if isinstance(outcome, ReadBytes):
            if not self._send_range(outcome):
                self._waiting.add(Waiting(outcome, self._ledger.keep(raw)))
                size_bytes = self.size_of(outcome.blob_index)
                self._ask_for(outcome, self._waiting.wanted(outcome, size_bytes))
        elif isinstance(outcome, Answer):
            self._device.write(outcome.raw)
        elif isinstance(outcome, OpenBacking):
            self._device.write(self._opened_backing(outcome))
        elif isinstance(outcome, GiveUp):
            self._refuse(outcome.unique, errno.EINTR)
        elif isinstance(outcome, Agreed):
            self._ledger.note_agreed(outcome.init.minor, outcome.init.flags)
            self._answerer.features = features_of(outcome.init.flags)
            missing = self._answerer.features.missing
            log.info("mounted", extra={"minor": outcome.init.minor, "without": missing})
            self._device.write(outcome.raw)

    # -- bytes

    def _send_range(self, read: ReadBytes) -> bool:
        """Answer a READ if its bytes are here; whether it is answered."""
        blob = self._blobs.get(read.blob_index)
        if blob is None or not blob.has(*chunks_of(read.offset, read.size)):
            return False
        try:
            return self._device.write_range(read.unique, blob.data_fd, read.offset, read.size)
        except OSError as e:
            log.error("the disk cannot be read: %s", e)  # noqa: TRY400  # no bug of ours
            self._device.write(protocol.refusal(read.unique, errno.EIO))
            return True

    def _answer_waiting(self) -> None:
        for one in self._waiting:
            if self._send_range(one.read):
                self._waiting.take(one.read.unique)
                self._ledger.drop(one.slot)

    def _refuse(self, unique: int, number: int) -> None:
        one = self._waiting.take(unique)
        if one is not None:
            self._device.write(protocol.refusal(unique, number))
            self._ledger.drop(one.slot)

    def _opened_backing(self, wish: OpenBacking) -> bytes:
        backing_id = self._ledger.backing_id(wish.blob_index)
        if not backing_id:
            backing_id = self._new_backing_id(wish.blob_index)
            # Before the answer: a successor must use this id for as long as a file is open by it.
            self._ledger.note_backing_id(wish.blob_index, backing_id)
        if backing_id == NO_BACKING:
            return plain_open(wish.unique)
        return passthrough_open(wish.unique, backing_id)

    def _new_backing_id(self, blob_index: int) -> int:
        blob = self._blobs.get(blob_index)
        if blob is None:
            return NO_BACKING
        try:
            return self._device.open_backing(blob.data_fd)
        except OSError as e:
            log.warning("the kernel does not read a file for us: %s", e)
            return NO_BACKING

    # -- the agent, the keeper, and what became complete

    def _look(self) -> None:
        now_s = time.monotonic()
        if now_s < self._next_look_s:
            return
        self._ledger.note_seen(time.monotonic_ns())
        has_keeper = self._kept.ensure()
        if self._agent.reach():
            self._unasked = list(range(len(self._tree.blobs)))[:MAX_OPEN]
        is_away = self._agent.fileno() is None
        self._next_look_s = now_s + (LOOK_S * 4 if is_away or not has_keeper else IDLE_LOOK_S)
        self._repeat_wishes()
        self._blobs.look()
        self._tell_kernel()

    def _repeat_wishes(self) -> None:
        while self._unasked:
            index = self._unasked[-1]
            # An agent that is new here may know better of what is not complete, too.
            if not (self._is_sealed(index) or self._agent.open(self._tree.blobs[index].key)):
                break
            self._unasked.pop()
        for one in self._waiting:
            first, last = chunks_of(one.read.offset, one.read.size)
            self._ask_for(one.read, range(first, last + 1))

    def _is_sealed(self, blob_index: int) -> bool:
        blob = self._blobs.get(blob_index)
        return blob is not None and blob.is_sealed

    def _ask_for(self, read: ReadBytes, chunks: Sequence[int]) -> None:
        blob = self._tree.blobs[read.blob_index]
        if self._blobs.get(read.blob_index) is None:
            self._agent.open(blob.key)
        self._agent.want(blob.key, chunks)

    def _hear_agent(self) -> None:
        for message, fds in self._agent.receive():
            index = self._tree.index_of(message.blob)
            if index is None or not all(map(_is_plain, fds)):
                fd_passing.close_all(fds)
            elif isinstance(message, BlobHandedOver):
                self.on_handed_over(index, fds)
                self._blobs.adopt(index, fds[0], fds[1], self.size_of(index))
            elif isinstance(message, BlobGone):
                self._gone(index, message)

    def _gone(self, blob_index: int, why: BlobGone) -> None:
        for one in self._waiting:
            if one.read.blob_index == blob_index and not self._send_range(one.read):
                log.error("a read fails: %s", why.message, extra={"reason": why.reason.value})
                self._refuse(one.read.unique, errno.EIO)

    def _tell_kernel(self) -> None:
        """Have names of complete files looked up again, so that they get their other node.

        By a process of its own: the kernel may hold the directory's lock for a look-up that waits
        for us, and whoever tells it waits for that lock.
        """
        self._notifiers = {pid for pid in self._notifiers if os.waitpid(pid, os.WNOHANG)[0] == 0}
        if not self._completed or not self._answerer.features.passthrough:
            self._completed.clear()
            return
        names = [one for index in self._completed for one in self._tree.names_of(index)]
        self._completed.clear()
        pid = os.fork()
        if pid:
            self._notifiers.add(pid)
            return
        for parent, name in names:
            try:
                self._device.write(protocol.pack_inval_entry(parent, name))
            except UnmountedError:
                break
        os._exit(0)


def _is_plain(fd: int) -> bool:
    """The unprivileged agent must not lead us to a pipe or a device."""
    return stat.S_ISREG(os.fstat(fd).st_mode)


def _is_init(raw: bytes) -> bool:
    try:
        return decoding.parse(raw).opcode == Opcode.INIT
    except decoding.MalformedRequestError:
        return False
