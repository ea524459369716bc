"""The bytes that go to the kernel, held still: offsets and sizes are those of linux/fuse.h."""

import errno
import struct

import pytest

from modelcache_csi.fuse import protocol
from modelcache_csi.fuse.decoding import Init
from modelcache_csi.fuse.negotiation import (
    Features,
    KernelTooOldError,
    features_of,
    negotiate,
)
from modelcache_csi.fuse.protocol import (
    Attributes,
    DirectoryEntry,
    Entry,
    FileSystemSize,
    InitAnswer,
    InitFlag,
    Opcode,
    OpenFlag,
)

FILE = Attributes(inode=7, mode=0o100444, size_bytes=1025, n_links=1, mtime_s=1_700_000_000)
#: What a kernel of Linux 6.18 offers, as it was seen.
NEWEST = InitFlag(0x000000CF_73FFFFFB | InitFlag.PASSTHROUGH | InitFlag.HAS_RESEND)


def test_an_answer_is_length_no_error_and_unique_before_its_body() -> None:
    assert protocol.answer(0x1122, b"abc").hex() == "13000000000000002211000000000000616263"


def test_a_refusal_is_a_negative_errno() -> None:
    assert protocol.refusal(5, errno.EROFS).hex() == "10000000e2ffffff0500000000000000"


def test_attributes_are_88_bytes() -> None:
    assert protocol.pack_attributes(FILE).hex() == (
        "0700000000000000"
        "0104000000000000"
        "0300000000000000"  # inode, size, 512-byte blocks
        "00f1536500000000"
        "00f1536500000000"
        "00f1536500000000"  # atime, mtime, ctime
        "000000000000000000000000"  # their nanoseconds
        "24810000"
        "01000000"
        "00000000"
        "00000000"
        "00000000"  # mode, links, uid, gid, rdev
        "00100000"
        "00000000"  # block size, flags
    )


def test_an_entry_is_valid_as_long_as_its_attributes() -> None:
    raw = protocol.pack_entry(Entry(node=9, attributes=FILE, valid_s=60))
    assert raw[:40].hex() == (
        "090000000000000000000000000000003c000000000000003c000000000000000000000000000000"
    )
    assert raw[40:] == protocol.pack_attributes(FILE)


def test_an_attribute_answer_has_16_bytes_before_them() -> None:
    raw = protocol.pack_attr_out(FILE, 60)
    assert raw[:16].hex() == "3c000000000000000000000000000000"
    assert len(raw) == 104


def test_an_open_answer_carries_flags_and_the_backing_id() -> None:
    raw = protocol.pack_open(OpenFlag.PASSTHROUGH | OpenFlag.NOFLUSH, backing_id=3)
    assert raw.hex() == "0000000000000000a000000003000000"


def test_an_init_answer_is_64_bytes() -> None:
    init = InitAnswer(
        minor=45,
        flags=InitFlag.ASYNC_READ | InitFlag.INIT_EXT | InitFlag.PASSTHROUGH,
        max_readahead_bytes=131072,
        max_background=1024,
        congestion_threshold=768,
        max_write_bytes=4096,
        max_pages=256,
        max_stack_depth=1,
    )
    assert protocol.pack_init(init).hex() == (
        "07000000"
        "2d000000"
        "00000200"
        "01000040"  # 7.45, read-ahead, lower flags
        "0004"
        "0003"
        "00100000"
        "01000000"  # background, congestion, write, granularity
        "0001"
        "0000"
        "20000000"
        "01000000" + "00" * 24  # pages, alignment, upper flags, depth
    )


def test_a_file_systems_size_is_80_bytes() -> None:
    raw = protocol.pack_statfs(FileSystemSize(size_bytes=4097, n_files=3))
    assert raw.hex() == (
        "0200000000000000"
        "0000000000000000"
        "0000000000000000"
        "0300000000000000"
        "0000000000000000"
        "00100000"
        "ff000000"
        "00100000"
        "00000000" + "00" * 24
    )


def test_a_directory_entry_is_padded_to_8_bytes() -> None:
    entry = DirectoryEntry(offset=3, name=b"a.bin", entry=Entry(7, FILE, 60))
    plain = protocol.pack_directory([entry], 4096, with_attributes=False)
    assert plain.hex() == ("070000000000000003000000000000000500000008000000612e62696e000000")
    plus = protocol.pack_directory([entry], 4096, with_attributes=True)
    assert plus == protocol.pack_entry(entry.entry) + plain


def test_a_directory_is_cut_between_entries() -> None:
    entries = [DirectoryEntry(i, b"x" * 8, Entry(i, FILE, 1)) for i in range(1, 100)]
    raw = protocol.pack_directory(entries, 100, with_attributes=False)
    assert len(raw) == 96


def test_notifications_have_no_unique_and_a_positive_code() -> None:
    assert protocol.pack_resend().hex() == "10000000070000000000000000000000"
    assert protocol.pack_inval_entry(1, b"ab").hex() == (
        "2300000003000000000000000000000001000000000000000200000000000000616200"
    )


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("LOOKUP", 1),
        ("OPEN", 14),
        ("READ", 15),
        ("INIT", 26),
        ("READDIRPLUS", 44),
        ("INTERRUPT", 36),
    ],
)
def test_opcodes_are_the_kernels(name: str, number: int) -> None:
    assert Opcode[name] == number


# -- what is agreed


def offered(minor: int = 45, flags: InitFlag = NEWEST) -> Init:
    return Init(Opcode.INIT, 1, 0, 7, minor, 131072, flags)


def test_all_is_used_that_the_kernel_offers_and_we_know() -> None:
    answer = negotiate(offered(), Features())
    assert features_of(answer.flags).missing == ()
    assert answer.max_pages == 256
    assert answer.flags & ~NEWEST == 0


@pytest.mark.parametrize("switched_off", ["passthrough", "resend"])
def test_what_is_switched_off_is_not_asked_for(switched_off: str) -> None:
    answer = negotiate(offered(), Features(**{switched_off: False}))
    assert features_of(answer.flags).missing == (switched_off,)


def test_an_older_kernel_gets_no_flag_that_it_did_not_offer() -> None:
    old = InitFlag.ASYNC_READ | InitFlag.DO_READDIRPLUS | InitFlag.MAX_PAGES
    answer = negotiate(offered(31, old), Features())
    assert answer.minor == 31
    assert answer.flags == old
    assert answer.max_stack_depth == 0
    assert features_of(answer.flags).missing == ("passthrough", "resend")


def test_a_newer_kernel_is_answered_with_the_newest_that_we_know() -> None:
    assert negotiate(offered(99), Features()).minor == 45


def test_a_kernel_that_is_too_old_is_refused_with_its_version() -> None:
    with pytest.raises(KernelTooOldError, match=r"7\.30"):
        negotiate(offered(30), Features())


def test_the_header_of_answers_is_16_bytes() -> None:
    assert protocol.OUT_HEADER.size == struct.calcsize("<IiQ") == 16
