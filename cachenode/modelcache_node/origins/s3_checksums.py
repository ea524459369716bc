"""Which of S3's checksums count, whichever way they were asked for. Pure."""

from collections.abc import Mapping

from modelcache_api.manifest import Checksum, ChecksumAlgorithm
from modelcache_node.origins.stated import base64_checksum

#: Response headers, strongest first.
_CHECKSUM_HEADERS = {
    "x-amz-checksum-sha256": ChecksumAlgorithm.SHA256,
    "x-amz-checksum-crc64nvme": ChecksumAlgorithm.CRC64NVME,
    "x-amz-checksum-crc32c": ChecksumAlgorithm.CRC32C,
}
COMPOSITE = "COMPOSITE"


def stated_checksum(headers: Mapping[str, str]) -> Checksum | None:
    """The best full-object checksum that a HEAD answer states; names in lower case.

    A composite one (``x-amz-checksum-type: COMPOSITE``, or a value with ``-N``) is of the
    upload's parts, not of the bytes, and does not count.
    """
    if headers.get("x-amz-checksum-type") == COMPOSITE:
        return None
    for name, algorithm in _CHECKSUM_HEADERS.items():
        text = headers.get(name)
        found = base64_checksum(algorithm, text) if text and "-" not in text else None
        if found:
            return found
    return None
