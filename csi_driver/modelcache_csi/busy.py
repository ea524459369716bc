"""At most one call per key: the second is turned away at once, not queued.

CSI 1.12, "Concurrency": a plugin answers ABORTED when a call for the same volume is pending. A
queue would only collect callers whose deadline runs out.
"""

import contextlib
from collections.abc import Iterator

from modelcache_csi.errors import VolumeBusyError


class BusyKeys:
    """Keys in use. For one event loop; holding is instant, so there is nothing to await."""

    def __init__(self) -> None:
        self._held: set[str] = set()

    @contextlib.contextmanager
    def hold(self, key: str) -> Iterator[None]:
        """Raises VolumeBusyError: another caller holds `key`."""
        if key in self._held:
            raise VolumeBusyError(f"another call for {key} is pending")
        self._held.add(key)
        try:
            yield
        finally:
            self._held.discard(key)
