"""How large revisions are, read from their manifests; they never change, so once is enough."""

import os
import stat
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from modelcache_api.errors import InvalidRequestError
from modelcache_api.manifest import Manifest
from modelcache_api.names import tree_path
from modelcache_csi.errors import VolumeNotFoundError

#: Revisions remembered. Arbitrary; more than a node's pods use at a time.
MAX_REMEMBERED = 256
#: Bytes of a manifest: 100,000 files with paths of hundreds of bytes each.
MAX_MANIFEST_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class RevisionSize:
    """Of all files together."""

    n_bytes: int
    n_files: int


class RevisionSizes:
    """Sizes by revision. `of` blocks on first use; any thread may call."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._known: OrderedDict[str, RevisionSize] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, revision: str) -> RevisionSize:
        """Raises VolumeNotFoundError: the store has no such revision any more."""
        with self._lock:
            if found := self._known.get(revision):
                self._known.move_to_end(revision)
                return found
        size = self._read(revision)
        with self._lock:
            self._known[revision] = size
            if len(self._known) > MAX_REMEMBERED:
                self._known.popitem(last=False)
        return size

    def _read(self, revision: str) -> RevisionSize:
        path = (self._data_dir / tree_path(revision)).with_name("manifest.json")
        try:
            manifest = Manifest.parse(_read_file(path))
        except (OSError, InvalidRequestError) as e:
            raise VolumeNotFoundError(f"the size of {revision} cannot be read: {e}") from e
        return RevisionSize(n_bytes=manifest.size_bytes, n_files=len(manifest.files))


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
