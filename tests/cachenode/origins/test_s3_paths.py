"""How S3 keys become paths in a tree, and which checksums count."""

import base64

import pytest

from modelcache_node.origins.keys import tree_path
from modelcache_node.origins.s3_checksums import stated_checksum


@pytest.mark.parametrize(
    ("key", "prefix", "path"),
    [
        ("models/m/a.bin", "models/m/", "a.bin"),
        ("models/m/a.bin", "models/m", "a.bin"),
        ("models/m/sub/a.bin", "models/m", "sub/a.bin"),
        ("models/m", "models/m", "m"),
        ("models/m-other/a.bin", "models/m", None),
        ("models/m/", "models/m", None),
        ("a.bin", "", "a.bin"),
        ("models/m/../../x", "models/m", "../../x"),
        ("models/m//x", "models/m", "/x"),
    ],
)
def test_a_key_lies_in_the_tree_where_its_prefix_ends(key, prefix, path):
    assert tree_path(key, prefix) == path


def test_a_full_object_checksum_is_taken_and_the_strongest_first():
    head = {
        "x-amz-checksum-type": "FULL_OBJECT",
        "x-amz-checksum-crc64nvme": base64.b64encode(bytes(8)).decode(),
        "x-amz-checksum-sha256": base64.b64encode(bytes(32)).decode(),
    }
    assert str(stated_checksum(head)) == "sha256:" + "00" * 32


@pytest.mark.parametrize(
    "head",
    [
        {},
        {"x-amz-checksum-type": "COMPOSITE", "x-amz-checksum-crc32c": "AAAAAA=="},
        {"x-amz-checksum-crc32c": "AAAAAA==-3"},
        {"x-amz-checksum-crc64nvme": "not base64"},
        {"x-amz-checksum-crc64nvme": base64.b64encode(bytes(3)).decode()},
    ],
)
def test_a_composite_or_malformed_checksum_does_not_count(head):
    assert stated_checksum(head) is None
