"""What a server leaves to its successor."""

import os
from collections.abc import Iterator

import pytest

from modelcache_csi.fuse import ledger
from modelcache_csi.fuse.ledger import MAX_WAITING, SERVER, WATCHER, Ledger, LedgerError
from modelcache_csi.fuse.protocol import InitFlag


@pytest.fixture
def fd() -> Iterator[int]:
    made = ledger.create(3, now_ns=1)
    yield made
    os.close(made)


def request(n: int, length: int = 80) -> bytes:
    return length.to_bytes(4, "little") + bytes([n]) * (length - 4)


def test_the_format_is_held_still(fd: int) -> None:
    one = Ledger(fd)
    one.note_agreed(45, InitFlag.HAS_RESEND)
    one.note_seen(0x0102030405060708)
    one.keep(request(7))
    one.inbox[:80] = request(9)
    one.note_backing_id(2, 5)
    assert os.pread(fd, 40, 0).hex() == (
        "4d434c45444745520100000003000000010000002d00000000000000800000000807060504030201"
    )
    assert os.pread(fd, 80, 4096) == request(9)
    assert os.pread(fd, 80, 4096 + 65536) == request(7)
    assert os.pread(fd, 12, 4096 + 65536 + 80 * 4096) == bytes(8) + b"\5\0\0\0"


def test_a_successor_finds_what_was_agreed_and_what_waits(fd: int) -> None:
    first = Ledger(fd)
    assert first.agreed is None
    first.note_agreed(40, InitFlag.ASYNC_READ)
    slots = [first.keep(request(n)) for n in range(3)]
    first.drop(slots[1])
    first.inbox[:80] = request(9)

    second = Ledger(fd)
    assert second.agreed == (40, InitFlag.ASYNC_READ)
    assert dict(second.kept()) == {slots[0]: request(0), slots[2]: request(2)}
    assert second.pending() == request(9)
    second.forget_requests()
    assert not list(second.kept())
    assert second.pending() is None


def test_there_is_room_for_so_many_reads_and_no_more(fd: int) -> None:
    one = Ledger(fd)
    for _ in range(MAX_WAITING):
        assert one.has_room
        slot = one.keep(request(1))
    assert not one.has_room
    one.drop(slot)
    assert one.has_room


def test_who_forks_off_counts_anew(fd: int) -> None:
    ours, theirs = Ledger(fd), Ledger(fd)
    slot = theirs.keep(request(1))
    ours.recount()
    assert ours.keep(request(2)) != slot


def test_a_role_is_held_by_one_process_and_told_to_others(fd: int) -> None:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(writer)
        theirs = Ledger(fd)
        taken = theirs.take(WATCHER, wait=False)
        os.read(reader, 1)
        os._exit(0 if taken else 1)
    os.close(reader)
    while ledger.holder_pid(fd, WATCHER) is None:
        os.sched_yield()
    assert ledger.holder_pid(fd, WATCHER) == pid
    assert ledger.holder_pid(fd, SERVER) is None
    ours = Ledger(fd)
    assert not ours.take(WATCHER, wait=False)
    os.close(writer)
    assert os.waitpid(pid, 0)[1] == 0
    assert ours.take(WATCHER, wait=False)


def test_what_is_no_ledger_is_refused(fd: int) -> None:
    os.pwrite(fd, b"X", 0)
    with pytest.raises(LedgerError):
        Ledger(fd)
    os.ftruncate(fd, 100)
    with pytest.raises(LedgerError):
        Ledger(fd)
