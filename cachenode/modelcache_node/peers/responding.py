"""What a request is answered with: who may ask, what is held, and whether there is a place."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from modelcache_api.peer_auth import (
    HEADER,
    Asked,
    ClusterKeys,
    UntrustedError,
    nonce_of,
    verify_request,
)
from modelcache_node.peers.answers import Signer, chunk_head, text_answer
from modelcache_node.peers.connections import FileSlice, PeerConnection
from modelcache_node.peers.holdings import Holdings
from modelcache_node.peers.requests import (
    PEER_PREFIX,
    PUBLIC_TARGETS,
    ChunkName,
    PeerRequest,
    chunk_named,
)
from modelcache_node.peers.sharing import NonceTable, UploadPlaces, Verdict


class AskParent(Protocol):
    """Has the parent answer; when busy, with a 503 that says who else holds a chunk."""

    def __call__(
        self,
        connection: PeerConnection,
        signer: Signer,
        request: PeerRequest,
        asker: str | None,
        *,
        is_busy: bool,
    ) -> None: ...


@dataclass(slots=True)
class Counts:
    """Since the start: chunks served whole, turned away for want of a place, not trusted."""

    uploads: int = 0
    busy: int = 0
    refused: int = 0


class Responder:
    """See the module. `keys` are set before the first request."""

    def __init__(
        self,
        provider: str,
        holdings: Holdings,
        nonces: NonceTable,
        places: UploadPlaces,
        *,
        clock: Callable[[], float],
        now: Callable[[], float],
        ask: AskParent,
    ) -> None:
        """`clock` is monotonic, `now` the wall clock; both in seconds."""
        self.keys: ClusterKeys | None = None
        self.counts = Counts()
        self._provider = provider
        self._holdings = holdings
        self._nonces = nonces
        self._places = places
        self._clock = clock
        self._now = now
        self._ask = ask
        self._upload_s = 0.0

    @property
    def retry_after_s(self) -> int:
        """When a place may be free again, if uploads go on as the last one did; whole seconds."""
        return round(self._upload_s / self._places.count)

    def on_request(self, connection: PeerConnection, request: PeerRequest) -> None:
        """Answer, now or later."""
        assert self.keys is not None, "nothing is accepted before keys came"
        stated = request.headers.get(HEADER.lower())
        if request.target in PUBLIC_TARGETS:
            unsigned = Signer(self.keys, self._provider, None)
            self._ask(connection, unsigned, request, None, is_busy=False)
            return
        signer = Signer(self.keys, self._provider, nonce_of(stated))
        try:
            asker = self._admit(self.keys, request, stated)
        except UntrustedError as e:
            self.counts.refused += 1
            connection.answer(text_answer(signer, 401, str(e)), closes=True)
            return
        if asker is None:
            connection.answer(text_answer(signer, 503, "", retry_after_s=1))
            return
        connection.is_known = True
        name = chunk_named(request.target)
        if name is not None:
            self._serve_chunk(connection, signer, name, request, asker)
        elif request.target.startswith(PEER_PREFIX):
            self._ask(connection, signer, request, asker, is_busy=False)
        else:
            connection.answer(text_answer(signer, 404, "nothing is served under this path"))

    def _admit(self, keys: ClusterKeys, request: PeerRequest, stated: str | None) -> str | None:
        """Who asks; None: too many ask at once.

        Raises:
            UntrustedError: see there.
        """
        byte_range = request.headers.get("range", "")
        asked = Asked(request.method, request.target, byte_range, request.body)
        now = self._now()
        admission = verify_request(keys, stated, asked, now=now)
        verdict = self._nonces.admit(admission.nonce, expires_at=admission.expires_at, now=now)
        if verdict is Verdict.SEEN:
            raise UntrustedError("this very request came before: it is not served again")
        return admission.asker if verdict is Verdict.NEW else None

    def _serve_chunk(
        self,
        connection: PeerConnection,
        signer: Signer,
        name: ChunkName,
        request: PeerRequest,
        asker: str,
    ) -> None:
        held = self._holdings.open(name)
        if held is None:
            connection.answer(text_answer(signer, 404, "not held here"))
            return
        whole = f"bytes={held.offset}-{held.offset + held.length - 1}"
        if request.headers.get("range", whole) != whole:
            os.close(held.fd)
            connection.answer(text_answer(signer, 416, "chunks are served whole"))
            return
        place = self._places.take(name)
        if place is None:
            os.close(held.fd)
            self.counts.busy += 1
            who_else = PeerRequest("GET", f"{PEER_PREFIX}holders/{name.blob}/{name.number}", {})
            self._ask(connection, signer, who_else, asker, is_busy=True)
            return
        began_at = self._clock()

        def end(n_unsent: int) -> None:
            self._places.free(place)
            if n_unsent == 0:
                self.counts.uploads += 1
                self._upload_s = self._clock() - began_at

        body = FileSlice(held.fd, held.offset, held.length, end, takes_turn=True)
        connection.answer(chunk_head(signer, name, held), body)
