"""A lazy mount as its readers see it: real kernel, real server, chunks that come when we say so."""

import errno
import mmap
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from modelcache_api.chunks import CHUNK_BYTES
from modelcache_csi.fuse.negotiation import Features
from support.agent_process import until
from support.lazy_mount import GrowingBlob, LazyMount, lazy_mount, pattern

pytestmark = pytest.mark.root

BIG = pattern(CHUNK_BYTES * 2 + 1_000_001)
CONTENTS = {"config.json": b'{"a": 1}', "weights/1.bin": BIG, "weights/2.bin": b"", "z": b"zz"}


@pytest.fixture(params=["newest", "no passthrough", "no resend"])
def mount(lazy_root: Path, request: pytest.FixtureRequest) -> Iterator[LazyMount]:
    features = Features(
        passthrough=request.param != "no passthrough", resend=request.param != "no resend"
    )
    with lazy_mount(lazy_root, CONTENTS, features=features) as made:
        yield made


@pytest.fixture
def newest(lazy_root: Path) -> Iterator[LazyMount]:
    with lazy_mount(lazy_root, CONTENTS) as made:
        yield made


def in_thread(function: object, *args: object) -> tuple[threading.Thread, list[object]]:
    """Run, and collect what came of it: a result or an error."""
    outcome: list[object] = []

    def run() -> None:
        try:
            outcome.append(function(*args))  # type: ignore[operator]
        except OSError as e:
            outcome.append(e.errno)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, outcome


def test_names_sizes_and_modes_are_those_of_a_tree(mount: LazyMount) -> None:
    assert sorted(os.listdir(mount.point)) == ["config.json", "weights", "z"]
    assert sorted(os.listdir(mount.point / "weights")) == ["1.bin", "2.bin"]
    for path, content in CONTENTS.items():
        seen = (mount.point / path).stat()
        assert (seen.st_size, oct(seen.st_mode), seen.st_uid) == (len(content), "0o100444", 0)
    assert oct((mount.point / "weights").stat().st_mode) == "0o40555"
    assert os.statvfs(mount.point).f_files > 0
    assert not (mount.point / "absent").exists()


def test_promise_lazy_reads_wait__for_what_is_absent_alone(mount: LazyMount) -> None:
    blob = mount.blobs["weights/1.bin"]
    blob.land(1)
    with (mount.point / "weights/1.bin").open("rb", buffering=0) as file:
        assert os.pread(file.fileno(), 70_000, CHUNK_BYTES + 5) == BIG[CHUNK_BYTES + 5 :][:70_000]
        thread, outcome = in_thread(os.pread, file.fileno(), 4096, 0)
        assert mount.agent.wanted.wait(20)
        assert not outcome
        assert mount.agent.wants[0].chunks[0] == 0
        blob.land(0)
        thread.join(20)
    assert outcome == [BIG[:4096]]


def test_a_reader_in_order_has_more_asked_for_than_it_reads(newest: LazyMount) -> None:
    newest.agent.on_want = lambda *_: newest.blobs["weights/1.bin"].seal()
    assert (newest.point / "weights/1.bin").read_bytes() == BIG
    assert newest.agent.wants[0].chunks == (0, 1, 2)


def test_a_complete_file_is_read_and_mapped(mount: LazyMount) -> None:
    mount.blobs["weights/1.bin"].seal()
    with (mount.point / "weights/1.bin").open("rb") as file:
        assert file.read() == BIG
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            assert mapped[:] == BIG
    assert (mount.point / "weights/2.bin").read_bytes() == b""


