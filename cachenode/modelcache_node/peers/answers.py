"""The heads of answers to peers, signed where there is a nonce to sign for. Pure."""

from typing import NamedTuple

from modelcache_api.peer_auth import (
    HEADER,
    Answered,
    ClusterKeys,
    crc32c_text,
    sha256_text,
    sign_answer,
)
from modelcache_node.peers.holdings import HeldChunk
from modelcache_node.peers.requests import ChunkName

_PHRASES = {
    200: "OK", 206: "Partial Content", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found",
    416: "Range Not Satisfiable", 503: "Service Unavailable",
}  # fmt: skip


class Signer(NamedTuple):
    """Who answers whom: this node's keys and address, and the nonce of the request."""

    keys: ClusterKeys
    provider: str
    nonce: str | None

    def header(self, status: int, length: int, checksum: str) -> tuple[str, str] | None:
        if self.nonce is None:
            return None
        answered = Answered(status, length, checksum, self.provider)
        return HEADER, sign_answer(self.keys, answered, nonce=self.nonce)


def text_answer(
    signer: Signer, status: int, text: str, *, retry_after_s: int | None = None
) -> bytes:
    """A whole answer with a text for people, or hints one per line."""
    body = text.encode("latin-1", "replace")
    headers = [("Content-Type", "text/plain")]
    if retry_after_s is not None:
        headers.append(("Retry-After", str(retry_after_s)))
    return answer_head(signer, status, len(body), sha256_text(body), headers) + body


def chunk_head(signer: Signer, name: ChunkName, held: HeldChunk) -> bytes:
    last = held.offset + held.length - 1
    headers = [
        ("Content-Range", f"bytes {held.offset}-{last}/{held.total_bytes}"),
        ("ETag", f'"{name.blob.partition(".")[0]}"'),
    ]
    return answer_head(signer, 206, held.length, crc32c_text(held.crc32c), headers)


def answer_head(
    signer: Signer, status: int, length: int, checksum: str, headers: list[tuple[str, str]]
) -> bytes:
    signature = signer.header(status, length, checksum)
    lines = [f"HTTP/1.1 {status} {_PHRASES.get(status, 'Other')}", f"Content-Length: {length}"]
    lines += [f"{name}: {value}" for name, value in (*headers, *([signature] if signature else []))]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
