"""Checksums of chunks combine to the file's."""

from awscrt import checksums
from hypothesis import given, strategies as st

from modelcache_api.manifest import ChecksumAlgorithm
from modelcache_node.store.combining import combine


@given(st.lists(st.binary(max_size=200), max_size=12))
def test_combined_parts_equal_the_checksum_of_the_whole(parts):
    whole = b"".join(parts)
    for algorithm, crc, digits in (
        (ChecksumAlgorithm.CRC32C, checksums.crc32c, 8),
        (ChecksumAlgorithm.CRC64NVME, checksums.crc64nvme, 16),
    ):
        combined = combine(algorithm, ((crc(part), len(part)) for part in parts))
        assert combined == f"{crc(whole):0{digits}x}"


def test_crc64nvme_is_the_one_of_the_specification():
    assert checksums.crc64nvme(b"123456789") == 0xAE8B14860A799888


def test_crc32c_is_the_one_of_the_specification():
    assert checksums.crc32c(b"123456789") == 0xE3069283
