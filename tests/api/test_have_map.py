"""The have-map's wire format: golden bytes, round trips, bounds, and what is refused."""

from array import array
from contextlib import suppress

import pytest
from hypothesis import given, strategies as st

from modelcache_api.chunk_slots import ChunkSlots
from modelcache_api.errors import InvalidRequestError
from modelcache_api.have_map import MAX_CHANGES, MAX_HAVE_MAP_BYTES, HaveMap

GOLDEN = (
    "4d43484d" "0100" "0300" "efcdab8967452301" "0200000000000000" "0500000000000000"
    "0a000000" "02000000" "01000000" "0100" "0700"
    "01000000" "09000000" "02" "78563412" "f0debc9a"
    "0100000000000000" "0000000000000000" "03000000" "04000000"
)  # fmt: skip
EXAMPLE = HaveMap(
    instance=0x0123456789ABCDEF,
    since=2,
    version=5,
    n_slots=10,
    present=array("I", [1, 9]),
    crc32c=array("I", [0x12345678, 0x9ABCDEF0]),
    crc64nvme=array("Q", [1, 0]),
    vouched=0b10,
    gone=array("I", [3]),
    fetching=array("I", [4]),
    can_fetch=True,
    uploads_queued=7,
)


def test_the_format_is_version_1_and_a_change_of_it_needs_another():
    assert EXAMPLE.pack().hex() == GOLDEN


def test_a_map_is_read_as_it_was_written():
    assert HaveMap.unpack(bytes.fromhex(GOLDEN)) == EXAMPLE
    assert HaveMap.unpack(bytes.fromhex(GOLDEN)).bits == 1 << 1 | 1 << 9


@given(st.integers(0, len(GOLDEN) // 2 - 1))
def test_a_map_cut_short_is_refused(length):
    with pytest.raises(InvalidRequestError):
        HaveMap.unpack(bytes.fromhex(GOLDEN)[:length])


@given(st.binary(max_size=200))
def test_noise_is_refused_or_read_and_never_breaks_the_reader(noise):
    for raw in (noise, bytes.fromhex(GOLDEN)[:48] + noise):
        with suppress(InvalidRequestError):
            HaveMap.unpack(raw)


def test_a_chunk_beyond_the_revision_is_refused():
    raw = bytearray.fromhex(GOLDEN)
    raw[48:52] = (10).to_bytes(4, "little")
    with pytest.raises(InvalidRequestError, match="does not have"):
        HaveMap.unpack(bytes(raw))


def test_more_than_a_map_may_hold_is_refused_before_it_is_read():
    raw = bytearray.fromhex(GOLDEN)
    raw[36:40] = (MAX_CHANGES + 1).to_bytes(4, "little")
    with pytest.raises(InvalidRequestError, match="larger than any"):
        HaveMap.unpack(bytes(raw))


def test_a_whole_model_of_1_tb_is_one_map_of_a_mebibyte():
    slots = array("I", range(MAX_CHANGES))
    whole = HaveMap(
        instance=1,
        since=0,
        version=MAX_CHANGES,
        n_slots=MAX_CHANGES,
        present=slots,
        crc32c=slots,
        crc64nvme=array("Q", slots),
        vouched=(1 << MAX_CHANGES) - 1,
    )
    assert len(whole.pack()) <= MAX_HAVE_MAP_BYTES < 1.1 * 2**20
    assert HaveMap.unpack(whole.pack()) == whole


def test_slots_number_the_chunks_of_all_blobs_in_order():
    slots = ChunkSlots((("a" * 64, 2), ("b" * 64, 0), ("c" * 64, 3)))
    assert slots.n_slots == 5
    assert [slots.locate(slot) for slot in range(5)] == [
        ("a" * 64, 0),
        ("a" * 64, 1),
        ("c" * 64, 0),
        ("c" * 64, 1),
        ("c" * 64, 2),
    ]
    assert all(slots.slot(*slots.locate(slot)) == slot for slot in range(5))
    with pytest.raises(IndexError):
        slots.locate(5)
