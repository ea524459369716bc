"""Small things asked of other agents: maps, manifests, proofs. Signed, checked, bounded."""

import asyncio
import secrets
import ssl
from collections.abc import Callable
from types import TracebackType
from typing import Self

import aiohttp
from yarl import URL

from modelcache_api.have_map import MAX_HAVE_MAP_BYTES
from modelcache_api.names import revision_hex
from modelcache_api.peer_auth import (
    HEADER,
    NONCE_BYTES,
    Asked,
    ClusterKeys,
    UntrustedError,
    sha256_text,
    sign_request,
    verify_answer,
)
from modelcache_api.peer_proofs import MAX_PROOFS_BYTES
from modelcache_api.units import KIB, MIB
from modelcache_node.peers.requests import PEER_PREFIX
from modelcache_node.transfer.peer_ranges import (
    BUSY_PAUSE_S,
    PeerBusyError,
    PeerLacksError,
    PeerMisbehavedError,
    PeerRefusedError,
    PeerUnavailableError,
)
from modelcache_node.transfer.ranges import PeerTls

#: Connections kept to one peer: one for a long poll, one beside it.
CONNECTIONS_PER_PEER = 2
#: Connections at once; those of 32 neighbours.
MAX_CONNECTIONS = 64
CONNECT_TIMEOUT_S = 5.0
#: For an answer that waits for nothing. Arbitrary; above what a loaded node takes.
ANSWER_TIMEOUT_S = 10.0
MANIFEST_TIMEOUT_S = 60.0
#: A manifest of 100,000 files with long names. Arbitrary bound on what is read.
MAX_MANIFEST_BYTES = 256 * MIB
MAX_CLAIM_BYTES = 64 * KIB
_MESSAGE_CHARS = 300


class PeerClient:
    """See the module. An async context manager."""

    def __init__(
        self,
        keys: ClusterKeys,
        *,
        asker: str,
        now: Callable[[], float],
        tls: PeerTls | None = None,
    ) -> None:
        """Open nothing yet.

        Args:
            keys: Of the cluster; set `keys` again when they are rotated.
            asker: This node, ``host:port``.
            now: The wall clock, in seconds.
            tls: How peers are known; None speaks plain HTTP.
        """
        self.keys = keys
        self._asker = asker
        self._now = now
        self._tls = tls
        self._context = None if tls is None else ssl.create_default_context(cadata=tls.ca_pem)
        self._session: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=MAX_CONNECTIONS, limit_per_host=CONNECTIONS_PER_PEER
            ),
            auto_decompress=False,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._session.close()
        await asyncio.sleep(0)  # aiohttp's sockets close at the loop's next turn

    async def manifest(self, peer: str, revision: str) -> bytes:
        """The canonical manifest of a revision, whose digest was compared.

        Raises:
            PeerError: as the others here.
        """
        target = f"{PEER_PREFIX}revisions/{revision_hex(revision)}/manifest"
        body = await self._ask(
            peer, Asked("GET", target), max_bytes=MAX_MANIFEST_BYTES, timeout_s=MANIFEST_TIMEOUT_S
        )
        if sha256_text(body) != revision:
            raise PeerMisbehavedError(peer, "sent the manifest of another revision")
        return body

    async def proofs(self, peer: str, revision: str) -> bytes:
        """Who was proved to read a revision, by a peer's own record; packed."""
        target = f"{PEER_PREFIX}revisions/{revision_hex(revision)}/proofs"
        return await self._ask(
            peer, Asked("GET", target), max_bytes=MAX_PROOFS_BYTES, timeout_s=ANSWER_TIMEOUT_S
        )

    async def have(
        self, peer: str, revision: str, *, instance: int, since: int, wait_s: float
    ) -> bytes:
        """A peer's have-map, packed; it waits for something new up to `wait_s`, in seconds."""
        target = (
            f"{PEER_PREFIX}revisions/{revision_hex(revision)}/have"
            f"?instance={instance}&since={since}&wait_ms={int(wait_s * 1000)}"
        )
        return await self._ask(
            peer,
            Asked("GET", target),
            max_bytes=MAX_HAVE_MAP_BYTES,
            timeout_s=wait_s + ANSWER_TIMEOUT_S,
        )

    async def claim(self, peer: str, revision: str, body: bytes) -> bytes:
        """What a peer says to a claim; both packed."""
        target = f"{PEER_PREFIX}revisions/{revision_hex(revision)}/claims"
        return await self._ask(
            peer,
            Asked("POST", target, body=body),
            max_bytes=MAX_CLAIM_BYTES,
            timeout_s=ANSWER_TIMEOUT_S,
        )

    async def _ask(self, peer: str, asked: Asked, *, max_bytes: int, timeout_s: float) -> bytes:
        """The body of a peer's answer; a longer one than `max_bytes` is refused.

        Raises:
            PeerError: see its kinds.
        """
        nonce = secrets.token_hex(NONCE_BYTES)
        signature = sign_request(self.keys, asked, asker=self._asker, nonce=nonce, now=self._now())
        scheme = "http" if self._tls is None else "https"
        try:
            async with self._session.request(
                asked.method,
                URL(f"{scheme}://{peer}{asked.target}", encoded=True),
                data=asked.body or None,
                headers={HEADER: signature, "Accept-Encoding": "identity"},
                allow_redirects=False,
                ssl=self._context or True,
                server_hostname=None if self._tls is None else self._tls.server_name,
                timeout=aiohttp.ClientTimeout(timeout_s, connect=CONNECT_TIMEOUT_S),
            ) as answer:
                body = await _read(answer, peer, max_bytes)
        except aiohttp.ClientResponseError as e:
            raise PeerMisbehavedError(peer, f"malformed answer: {e.message}") from e
        except (aiohttp.ClientError, OSError, ValueError) as e:
            raise PeerUnavailableError(peer, f"{type(e).__name__}: {e}") from e
        return self._judge(peer, answer, body, nonce)

    def _judge(self, peer: str, answer: aiohttp.ClientResponse, body: bytes, nonce: str) -> bytes:
        text = body[:_MESSAGE_CHARS].decode("utf-8", "replace").strip()
        if answer.status == 401:  # a node with another key cannot sign for us
            raise PeerRefusedError(peer, text)
        try:
            answered = verify_answer(
                self.keys,
                answer.headers.get(HEADER),
                nonce=nonce,
                status=answer.status,
                length=len(body),
            )
        except UntrustedError as e:
            raise PeerMisbehavedError(peer, f"HTTP {answer.status}: {e}") from e
        if answered.checksum != sha256_text(body):
            raise PeerMisbehavedError(peer, "the answer's body is not the one that was signed")
        if answer.status == 503:
            raise PeerBusyError(peer, retry_after_s=BUSY_PAUSE_S, hints=())
        if answer.status == 404:
            raise PeerLacksError(peer, text)
        if answer.status >= 500:
            raise PeerUnavailableError(peer, f"HTTP {answer.status}: {text}")
        if answer.status != 200:
            raise PeerMisbehavedError(peer, f"HTTP {answer.status}: {text}")
        return body


async def _read(answer: aiohttp.ClientResponse, peer: str, max_bytes: int) -> bytes:
    """The whole body, if it is not too long."""
    pieces: list[bytes] = []
    n_bytes = 0
    async for piece in answer.content.iter_chunked(1 << 16):
        n_bytes += len(piece)
        if n_bytes > max_bytes:
            raise PeerMisbehavedError(peer, f"its answer is longer than {max_bytes} bytes")
        pieces.append(piece)
    return b"".join(pieces)
