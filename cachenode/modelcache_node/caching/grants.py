"""Grants for a fetch: who gave them, which still hold, and when to ask for new ones.

Guarantees:
- a grant is in memory only, and gone with the session that brought it;
- `get` returns at once while a live grant is there, else it waits for a renewal or for another
  session; it is cancelled safely;
- at most one renewal per session is under way, of at most MAX_OBJECTS_PER_MESSAGE paths.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from modelcache_api.errors import ModelCacheError
from modelcache_api.listing import MAX_OBJECTS_PER_MESSAGE, ObjectGrant

#: A grant this near its end is renewed first. Arbitrary: above clock skew and one round trip; a
#: request that has begun may outlive its grant.
EXPIRY_MARGIN_S = 30.0


class GrantIssuer(Protocol):
    """A session that can grant anew."""

    async def renew(self, paths: Sequence[str]) -> Mapping[str, ObjectGrant]:
        """New grants by path; may leave out some. Raises UnavailableError when it is gone."""
        ...


class _Issued:
    """What one session brought: path and grant by blob."""

    def __init__(self, issuer: GrantIssuer, grants: dict[str, tuple[str, ObjectGrant]]) -> None:
        self.issuer = issuer
        self.grants = grants
        self.rejected: set[str] = set()
        self.wanted: dict[str, None] = {}
        self.renewal: asyncio.Task[None] | None = None


class GrantPool:
    """Grants to the blobs of one fetch. Its mutable state is the list of open sessions."""

    def __init__(
        self, now: Callable[[], float], is_of_blob: Callable[[str, ObjectGrant], bool]
    ) -> None:
        """`now` gives seconds of the Unix epoch: expiry is a wall-clock promise.

        `is_of_blob` says whether a grant leads to where a blob was resolved: a renewal must not
        send a fetch to another place, whose bytes would then be kept under this one's key.
        """
        self._now = now
        self._is_of_blob = is_of_blob
        self._issued: list[_Issued] = []
        self._changed = asyncio.Event()

    @property
    def has_sessions(self) -> bool:
        return bool(self._issued)

    def attach(self, issuer: GrantIssuer, grants: dict[str, tuple[str, ObjectGrant]]) -> None:
        """Take what a session brings: (path, grant) by blob."""
        self._issued.append(_Issued(issuer, grants))
        self._wake()

    def detach(self, issuer: GrantIssuer) -> None:
        """Forget a session's grants. Idempotent."""
        for issued in [entry for entry in self._issued if entry.issuer is issuer]:
            self._issued.remove(issued)
            if issued.renewal:
                issued.renewal.cancel()
        self._wake()

    async def get(self, blob: str) -> ObjectGrant:
        """A live grant to read `blob`; waits until some session has one."""
        while True:
            changed = self._changed
            for issued in self._issued:
                if blob not in issued.grants:
                    continue
                grant = issued.grants[blob][1]
                if blob not in issued.rejected and not self._is_stale(grant):
                    return grant
                self._renew(issued, blob)
            await changed.wait()

    def reject(self, blob: str, grant: ObjectGrant) -> None:
        """The origin refused this grant as expired: renew it before its time."""
        for issued in self._issued:
            if blob in issued.grants and issued.grants[blob][1] is grant:
                issued.rejected.add(blob)

    def _is_stale(self, grant: ObjectGrant) -> bool:
        return grant.expires_at is not None and grant.expires_at - self._now() < EXPIRY_MARGIN_S

    def _renew(self, issued: _Issued, blob: str) -> None:
        issued.wanted[blob] = None
        if issued.renewal is None or issued.renewal.done():
            issued.renewal = asyncio.create_task(self._renew_wanted(issued))

    async def _renew_wanted(self, issued: _Issued) -> None:
        try:
            while issued.wanted:
                blobs = list(issued.wanted)[:MAX_OBJECTS_PER_MESSAGE]
                paths = {issued.grants[blob][0]: blob for blob in blobs}
                fresh = await issued.issuer.renew(list(paths))
                for blob in blobs:
                    issued.wanted.pop(blob, None)
                for path in fresh.keys() & paths.keys():
                    blob = paths[path]
                    if self._is_of_blob(blob, fresh[path]):
                        issued.grants[blob] = (path, fresh[path])
                        issued.rejected.discard(blob)
                self._drop_ungranted(issued, set(blobs))
                self._wake()
        except ModelCacheError:
            self.detach(issued.issuer)

    def _drop_ungranted(self, issued: _Issued, blobs: set[str]) -> None:
        """A session that did not renew a grant in time has none: do not ask in a circle."""
        for blob in blobs:
            if blob in issued.rejected or self._is_stale(issued.grants[blob][1]):
                del issued.grants[blob]

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
