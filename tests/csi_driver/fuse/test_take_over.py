"""Whoever serves a lazy mount may be killed at any time; readers never notice more than a pause."""

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelcache_api.chunks import CHUNK_BYTES
from modelcache_csi.fuse import mounting
from modelcache_csi.fuse.keeper_client import KeeperAwayError, KeeperClient
from modelcache_csi.fuse.negotiation import Features
from support.agent_process import until
from support.lazy_mount import KeeperProcess, LazyMount, lazy_mount, pattern
from support.mount_namespace import detach

pytestmark = pytest.mark.root

BIG = pattern(CHUNK_BYTES * 2 + 1_000_001)


@pytest.fixture(params=["newest", "older kernel"])
def mount(lazy_root, request: pytest.FixtureRequest) -> Iterator[LazyMount]:
    is_new = request.param == "newest"
    features = Features(passthrough=is_new, resend=is_new)
    with lazy_mount(lazy_root, {"a": BIG, "b": BIG[:5000]}, features=features) as made:
        made.blobs["a"].land(0)
        yield made


class Reader:
    """Reads one range in a thread, by O_DIRECT: each is one request of its own."""

    def __init__(self, mount: LazyMount, offset: int, size: int = 4096) -> None:
        self.expected = BIG[offset : offset + size]
        self.outcome: list[object] = []
        self._fd = os.open(mount.point / "a", os.O_RDONLY)
        self._thread = threading.Thread(target=self._read, args=(offset, size))
        self._thread.start()

    def _read(self, offset: int, size: int) -> None:
        try:
            self.outcome.append(os.pread(self._fd, size, offset))
        except OSError as e:
            self.outcome.append(errno.errorcode[e.errno or 0])

    def finish(self) -> None:
        self._thread.join(20)
        os.close(self._fd)
        assert self.outcome == [self.expected]


def killed(pid: int | None) -> None:
    assert pid
    os.kill(pid, signal.SIGKILL)


def replaced(mount: LazyMount, before: int | None) -> None:
    until(lambda: mount.server_pid not in (before, None), "another server")


def test_reads_that_wait_are_answered_by_whoever_succeeds_the_server(mount: LazyMount) -> None:
    readers = [Reader(mount, CHUNK_BYTES + i * (2 << 20)) for i in range(4)]
    until(lambda: len(mount.agent.wants) >= 4, "all four waiting")
    for _ in range(3):
        before = mount.server_pid
        killed(before)
        replaced(mount, before)
    mount.blobs["a"].land(1)
    for reader in readers:
        reader.finish()


def test_a_server_that_is_alone_watches_over_its_successor(mount: LazyMount) -> None:
    waiting = Reader(mount, CHUNK_BYTES)
    until(lambda: bool(mount.agent.wants), "a read that waits")
    watcher, server = mount.watcher_pid, mount.server_pid
    killed(watcher)
    until(lambda: mount.watcher_pid == server, "the server in its watcher's place")
    replaced(mount, server)
    killed(mount.server_pid)
    mount.blobs["a"].land(1)
    waiting.finish()
    Reader(mount, 4096 * 7).finish()


def test_a_mount_without_processes_is_served_by_whoever_comes(mount: LazyMount) -> None:
    waiting = Reader(mount, CHUNK_BYTES)
    until(lambda: bool(mount.agent.wants), "a read that waits")
    os.kill(mount.watcher_pid or 0, signal.SIGSTOP)
    killed(mount.server_pid)
    killed(mount.watcher_pid)
    until(lambda: mount.server_pid is None and mount.watcher_pid is None, "nobody")
    mount.drop_own_descriptors()
    mount.restore_descriptors()
    mount.start_program()
    mount.blobs["a"].land(1)
    waiting.finish()


def test_a_second_program_of_one_mount_leaves_at_once(mount: LazyMount) -> None:
    until(lambda: mount.watcher_pid is not None, "a watcher")
    before = mount.watcher_pid
    mount.start_program()
    Reader(mount, 4096).finish()
    assert mount.watcher_pid == before


def test_a_killed_keeper_gets_everything_back(mount: LazyMount) -> None:
    mount.keeper.kill()
    mount.keeper.start()
    until(lambda: mount.keeper.holds(mount.name), "the mount at the new keeper")
    Reader(mount, 4096).finish()