def test_a_file_that_became_complete_is_read_by_the_kernel_alone(newest: LazyMount) -> None:
    path = newest.point / "weights/1.bin"
    blob = newest.blobs["weights/1.bin"]
    blob.land(0)
    early = path.open("rb", buffering=0)
    assert early.read(100) == BIG[:100]
    before = path.stat()
    blob.seal()
    until(lambda: is_passthrough(newest, path), "a passthrough open")
    assert path.stat() == before
    with path.open("rb") as late:
        with mmap.mmap(late.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            assert mapped[:] == BIG
        assert late.read() == BIG
    assert early.read() == BIG[100:]
    early.close()


def is_passthrough(mount: LazyMount, path: Path) -> bool:
    """Whether a new open reads what nobody read before while the server is stopped."""
    pid = mount.server_pid
    assert pid
    with path.open("rb", buffering=0) as file:
        os.kill(pid, signal.SIGSTOP)
        try:
            thread, outcome = in_thread(os.pread, file.fileno(), 10, CHUNK_BYTES * 2 + 500_000)
            thread.join(0.2)
            return bool(outcome)
        finally:
            os.kill(pid, signal.SIGCONT)
            thread.join(20)


def test_every_user_reads_and_nobody_writes(mount: LazyMount) -> None:
    mount.blobs["config.json"].seal()
    os.chmod(mount.root, 0o755)
    read = subprocess.run(
        ["cat", mount.point / "config.json"],
        user=65534,
        group=65534,
        extra_groups=[],
        capture_output=True,
        text=True,
        check=False,
    )
    assert read.stdout == '{"a": 1}', read.stderr
    for attempt in (
        lambda: (mount.point / "new").write_bytes(b""),
        (mount.point / "z").unlink,
        lambda: (mount.point / "z").open("r+b"),
        lambda: os.chmod(mount.point / "z", 0o777),
        lambda: os.truncate(mount.point / "z", 0),
    ):
        with pytest.raises(OSError, match=os.strerror(errno.EROFS)):
            attempt()


def test_direct_reads_are_served(mount: LazyMount) -> None:
    mount.blobs["weights/1.bin"].land(0, 1)
    fd = os.open(mount.point / "weights/1.bin", os.O_RDONLY | os.O_DIRECT)
    with mmap.mmap(-1, 1 << 20) as buffer:
        assert os.preadv(fd, [buffer], CHUNK_BYTES - 4096) == 1 << 20
        assert buffer[:] == BIG[CHUNK_BYTES - 4096 :][: 1 << 20]
    os.close(fd)


def test_a_thousand_opens_at_once(mount: LazyMount) -> None:
    mount.blobs["z"].seal()
    files = [(mount.point / "z").open("rb") for _ in range(1000)]
    assert {file.read() for file in files} == {b"zz"}
    for file in files:
        file.close()


def test_a_name_of_300_bytes_is_too_long(mount: LazyMount) -> None:
    with pytest.raises(OSError, match=os.strerror(errno.ENAMETOOLONG)):
        os.stat(mount.point / ("x" * 300))


def test_a_directory_of_10000_files_is_listed_whole(lazy_root: Path) -> None:
    contents = {f"d/{i:05}": b"" for i in range(10_000)}
    with lazy_mount(lazy_root, contents) as mount:
        assert sorted(os.listdir(mount.point / "d")) == [f"{i:05}" for i in range(10_000)]
        assert sum(entry.stat().st_size for entry in os.scandir(mount.point / "d")) == 0


def test_an_interrupted_read_ends(mount: LazyMount) -> None:
    code = (  # the handler by name: a shell's background jobs inherit that SIGINT is ignored
        "import os, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "os.read(os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECT), 1 << 20)"
    )
    reader = subprocess.Popen([sys.executable, "-c", code, str(mount.point / "weights/1.bin")])
    assert mount.agent.wanted.wait(20)
    reader.send_signal(signal.SIGINT)
    assert reader.wait(20) != 0


KILLED = {
    "read": "os.pread(fd, 4096, 0)",
    "direct": "os.pread(os.open(path, os.O_RDONLY | os.O_DIRECT), 1 << 20, 1 << 24)",
    "mmap": "mmap.mmap(fd, 0, prot=mmap.PROT_READ)[(1 << 25) + 500_000]",
}


def test_a_killed_reader_leaves_no_process_in_the_kernel(mount: LazyMount) -> None:
    path = str(mount.point / "weights/1.bin")
    setup = f"import mmap, os; path = {path!r}; fd = os.open(path, os.O_RDONLY); "
    readers = [subprocess.Popen([sys.executable, "-c", setup + how]) for how in KILLED.values()]
    until(lambda: {w.chunks[0] for w in mount.agent.wants} >= {0, 1, 2}, "all three waiting")
    for reader in readers:
        reader.kill()
    assert [reader.wait(20) for reader in readers] == [-signal.SIGKILL] * 3


