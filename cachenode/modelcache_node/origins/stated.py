"""Checksums as listings write them. Pure."""

import base64
import binascii

from modelcache_api.errors import ModelCacheError
from modelcache_api.manifest import Checksum


def base64_checksum(algorithm: str, text: str | None) -> Checksum | None:
    """A checksum out of base64; None where there is none, or it is none."""
    if not text:
        return None
    try:
        return Checksum.parse(f"{algorithm}:{base64.b64decode(text, validate=True).hex()}")
    except (binascii.Error, ValueError, ModelCacheError):
        return None
