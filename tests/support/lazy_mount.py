"""A lazy mount made by hand: real kernel, real server, real keeper, and an agent in the test.

The agent's side of file access is played by `HandingAgent`, whose blobs the test fills.
"""

import os
import random
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from uuid import UUID

from modelcache_api import file_access
from modelcache_api.chunks import (
    CHUNK_BYTES,
    ChunkRecord,
    JournalHeader,
    chunk_range,
    pack_header,
    pack_record,
    record_offset,
)
from modelcache_api.file_access import BlobGone, BlobHandedOver, Greeting, OpenBlob, WantChunks
from modelcache_api.manifest import File, Manifest
from modelcache_api.reasons import Reason
from modelcache_csi import mount_syscalls
from modelcache_csi.fuse import fd_passing, ledger, mounting
from modelcache_csi.fuse.about import MountAbout
from modelcache_csi.fuse.blobs import this_boot
from modelcache_csi.fuse.keeper_client import KeeperClient
from modelcache_csi.fuse.ledger import Ledger
from modelcache_csi.fuse.negotiation import Features
from support.agent_process import until
from support.mount_namespace import detach, mounts_at

#: For what takes milliseconds when all is well. Arbitrary.
PATIENCE_S = 20.0


class GrowingBlob:
    """A blob on disk whose chunks come when a test says so."""

    def __init__(self, folder: Path, content: bytes, boot_id: UUID | None = None) -> None:
        folder.mkdir(parents=True)
        self.content = content
        self.data, self.journal = folder / "data", folder / "chunks"
        with self.data.open("wb") as file:
            file.truncate(len(content))
        header = JournalHeader(len(content), is_sealed=False, boot_id=boot_id or this_boot())
        self._header = header
        self.journal.write_bytes(pack_header(header).ljust(header.journal_bytes, b"\0"))

    @property
    def size_bytes(self) -> int:
        return self._header.size_bytes

    @property
    def n_chunks(self) -> int:
        return self._header.n_chunks

    def land(self, *indexes: int) -> None:
        """Chunks come: bytes first, then the journal."""
        for index in indexes:
            offset, length = chunk_range(index, len(self.content))
            _write_at(self.data, self.content[offset : offset + length], offset)
            _write_at(self.journal, pack_record(ChunkRecord(True)), record_offset(index))

    def seal(self) -> None:
        self.land(*range(self.n_chunks))
        header = JournalHeader(len(self.content), is_sealed=True, boot_id=self._header.boot_id)
        _write_at(self.journal, pack_header(header), 0)


def _write_at(path: Path, raw: bytes, offset: int) -> None:
    fd = os.open(path, os.O_WRONLY)
    try:
        os.pwrite(fd, raw, offset)
    finally:
        os.close(fd)


class HandingAgent:
    """The agent's side of file access, in a thread; may be stopped and started again.

    `on_want(blob, chunks)` is called, in that thread, for each wish.
    """

    def __init__(self, path: Path, blobs: dict[str, GrowingBlob]) -> None:
        self.path = path
        self.blobs = blobs
        self.gone: dict[str, BlobGone] = {}
        self.wants: list[WantChunks] = []
        self.on_want: Callable[[str, tuple[int, ...]], None] = lambda *_: None
        self.wanted = threading.Event()
        self._thread: threading.Thread | None = None
        self._stop_fd = -1

    def start(self) -> None:
        self.path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(str(self.path))
        listener.listen(8)
        reader, self._stop_fd = os.pipe()
        self._thread = threading.Thread(target=self._serve, args=(listener, reader))
        self._thread.start()

    def stop(self) -> None:
        if self._thread:
            os.close(self._stop_fd)
            self._thread.join(PATIENCE_S)
            self._thread = None

    def _serve(self, listener: socket.socket, stop: int) -> None:
        clients: dict[int, socket.socket] = {}
        poll = select.poll()
        poll.register(listener, select.POLLIN)
        poll.register(stop, select.POLLIN)
        with listener, ExitStack() as closing:
            closing.callback(os.close, stop)
            while True:
                for fd, _ in poll.poll():
                    if fd == stop:
                        for client in clients.values():
                            client.close()
                        return
                    if fd == listener.fileno():
                        client, _ = listener.accept()
                        clients[client.fileno()] = client
                        poll.register(client, select.POLLIN)
                    elif not self._attend(clients[fd]):
                        poll.unregister(fd)
                        clients.pop(fd).close()

    def _attend(self, client: socket.socket) -> bool:
        with suppress(OSError):
            raw, _ = fd_passing.receive(client, file_access.MAX_DATAGRAM_BYTES)
            if raw:
                self._answer(client, file_access.parse_from_server(raw))
                return True
        return False

    def _answer(self, client: socket.socket, message: file_access.FromServer) -> None:
        if isinstance(message, Greeting):
            return
        blob = self.blobs.get(message.blob)
        if isinstance(message, WantChunks):
            self.wants.append(message)
            self.wanted.set()
            if message.blob in self.gone:
                fd_passing.send(client, file_access.pack(self.gone[message.blob]))
            self.on_want(message.blob, message.chunks)
        elif isinstance(message, OpenBlob) and blob is not None:
            fds = [os.open(path, os.O_RDONLY) for path in (blob.data, blob.journal)]
            fd_passing.send(client, file_access.pack(BlobHandedOver(message.blob)), fds)
            fd_passing.close_all(fds)

    def lose(self, key: str) -> None:
        """The source of a blob is gone for good."""
        self.gone[key] = BlobGone(key, Reason.SOURCE_CHANGED, "the object was replaced")


