"""Requests of the kernel, and bytes that are none."""

import contextlib
import errno
import struct

import pytest
from hypothesis import given, settings, strategies as st

from modelcache_api.manifest import File, Manifest
from modelcache_csi.fuse.answering import Answer, Answerer, GiveUp, ReadBytes
from modelcache_csi.fuse.decoding import (
    Init,
    Interrupt,
    Lookup,
    MalformedRequestError,
    Open,
    Read,
    Request,
    parse,
)
from modelcache_csi.fuse.negotiation import Features
from modelcache_csi.fuse.protocol import InitFlag, Opcode
from modelcache_csi.fuse.tree import Tree


def message(opcode: int, body: bytes = b"", *, unique: int = 2, node: int = 1) -> bytes:
    header = struct.pack("<IIQQIIIHH", 40 + len(body), opcode, unique, node, 0, 0, 4711, 0, 0)
    return header + body


def read_message(offset: int, size: int, *, node: int = 2, unique: int = 2) -> bytes:
    body = struct.pack("<QQIIQII", 0, offset, size, 0, 0, 0, 0)
    return message(Opcode.READ, body, node=node, unique=unique)


def test_a_read_is_80_bytes_of_which_we_use_offset_and_size() -> None:
    raw = read_message(4096, 131072)
    assert len(raw) == 80
    assert parse(raw) == Read(Opcode.READ, 2, 2, 4096, 131072)


def test_a_lookup_names_a_child() -> None:
    assert parse(message(Opcode.LOOKUP, b"config.json\0")) == Lookup(1, 2, 1, b"config.json")


def test_an_open_carries_the_flags_of_open() -> None:
    assert parse(message(Opcode.OPEN, struct.pack("<II", 0o100000, 0))) == Open(14, 2, 1, 0o100000)


def test_an_interrupt_names_what_it_interrupts() -> None:
    assert parse(message(Opcode.INTERRUPT, struct.pack("<Q", 77))) == Interrupt(36, 2, 1, 77)


def test_an_old_kernels_init_has_no_upper_flags() -> None:
    raw = message(Opcode.INIT, struct.pack("<4I", 7, 31, 131072, 0x1))
    assert parse(raw) == Init(26, 2, 1, 7, 31, 131072, InitFlag.ASYNC_READ)


def test_a_new_kernels_init_has_them() -> None:
    flags = InitFlag.INIT_EXT | InitFlag.PASSTHROUGH
    body = struct.pack("<5I44x", 7, 45, 131072, flags & 0xFFFFFFFF, flags >> 32)
    parsed = parse(message(Opcode.INIT, body))
    assert isinstance(parsed, Init)
    assert parsed.flags == flags


@pytest.mark.parametrize("n_bytes", [0, 1, 39])
def test_a_message_shorter_than_its_header_is_malformed(n_bytes: int) -> None:
    with pytest.raises(MalformedRequestError):
        parse(message(Opcode.GETATTR)[:n_bytes])


@pytest.mark.parametrize(
    "opcode", [Opcode.READ, Opcode.READDIR, Opcode.OPEN, Opcode.INTERRUPT, Opcode.INIT]
)
def test_a_truncated_message_is_malformed_and_says_whose_it_is(opcode: Opcode) -> None:
    with pytest.raises(MalformedRequestError) as failed:
        parse(message(opcode, b"\0" * 3, unique=99))
    assert failed.value.unique == 99


def test_a_message_that_lies_about_its_length_is_malformed() -> None:
    raw = message(Opcode.GETATTR)
    with pytest.raises(MalformedRequestError):
        parse(raw + b"x")
    with pytest.raises(MalformedRequestError):
        parse(struct.pack("<I", 0xFFFFFFFF) + raw[4:])


@pytest.mark.parametrize("body", [b"", b"\0", b"no end"])
def test_a_name_needs_a_beginning_and_an_end(body: bytes) -> None:
    with pytest.raises(MalformedRequestError):
        parse(message(Opcode.LOOKUP, body))


