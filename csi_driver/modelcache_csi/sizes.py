"""How large revisions are, read from their manifests; they never change, so once is enough."""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from modelcache_csi.manifests import read_manifest

#: Revisions remembered. Arbitrary; more than a node's pods use at a time.
MAX_REMEMBERED = 256


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
        manifest = read_manifest(self._data_dir, revision)
        return RevisionSize(n_bytes=manifest.size_bytes, n_files=len(manifest.files))
