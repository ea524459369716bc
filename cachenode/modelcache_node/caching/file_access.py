"""What a lazy mount may have of a revision: its files as they come, chunks before their turn.

Whose mount it is was decided when its lease was granted; here a revision is all that is named.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from modelcache_api.errors import InvalidRequestError
from modelcache_api.reasons import Reason
from modelcache_node.caching.fetches import Fetch
from modelcache_node.caching.reporting import Failure
from modelcache_node.store.store import Store

#: After these a revision's absent chunks will never come, whoever asks, however long.
_FOR_GOOD = frozenset(
    {
        Reason.SOURCE_CHANGED,
        Reason.SOURCE_NOT_FOUND,
        Reason.SOURCE_LIES,
        Reason.INTEGRITY_MISMATCH,
    }
)


class FileAccess:
    """Used from one event loop. Holds nothing of its own."""

    def __init__(
        self, store: Store, fetches: Mapping[str, Fetch], failures: Mapping[str, Failure]
    ) -> None:
        self._store = store
        self._fetches = fetches
        self._failures = failures

    def paths(self, revision: str, blob: str) -> tuple[Path, Path] | None:
        """Data and journal of a blob of that revision; None as long as there is nothing of it."""
        fetch = self._fetches.get(revision)
        if fetch is not None:
            source = fetch.resolution.sources.get(blob)
            return self._store.blobs.paths(blob, source.provider_id) if source else None
        try:
            is_of_it = blob in self._store.revisions.manifest(revision).blobs
        except InvalidRequestError:
            return None
        return self._store.blobs.paths(blob, None) if is_of_it else None

    def prioritise(self, revision: str, blob: str, chunks: Sequence[int]) -> None:
        """Have chunks fetched next, if the revision is being fetched."""
        fetch = self._fetches.get(revision)
        if fetch is not None:
            fetch.prioritise(blob, chunks)

    def gone(self, revision: str) -> Failure | None:
        """Why what is absent of a revision will never come; None when it may."""
        failure = self._failures.get(revision)
        is_for_good = failure is not None and failure.reason in _FOR_GOOD
        return failure if is_for_good and revision not in self._fetches else None