class KeeperProcess:
    """A keeper; may be killed and started again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def pid(self) -> int:
        return self._processes[-1].pid

    def start(self) -> None:
        keeper = Path(mounting.__file__).with_name("keeper.py")
        self._processes.append(
            subprocess.Popen(
                [sys.executable, "-I", "-S", str(keeper), "--socket", str(self.path)],
                stderr=subprocess.PIPE,
            )
        )
        self.await_serving()

    def await_serving(self) -> None:
        """Until it says so, once more."""
        stderr = self._processes[-1].stderr
        assert stderr
        while b'"serving"' not in (line := stderr.readline()):
            assert line, "the keeper ended"

    def kill(self) -> None:
        process = self._processes[-1]
        process.kill()
        process.wait()

    def stop(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
            assert process.stderr
            process.stderr.close()

    def holds(self, name: str) -> bool:
        with KeeperClient(self.path) as client:
            return name in list(client.names())


class LazyMount:
    """A mount and its processes. `point` is where it is."""

    def __init__(
        self,
        root: Path,
        blobs: Mapping[str, GrowingBlob],
        *,
        features: Features | None = None,
        name: str = "mount-1",
        manifest: Manifest | None = None,
    ) -> None:
        """`manifest` None: a plain one, of `blobs` by path."""
        self.name = name
        self.root = root
        self.blobs = dict(blobs)
        self.manifest = manifest or Manifest.of(
            File(path, blob.size_bytes, f"{i + 1:064x}")
            for i, (path, blob) in enumerate(blobs.items())
        )
        self.keys = {file.path: file.blob for file in self.manifest.files}
        self.agent = HandingAgent(
            root / "files.sock", {self.keys[path]: blob for path, blob in self.blobs.items()}
        )
        self.keeper = KeeperProcess(root / "keeper.sock")
        self.point = root / "mnt"
        self._about = MountAbout(name, self.manifest, 1_700_000_000, features or Features())
        self._fds: tuple[int, int, int] = (-1, -1, -1)
        self.log = root / "server.log"

    def mount(self) -> None:
        self.point.mkdir()
        about_fd = self._about.write()
        device_fd = mounting.open_device()
        ledger_fd = ledger.create(len(self.manifest.blobs), now_ns=time.monotonic_ns())
        self._fds = (device_fd, ledger_fd, about_fd)
        mount_fd = mounting.detached_mount(device_fd, self.manifest.revision)
        self.start_program()
        point_fd = os.open(self.point, os.O_PATH | os.O_DIRECTORY)
        mount_syscalls.attach(mount_fd, point_fd)
        os.close(point_fd)
        os.close(mount_fd)
        mounting.read_far_ahead(self.device_number)

    def start_program(self) -> None:
        device_fd, ledger_fd, about_fd = self._fds
        with self.log.open("ab") as log:
            subprocess.run(
                [
                    *(sys.executable, "-m", "modelcache_csi.fuse.serving"),
                    *("--device", str(device_fd), "--ledger", str(ledger_fd)),
                    *("--about", str(about_fd), "--agent-socket", str(self.agent.path)),
                    *("--keeper-socket", str(self.keeper.path)),
                ],
                pass_fds=self._fds,
                stderr=log,
                check=True,
            )

    def drop_own_descriptors(self) -> None:
        """From here on only the keeper has the mount, and its processes if there are any."""
        for fd in self._fds:
            os.close(fd)
        self._fds = (-1, -1, -1)

    def restore_descriptors(self) -> None:
        with KeeperClient(self.keeper.path) as client:
            fds = client.get(self.name)
        assert fds
        assert len(fds) == 3
        self._fds = (fds[0], fds[1], fds[2])

    @property
    def server_pid(self) -> int | None:
        return ledger.holder_pid(self._fds[1], ledger.SERVER)

    @property
    def watcher_pid(self) -> int | None:
        return ledger.holder_pid(self._fds[1], ledger.WATCHER)

    def backing_id(self, path: Path) -> int:
        """Of a file that is opened for it; 0 while it is read through the server."""
        path.open("rb").close()
        return Ledger(self._fds[1]).backing_id(0)

    @property
    def device_number(self) -> str:
        return mounts_at(self.point)[-1].device

    def close(self) -> None:
        if mounts_at(self.point):
            mounting.abort(self.device_number)  # whoever a failed test left waiting
            detach(self.point)
        self.agent.stop()
        self.keeper.stop()
        if self._fds[1] >= 0:
            until(lambda: self.watcher_pid is None, "the end of the mount's processes")
        for fd in self._fds:
            if fd >= 0:
                os.close(fd)


@contextmanager
def lazy_mount(
    root: Path,
    contents: dict[str, bytes],
    *,
    features: Features | None = None,
    manifest: Manifest | None = None,
) -> Iterator[LazyMount]:
    """Mounted, with keeper and agent; nothing of it is there yet."""
    blobs = {
        path: GrowingBlob(root / "blobs" / path.replace("/", "_"), data)
        for path, data in contents.items()
    }
    with mounted(LazyMount(root, blobs, features=features, manifest=manifest)) as mount:
        yield mount


@contextmanager
def mounted(mount: LazyMount) -> Iterator[LazyMount]:
    """Inside the block it is, with its keeper and agent."""
    try:
        mount.keeper.start()
        mount.agent.start()
        mount.mount()
        until(lambda: mount.keeper.holds(mount.name), "the mount at the keeper")
        yield mount
    finally:
        mount.close()


def pattern(n_bytes: int, seed: int = 0) -> bytes:
    """Bytes that differ from block to block, and from seed to seed; made fast."""
    block = random.Random(seed).randbytes(65_521)  # a prime: no chunk begins like another
    return (block * (n_bytes // len(block) + 1))[:n_bytes]


__all__ = ["CHUNK_BYTES", "GrowingBlob", "HandingAgent", "KeeperProcess", "LazyMount", "lazy_mount"]