def test_a_keeper_hands_over_to_the_next_one(mount: LazyMount) -> None:
    killed_soon = mount.watcher_pid, mount.server_pid
    successor = KeeperProcess(mount.keeper.path)
    successor.start()
    try:
        for pid in killed_soon:
            os.kill(pid or 0, signal.SIGSTOP)  # it is not they who put it there
        assert successor.holds(mount.name)
        for pid in killed_soon:
            os.kill(pid or 0, signal.SIGCONT)
        Reader(mount, 4096).finish()
    finally:
        successor.stop()


def test_a_keeper_that_handed_over_serves_again_when_its_successor_is_gone(
    mount: LazyMount,
) -> None:
    successor = KeeperProcess(mount.keeper.path)
    successor.start()
    until(lambda: successor.holds(mount.name), "the mount at the successor")
    successor.stop()
    mount.keeper.await_serving()
    until(lambda: mount.keeper.holds(mount.name), "the mount at the first keeper again")
    Reader(mount, 4096).finish()


def test_a_keeper_is_ready_when_it_serves_and_not_while_another_containers_does(
    lazy_root: Path,
) -> None:
    path = lazy_root / "keeper.sock"
    ready = [sys.executable, "-m", "modelcache_csi.fuse.keeper_ready", f"--socket={path}"]

    def failure(*within: str) -> str:
        done = subprocess.run([*within, *ready], capture_output=True, text=True, check=False)
        assert bool(done.returncode) == bool(done.stderr)
        return done.stderr

    assert "no keeper" in failure()
    keeper = KeeperProcess(path)
    keeper.start()
    try:
        assert failure() == ""
        assert "another container's" in failure("unshare", "--pid", "--fork")
    finally:
        keeper.stop()


def test_a_keeper_that_hears_nonsense_hangs_up_and_lives(lazy_root) -> None:
    keeper = KeeperProcess(lazy_root / "keeper.sock")
    keeper.start()
    try:
        nonsense = ({"put": "without descriptors"}, {"get": "x" * 101}, {"dance": "x"}, {}, [], 5)
        for request in nonsense:
            with KeeperClient(keeper.path) as client, pytest.raises(KeeperAwayError):
                client._ask(request)
        with KeeperClient(keeper.path) as client:
            assert client.get("unknown") is None
            client.drop("unknown")
            assert list(client.names()) == []
    finally:
        keeper.stop()


def test_a_keeper_lists_more_mounts_than_fit_into_one_answer(lazy_root) -> None:
    keeper = KeeperProcess(lazy_root / "keeper.sock")
    keeper.start()
    try:
        with open("/dev/null", "rb") as null, KeeperClient(keeper.path) as client:
            for i in range(250):
                client.put(f"mount-{i:03}", [null.fileno()])
            assert list(client.names()) == [f"mount-{i:03}" for i in range(250)]
            client.drop("mount-007")
            assert client.get("mount-007") is None
    finally:
        keeper.stop()


def test_files_that_were_opened_by_passthrough_open_again_after_a_restart(lazy_root) -> None:
    with lazy_mount(lazy_root, {"a": BIG}) as mount:
        mount.blobs["a"].seal()
        path = mount.point / "a"
        until(lambda: mount.backing_id(path) != 0, "a passthrough open")
        with path.open("rb") as held:
            before = mount.server_pid
            killed(before)
            replaced(mount, before)
            with path.open("rb") as again:
                assert again.read() == BIG
            assert held.read() == BIG


def test_an_aborted_mount_is_an_error_and_no_hang(mount: LazyMount) -> None:
    fd = os.open(mount.point / "a", os.O_RDONLY)
    thread_outcome: list[int | None] = []

    def read() -> None:
        try:
            os.pread(fd, 10, CHUNK_BYTES)
        except OSError as e:
            thread_outcome.append(e.errno)

    thread = threading.Thread(target=read)
    thread.start()
    until(lambda: bool(mount.agent.wants), "a read that waits")
    mounting.abort(mount.device_number)
    thread.join(20)
    os.close(fd)
    assert thread_outcome in ([errno.ENOTCONN], [errno.EIO], [errno.ECONNABORTED])


def test_the_processes_of_a_mount_end_with_it(mount: LazyMount) -> None:
    until(lambda: mount.server_pid is not None, "a server")
    with KeeperClient(mount.keeper.path) as client:
        client.drop(mount.name)
    detach(mount.point)
    until(lambda: mount.server_pid is None and mount.watcher_pid is None, "their end")