def test_promise_lazy_reads_wait__and_fail_only_with_their_source(mount: LazyMount) -> None:
    mount.blobs["weights/1.bin"].land(1)
    mount.agent.lose(mount.keys["weights/1.bin"])
    with (mount.point / "weights/1.bin").open("rb", buffering=0) as file:
        assert len(os.pread(file.fileno(), 100, CHUNK_BYTES + 70_000)) == 100
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            os.pread(file.fileno(), 100, 0)
    assert "the object was replaced" in mount.log.read_text()


def test_present_chunks_are_read_while_the_agent_is_dead(mount: LazyMount) -> None:
    blob = mount.blobs["weights/1.bin"]
    blob.land(0)
    with (mount.point / "weights/1.bin").open("rb", buffering=0) as file:
        assert os.pread(file.fileno(), 10, 0) == BIG[:10]
        mount.agent.stop()
        assert os.pread(file.fileno(), 10, CHUNK_BYTES - 500) == BIG[CHUNK_BYTES - 500 :][:10]
        pid = mount.server_pid
        assert pid
        os.kill(pid, signal.SIGKILL)
        assert os.pread(file.fileno(), 10, 5_000_000) == BIG[5_000_000:][:10]
        thread, outcome = in_thread(os.pread, file.fileno(), 10, CHUNK_BYTES)
        mount.agent.on_want = lambda *_: blob.land(1)
        mount.agent.start()
        thread.join(20)
    assert outcome == [BIG[CHUNK_BYTES:][:10]]


@pytest.mark.parametrize("kind", ["of another boot", "cut short", "of another blob", "emptied"])
def test_a_stale_present_map_shows_nothing(lazy_root: Path, kind: str) -> None:
    with lazy_mount(lazy_root, {"a": BIG}) as mount:
        mount.agent.stop()
        stale = GrowingBlob(lazy_root / "stale", BIG, UUID(int=1) if "boot" in kind else None)
        stale.land(0, 1)
        if kind == "cut short":
            os.truncate(stale.journal, 70)
        elif kind == "emptied":
            os.truncate(stale.journal, 0)
        elif kind == "of another blob":
            other = GrowingBlob(lazy_root / "other", BIG[:-1])
            other.land(0, 1)
            stale.journal = other.journal
        good = mount.agent.blobs[mount.keys["a"]]
        mount.agent.blobs[mount.keys["a"]] = stale
        mount.agent.start()
        with (mount.point / "a").open("rb", buffering=0) as file:
            thread, outcome = in_thread(os.pread, file.fileno(), 10, CHUNK_BYTES)
            assert mount.agent.wanted.wait(20)
            assert not outcome
            mount.agent.stop()
            good.land(1)
            mount.agent.blobs[mount.keys["a"]] = good
            mount.agent.start()
            thread.join(20)
        assert outcome == [BIG[CHUNK_BYTES:][:10]]


def test_what_is_no_plain_file_is_not_served(lazy_root: Path) -> None:
    with lazy_mount(lazy_root, {"a": b"right"}) as mount:
        good = mount.agent.blobs[mount.keys["a"]]
        mount.agent.stop()
        bad = GrowingBlob(lazy_root / "bad", b"wrong")
        bad.seal()
        bad.data.unlink()
        os.mkfifo(bad.data)
        with bad.data.open("r+b", buffering=0):  # so that it can be opened to read
            mount.agent.blobs[mount.keys["a"]] = bad
            mount.agent.start()
            thread, outcome = in_thread((mount.point / "a").read_bytes)
            assert mount.agent.wanted.wait(20)
            assert not outcome
            mount.agent.stop()
        good.seal()
        mount.agent.blobs[mount.keys["a"]] = good
        mount.agent.start()
        thread.join(20)
        assert outcome == [b"right"]
