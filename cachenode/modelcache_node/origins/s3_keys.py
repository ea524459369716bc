"""How S3's keys and checksums are read, whichever way they were asked for. Pure."""

import base64
import binascii
from collections.abc import Mapping

from modelcache_api.errors import ModelCacheError
from modelcache_api.manifest import Checksum, ChecksumAlgorithm

#: Response headers, strongest first.
_CHECKSUM_HEADERS = {
    "x-amz-checksum-sha256": ChecksumAlgorithm.SHA256,
    "x-amz-checksum-crc64nvme": ChecksumAlgorithm.CRC64NVME,
    "x-amz-checksum-crc32c": ChecksumAlgorithm.CRC32C,
}
COMPOSITE = "COMPOSITE"


def tree_path(key: str, prefix: str) -> str | None:
    """Where an object lies in the tree; None for the marker of a folder.

    ``s3://b/models/m`` names the folder ``models/m/`` or the single object ``models/m``, never
    ``models/m-other``, though S3 lists all three under that prefix.
    """
    if key.endswith("/"):
        return None
    if not prefix or prefix.endswith("/"):
        return key[len(prefix) :]
    if key == prefix:
        return key.rsplit("/", 1)[-1]
    return key[len(prefix) + 1 :] if key.startswith(prefix + "/") else None


def stated_checksum(headers: Mapping[str, str]) -> Checksum | None:
    """The best full-object checksum that a HEAD answer states; names in lower case.

    A composite one (``x-amz-checksum-type: COMPOSITE``, or a value with ``-N``) is of the
    upload's parts, not of the bytes, and does not count.
    """
    if headers.get("x-amz-checksum-type") == COMPOSITE:
        return None
    for name, algorithm in _CHECKSUM_HEADERS.items():
        text = headers.get(name)
        if text and "-" not in text:
            try:
                return Checksum.parse(f"{algorithm}:{base64.b64decode(text, validate=True).hex()}")
            except (binascii.Error, ModelCacheError):
                continue
    return None
