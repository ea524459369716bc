"""What agents ask each other beside chunks: paths are read here, strictly, and answered by a host.

::

    GET  /peer/v1/revisions/<64 hex>/manifest
    GET  /peer/v1/revisions/<64 hex>/proofs
    GET  /peer/v1/revisions/<64 hex>/have?instance=<n>&since=<n>&wait_ms=<n>
    POST /peer/v1/revisions/<64 hex>/claims
    GET  /peer/v1/holders/<blob>/<number>      asked by this node's own workers, for a 503
    GET  /healthz, /metrics                    of anybody
"""

import re
from collections.abc import Awaitable, Callable
from typing import Protocol

from modelcache_node.peers.server import PeerCall, PeerReply

#: Longest that a have-map is waited for; below the server's own patience.
MAX_WAIT_S = 30.0

_REVISION = re.compile(
    r"/peer/v1/revisions/([0-9a-f]{64})/(manifest|proofs|claims|have)(?:\?(.*))?"
)
_HAVE = re.compile(r"instance=([0-9]{1,20})&since=([0-9]{1,20})&wait_ms=([0-9]{1,9})")
_HOLDERS = re.compile(r"/peer/v1/holders/([0-9a-f]{64}(?:\.[0-9a-f]{16})?)/([0-9]{1,9})")
_NOT_FOUND = PeerReply(404, b"no such revision here", "text/plain")


class SwarmHost(Protocol):
    """Answers of this node; None where it knows nothing of the revision."""

    def manifest(self, revision: str) -> bytes | None:
        """The canonical manifest."""
        ...

    def proofs(self, revision: str) -> bytes | None:
        """Who was proved to read it, packed."""
        ...

    async def have(
        self, revision: str, asker: str, *, instance: int, since: int, wait_s: float
    ) -> bytes | None:
        """The have-map, packed; waits up to `wait_s` seconds for one newer than `since`.

        `asker` is the address of who asks.
        """
        ...

    def claim(self, revision: str, asker: str, body: bytes) -> bytes | None:
        """The answer to a claim of `asker`, an address; both packed."""
        ...

    def holders(self, blob: str, index: int, asker: str) -> tuple[str, ...]:
        """Addresses of others that hold a chunk."""
        ...


class PeerApi:
    """See the module. Called by `PeerServer`; requests were verified there."""

    def __init__(self, host: SwarmHost, public: Callable[[str], Awaitable[PeerReply]]) -> None:
        """`public` answers the paths that need no signature."""
        self._host = host
        self._public = public

    async def __call__(self, call: PeerCall) -> PeerReply:
        if call.asker is None:
            return await self._public(call.target)
        revision = _REVISION.fullmatch(call.target)
        if revision:
            digest, kind, query = revision.groups(default="")
            return _found(await self._of_revision(f"sha256:{digest}", kind, query, call))
        holders = _HOLDERS.fullmatch(call.target)
        if holders:
            found = self._host.holders(holders[1], int(holders[2]), call.asker)
            return PeerReply(200, "\n".join(found).encode("latin-1"), "text/plain")
        return PeerReply(404, b"nothing is served under this path", "text/plain")

    async def _of_revision(
        self, revision: str, kind: str, query: str, call: PeerCall
    ) -> bytes | None:
        wish = _HAVE.fullmatch(query)
        if call.method == "POST" and kind == "claims":
            return self._host.claim(revision, call.asker or "", call.body)
        if call.method == "GET" and kind == "manifest":
            return self._host.manifest(revision)
        if call.method == "GET" and kind == "proofs":
            return self._host.proofs(revision)
        if call.method == "GET" and kind == "have" and wish:
            return await self._host.have(
                revision,
                call.asker or "",
                instance=int(wish[1]),
                since=int(wish[2]),
                wait_s=min(int(wish[3]) / 1000, MAX_WAIT_S),
            )
        return None


def _found(body: bytes | None) -> PeerReply:
    return _NOT_FOUND if body is None else PeerReply(200, body)
