"""Messages between upload workers and their parent: one JSON array per packet.

Both ends are always of one version, for a parent starts its own workers. To a worker::

    ["keys", key, …]      ["reply", …Reply]  + a file descriptor (the body)

From it::

    ["ask", …Ask]      ["usage", …Usage]
"""

import json
from typing import NamedTuple


class Keys(NamedTuple):
    """The cluster's keys, as Latin-1 text; the first one signs. No request is read before."""

    keys: list[str]


class Ask(NamedTuple):
    """A request that only the parent can answer; `asker` is who signed it, None for nobody.

    `body` is Latin-1 text.
    """

    id: int
    method: str
    target: str
    asker: str | None
    body: str


class Reply(NamedTuple):
    """Its answer; the body comes with this packet, as a file descriptor."""

    id: int
    status: int
    content_type: str
    length: int
    sha256: str


class Usage(NamedTuple):
    """What a worker has done since its start.

    `uploads` are chunks served whole, `busy` those refused for want of a place, `refused` requests
    that were not of this cluster, or not of now.
    """

    bytes_sent: int = 0
    uploads: int = 0
    busy: int = 0
    refused: int = 0
    connections: int = 0
    cpu_seconds: float = 0.0


Message = Keys | Ask | Reply | Usage

_KINDS: dict[str, type[Message]] = {"keys": Keys, "ask": Ask, "reply": Reply, "usage": Usage}
_NAMES = {kind: name for name, kind in _KINDS.items()}


def encode(message: Message) -> bytes:
    return json.dumps((_NAMES[type(message)], *message), separators=(",", ":")).encode()


def decode(packet: bytes) -> Message:
    name, *fields = json.loads(packet)
    return _KINDS[name](*fields)