@settings(deadline=None)  # no statement on speed: the machine may be busy
@given(st.binary(max_size=300))
def test_whatever_the_bytes_are_they_are_a_request_or_malformed(raw: bytes) -> None:
    with contextlib.suppress(MalformedRequestError):
        assert isinstance(parse(raw), Request)


def make_answerer() -> Answerer:
    manifest = Manifest.of([File("a/b.bin", 1 << 20, f"{1:064x}"), File("c.json", 5, f"{2:064x}")])
    return Answerer(Tree(manifest, mtime_s=0), Features(), is_complete=lambda _: True)


ANSWERER = make_answerer()  # it keeps nothing from one request to the next


@settings(deadline=None, max_examples=300)
@given(
    st.integers(0, 0xFFFFFFFF) | st.sampled_from(sorted(Opcode)),
    st.binary(max_size=120),
    st.integers(0, 2**64 - 1),
    st.integers(0, 8) | st.integers(0, 2**64 - 1),
)
def test_every_request_that_can_be_parsed_is_answered(
    opcode: int, body: bytes, unique: int, node: int
) -> None:
    try:
        request = parse(message(opcode, body, unique=unique, node=node))
    except MalformedRequestError:
        return
    outcome = ANSWERER.handle(request)
    if isinstance(outcome, Answer):
        length, code, answered = struct.unpack_from("<IiQ", outcome.raw)
        assert length == len(outcome.raw)
        assert answered == unique
        assert -200 < code <= 0


# -- answers that need no kernel to be seen


def refused(raw: bytes) -> int:
    outcome = ANSWERER.handle(parse(raw))
    assert isinstance(outcome, Answer)
    return -int(struct.unpack_from("<i", outcome.raw, 4)[0])


def test_an_unknown_opcode_is_enosys() -> None:
    assert refused(message(4095)) == errno.ENOSYS
    assert refused(message(Opcode.FLUSH)) == errno.ENOSYS


@pytest.mark.parametrize(
    "opcode", [Opcode.WRITE, Opcode.CREATE, Opcode.UNLINK, Opcode.SETATTR, Opcode.RENAME2]
)
def test_whatever_would_change_something_is_erofs(opcode: Opcode) -> None:
    assert refused(message(opcode, b"\0" * 64)) == errno.EROFS


def test_a_name_of_300_bytes_is_too_long() -> None:
    assert refused(message(Opcode.LOOKUP, b"x" * 300 + b"\0")) == errno.ENAMETOOLONG


def test_a_node_that_was_never_given_is_not_there() -> None:
    assert refused(message(Opcode.GETATTR, node=4711)) == errno.ENOENT
    assert refused(read_message(0, 10, node=4711)) == errno.ENOENT


def test_opening_to_write_is_erofs() -> None:
    assert refused(message(Opcode.OPEN, struct.pack("<II", 1, 0), node=3)) == errno.EROFS


def test_a_read_ends_with_the_file() -> None:
    outcome = ANSWERER.handle(parse(read_message((1 << 20) - 10, 4096, node=3)))
    assert outcome == ReadBytes(2, 0, (1 << 20) - 10, 10)


def test_a_read_behind_the_end_is_empty() -> None:
    outcome = ANSWERER.handle(parse(read_message(1 << 20, 4096, node=3)))
    assert outcome == Answer(struct.pack("<IiQ", 16, 0, 2))


def test_forgetting_is_not_answered() -> None:
    assert ANSWERER.handle(parse(message(Opcode.FORGET, b"\0" * 8))) is None
    assert ANSWERER.handle(parse(message(Opcode.BATCH_FORGET, b"\0" * 8))) is None


def test_an_interrupt_gives_up_what_it_names() -> None:
    outcome = ANSWERER.handle(parse(message(Opcode.INTERRUPT, struct.pack("<Q", 77))))
    assert outcome == GiveUp(77)
