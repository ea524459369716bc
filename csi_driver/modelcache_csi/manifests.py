"""Reads manifests from the node's store: small files that an unprivileged agent wrote."""

import os
import stat
from pathlib import Path

from modelcache_api.errors import InvalidRequestError
from modelcache_api.manifest import Manifest
from modelcache_api.names import tree_path
from modelcache_csi.errors import VolumeNotFoundError

#: Bytes of a manifest: 100,000 files with paths of hundreds of bytes each.
MAX_MANIFEST_BYTES = 64 << 20


def read_manifest(data_dir: Path, revision: str) -> Manifest:
    """The manifest of a revision that the agent holds or fetches. Blocks.

    Raises:
        VolumeNotFoundError: the store has no such revision any more.
    """
    path = (data_dir / tree_path(revision)).with_name("manifest.json")
    try:
        manifest = Manifest.parse(_read_file(path))
    except (OSError, InvalidRequestError) as e:
        raise VolumeNotFoundError(f"the manifest of {revision} cannot be read: {e}") from e
    if manifest.revision != revision:
        raise VolumeNotFoundError(f"what calls itself the manifest of {revision} is another one")
    return manifest


def _read_file(path: Path) -> bytes:
    """A regular file's bytes: the unprivileged agent owns it, and must not lead us elsewhere."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise InvalidRequestError("not a regular file")
        raw = file.read(MAX_MANIFEST_BYTES + 1)
    if len(raw) > MAX_MANIFEST_BYTES:
        raise InvalidRequestError(f"larger than {MAX_MANIFEST_BYTES} bytes")
    return raw
