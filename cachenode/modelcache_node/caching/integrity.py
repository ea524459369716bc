"""What vouches for a revision's bytes. Pure."""

from modelcache_api.listing import Integrity
from modelcache_api.manifest import ChecksumAlgorithm, File, Manifest


def integrity_of(manifest: Manifest) -> Integrity:
    """The weakest word that holds for every file; empty files need none."""
    kinds = {_of_file(file) for file in manifest.files if file.size_bytes}
    for weakest in (Integrity.TRANSPORT_ONLY, Integrity.STORE_CHECKSUM):
        if weakest in kinds:
            return weakest
    return Integrity.SHA256


def _of_file(file: File) -> Integrity:
    if file.checksum is None:
        return Integrity.TRANSPORT_ONLY
    if file.checksum.algorithm is ChecksumAlgorithm.SHA256:
        return Integrity.SHA256
    return Integrity.STORE_CHECKSUM
