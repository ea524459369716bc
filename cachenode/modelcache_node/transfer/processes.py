"""One worker process, seen from its parent: start, messages, end.

Guarantees:
- a packet is sent whole and in order; those that do not fit are kept: as many as their sender has
  ranges or answers under way;
- `on_end` is called once, after the last message, and then the process is reaped;
- nothing but a few named variables of our environment reaches a worker.
"""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence

from modelcache_node.transfer.wire import MAX_PACKET_BYTES

#: What a worker needs of our environment; credentials, for one, it does not.
_ENVIRONMENT = frozenset({
    "PATH", "LANG", "LC_ALL", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "SSL_CERT_FILE",
    "SSL_CERT_DIR", "OPENSSL_CONF", "COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG",
})  # fmt: skip
#: A worker that has not ended by then waits for a disk that may never answer. Arbitrary.
_STOP_S = 5.0


class WorkerProcess:
    """See the module. Belongs to one event loop."""

    def __init__(
        self,
        module: str,
        options: object,
        *,
        on_packet: Callable[["WorkerProcess", bytes], None],
        on_end: Callable[["WorkerProcess"], None],
        inherited: Sequence[int] = (),
    ) -> None:
        """Start ``python -m MODULE FD PARENT_PID OPTIONS``; returns before it is up.

        Args:
            module: What it runs; it ends when its socket FD does.
            options: Its settings, without secrets, for JSON.
            on_packet: Called with each packet from it.
            on_end: See the module.
            inherited: File descriptors that keep their numbers there.
        """
        self._on_packet = on_packet
        self._on_end = on_end
        self._backlog: deque[tuple[bytes, int | None]] = deque()
        self._loop = asyncio.get_running_loop()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(0.0)
        with theirs:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    module,
                    str(theirs.fileno()),
                    str(os.getpid()),
                    json.dumps(options),
                ],
                pass_fds=[theirs.fileno(), *inherited],
                stdin=subprocess.DEVNULL,
                env={name: value for name, value in os.environ.items() if name in _ENVIRONMENT},
            )
        self._ended = asyncio.Event()
        self._loop.add_reader(self._socket, self._read)

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, packet: bytes, fd: int | None = None) -> None:
        """Send a packet, and with it a file descriptor, which is closed here afterwards."""
        if self._ended.is_set():
            _close(fd)
            return
        self._backlog.append((packet, fd))
        self._flush()

    def send_file(self, packet: bytes, content: bytes) -> None:
        """Send a packet, and `content` in a file without a name."""
        fd = os.memfd_create("content", os.MFD_CLOEXEC)
        with open(fd, "wb", closefd=False) as opened:
            opened.write(content)
        self.send(packet, fd)

    async def stop(self) -> None:
        """End it and wait until it is gone."""
        if not self._ended.is_set():
            self._socket.shutdown(socket.SHUT_WR)  # it reads this as the end, and ends
        try:
            await asyncio.wait_for(self._ended.wait(), _STOP_S)
        except TimeoutError:
            self._process.kill()
            await self._ended.wait()
        await asyncio.to_thread(self._process.wait)

    def _flush(self) -> None:
        while self._backlog:
            packet, fd = self._backlog[0]
            try:
                socket.send_fds(self._socket, [packet], [] if fd is None else [fd])
            except BlockingIOError:
                self._loop.add_writer(self._socket, self._flush)
                return
            except OSError:  # it died; reading its end tells so
                break
            self._backlog.popleft()
            _close(fd)
        self._loop.remove_writer(self._socket)

    def _read(self) -> None:
        try:
            packet = self._socket.recv(MAX_PACKET_BYTES)
        except BlockingIOError:
            return
        except OSError:
            packet = b""
        if packet:
            self._on_packet(self, packet)
            return
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        for _, fd in self._backlog:
            _close(fd)
        self._backlog.clear()
        self._ended.set()
        self._on_end(self)


def _close(fd: int | None) -> None:
    if fd is not None:
        os.close(fd)
