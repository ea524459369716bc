"""Which chunks are asked for because of a read that waits."""

from modelcache_api.chunks import CHUNK_BYTES
from modelcache_csi.fuse.answering import ReadBytes
from modelcache_csi.fuse.waiting import READ_AHEAD_CHUNKS, WaitingReads

SIZE = 1000 * CHUNK_BYTES


def read(chunk: int, size: int = 4096) -> ReadBytes:
    return ReadBytes(2, 0, chunk * CHUNK_BYTES, size)


def test_a_reader_in_order_has_the_next_chunks_asked_for_too() -> None:
    waiting = WaitingReads()
    assert waiting.wanted(read(0), SIZE) == tuple(range(READ_AHEAD_CHUNKS + 1))
    assert waiting.wanted(read(1), SIZE) == tuple(range(1, READ_AHEAD_CHUNKS + 2))


def test_a_reader_that_jumps_has_only_its_own() -> None:
    waiting = WaitingReads()
    assert waiting.wanted(read(500), SIZE) == (500,)
    assert waiting.wanted(read(20), SIZE) == (20,)


def test_a_read_across_a_border_needs_both_chunks() -> None:
    one = ReadBytes(2, 0, 501 * CHUNK_BYTES - 10, 20)
    assert WaitingReads().wanted(one, SIZE) == (500, 501)


def test_nothing_is_asked_for_beyond_the_end() -> None:
    assert WaitingReads().wanted(read(0), 3 * CHUNK_BYTES - 1) == (0, 1, 2)


def test_another_file_is_another_order() -> None:
    waiting = WaitingReads()
    waiting.wanted(read(0), SIZE)
    assert waiting.wanted(ReadBytes(4, 1, CHUNK_BYTES, 10), SIZE) == (1,)
