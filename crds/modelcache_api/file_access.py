"""How a lazy mount gets at a revision's bytes while they come: its server's talk with the agent.

Version 1. A SOCK_SEQPACKET unix socket beside the local API's, for root alone; one JSON object per
datagram. The server begins::

    {"version": 1, "revision": "sha256:…"}
    {"open": "<blob key>"}                       hand the blob over, as soon as there is anything
    {"want": "<blob key>", "chunks": [5, 6, 7]}  a reader waits for these: fetch them first

and the agent answers, in any order and as often as it sees fit::

    {"blob": "<blob key>"}      with two descriptors, read-only: the data, and the chunk journal
                                (`modelcache_api.chunks`) that says what of it may be shown
    {"gone": "<blob key>", "reason": "SourceChanged", "message": "…"}
                                what is absent of it will never come: nobody has it any more

That chunks came is to be seen in the journal, and told by nobody. Either side may close at any
time; the server comes again and repeats what it still lacks. Standard library only, because the
server has to start in milliseconds.
"""

import json
from dataclasses import dataclass
from typing import Any

from modelcache_api.errors import InvalidRequestError
from modelcache_api.names import blob_hex, revision_hex
from modelcache_api.reasons import Reason

VERSION = 1
#: Name of the socket, in the directory of the local API's.
SOCKET_NAME = "files.sock"
#: Chunks in one message. Arbitrary: 4 GiB of read-ahead.
MAX_CHUNKS = 256
#: Bytes of a datagram; a message with that many chunks, or a long explanation, is well below.
MAX_DATAGRAM_BYTES = 16 << 10
#: Descriptors that come with a blob.
N_DESCRIPTORS = 2
#: Characters of an explanation.
_MAX_TEXT = 1000
#: Chunk indexes are below this: a file of 2^47 bytes has 2^23 chunks.
_MAX_INDEX = 1 << 24


@dataclass(frozen=True, slots=True)
class Greeting:
    """Which revision the connection is about."""

    revision: str


@dataclass(frozen=True, slots=True)
class OpenBlob:
    """Hand this blob over, now or when there is anything of it."""

    blob: str


@dataclass(frozen=True, slots=True)
class WantChunks:
    """Readers wait for these chunks, the first most urgently."""

    blob: str
    chunks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class BlobHandedOver:
    """Two descriptors come with this message."""

    blob: str


@dataclass(frozen=True, slots=True)
class BlobGone:
    """What is absent of the blob will never come."""

    blob: str
    reason: Reason
    message: str


FromServer = Greeting | OpenBlob | WantChunks
FromAgent = BlobHandedOver | BlobGone


def pack(message: FromServer | FromAgent) -> bytes:
    """One datagram."""
    if isinstance(message, Greeting):
        return _dump({"version": VERSION, "revision": message.revision})
    if isinstance(message, OpenBlob):
        return _dump({"open": message.blob})
    if isinstance(message, WantChunks):
        return _dump({"want": message.blob, "chunks": message.chunks[:MAX_CHUNKS]})
    if isinstance(message, BlobHandedOver):
        return _dump({"blob": message.blob})
    text = message.message[:_MAX_TEXT]
    return _dump({"gone": message.blob, "reason": message.reason, "message": text})


def parse_from_server(raw: bytes) -> FromServer:
    """Raises InvalidRequestError: not a message of this version."""
    document = _load(raw)
    if "revision" in document:
        if document.get("version") != VERSION:
            raise InvalidRequestError(f"only version {VERSION} of file access is spoken here")
        revision = _text(document, "revision")
        revision_hex(revision)
        return Greeting(revision)
    if "open" in document:
        return OpenBlob(blob_hex(_text(document, "open")))
    return WantChunks(blob_hex(_text(document, "want")), _indexes(document.get("chunks")))


def parse_from_agent(raw: bytes) -> FromAgent:
    """Raises InvalidRequestError: not a message of this version."""
    document = _load(raw)
    if "blob" in document:
        return BlobHandedOver(blob_hex(_text(document, "blob")))
    gone = blob_hex(_text(document, "gone"))
    try:
        reason = Reason(_text(document, "reason"))
    except ValueError:
        reason = Reason.INTERNAL  # of a newer agent
    return BlobGone(gone, reason, _text(document, "message")[:_MAX_TEXT])


def _dump(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _load(raw: bytes) -> dict[str, Any]:
    try:
        document = json.loads(raw)
    except ValueError as e:
        raise InvalidRequestError(f"not a message: {e}") from e
    if not isinstance(document, dict):
        raise InvalidRequestError("not a message: no object")
    return document


def _text(document: dict[str, Any], key: str) -> str:
    value = document.get(key)
    if not isinstance(value, str):
        raise InvalidRequestError(f"not a message: {key!r} is missing or no text")
    return value


def _indexes(value: object) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) > MAX_CHUNKS:
        raise InvalidRequestError(f"'chunks' is a list of at most {MAX_CHUNKS}")
    for index in value:
        if type(index) is not int or not 0 <= index < _MAX_INDEX:
            raise InvalidRequestError("'chunks' are indexes of chunks")
    return tuple(value)
