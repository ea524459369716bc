"""Checksums of chunks combine to the file's."""

from awscrt import checksums
from hypothesis import given, strategies as st

from modelcache_node.transfer.combining import combined_crc32c, combined_crc64nvme


@given(st.lists(st.binary(max_size=200), max_size=12))
def test_combined_parts_equal_the_checksum_of_the_whole(parts):
    whole = b"".join(parts)
    assert combined_crc32c((checksums.crc32c(p), len(p)) for p in parts) == checksums.crc32c(whole)
    assert combined_crc64nvme(
        (checksums.crc64nvme(p), len(p)) for p in parts
    ) == checksums.crc64nvme(whole)


def test_crc64nvme_is_the_one_of_the_specification():
    assert checksums.crc64nvme(b"123456789") == 0xAE8B14860A799888


def test_crc32c_is_the_one_of_the_specification():
    assert checksums.crc32c(b"123456789") == 0xE3069283
