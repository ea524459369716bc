"""Messages between movers and their parent: one JSON array per packet of a SOCK_SEQPACKET socket.

Both ends are always of one version, for a parent starts its own workers. To a worker::

    ["fetch", …Assignment]    ["cancel", id]    ["keys", asker, keys]    ["hold", is_on]
    ["trust", profile]  + a file descriptor (PEM)

From it::

    ["done", …Done]   ["failed", …Failed]   ["cancelled", id]   ["usage", bytes, cpu_seconds]
"""

import json
from collections.abc import Sequence
from typing import NamedTuple

#: Longest packet either side sends: a request's head, escaped, and what goes with it.
MAX_PACKET_BYTES = 128 << 10

#: The profile that trusts the system's authorities.
SYSTEM_TRUST = 0


class Assignment(NamedTuple):
    """One range for a worker. `request` holds the bytes to send, as Latin-1 text.

    To a peer the worker adds its signature, and the answer must be signed. `crc32c` is then that of
    the bytes, if it is known; `server_name` is whom the certificate names, if not `host`. With
    `proxy_port`, `addresses` are those of a proxy that listens there: https by a tunnel. An urgent
    one does not wait for a connection to be free.
    """

    id: int
    scheme: str
    host: str
    port: int
    trust: int
    addresses: list[str]
    request: str
    path: str | None
    offset: int
    length: int
    validator: str | None
    total_bytes: int | None
    wants_crc64nvme: bool
    is_peer: bool = False
    crc32c: int | None = None
    server_name: str | None = None
    proxy_port: int | None = None
    is_urgent: bool = False

    @property
    def pool(self) -> tuple[str, str, int, int]:
        """Assignments of one pool may share a connection."""
        return self.scheme, self.host, self.port, self.trust


class Done(NamedTuple):
    """A range that is whole, checked and written."""

    id: int
    crc32c: int
    crc64nvme: int | None
    validator: str | None
    total_bytes: int
    seconds: float


class Failed(NamedTuple):
    """A range that is not; `kind` is a `FailureKind`."""

    id: int
    kind: str
    message: str
    retry_after: str | None
    location: str | None
    hints: Sequence[str] = ()


class Cancelled(NamedTuple):
    """Nothing more will be written for this range."""

    id: int


class Usage(NamedTuple):
    """What a worker has used since its start."""

    bytes_received: int
    cpu_seconds: float


class Cancel(NamedTuple):
    """Forget a range."""

    id: int


class Hold(NamedTuple):
    """Receive nothing but what is urgent, or go on with everything."""

    is_on: bool


class Keys(NamedTuple):
    """Who asks peers, ``host:port``, and the cluster's keys, as Latin-1 text: the first signs."""

    asker: str
    keys: list[str]


class Trust(NamedTuple):
    """A profile's authorities come with this packet, as a file descriptor."""

    profile: int


Message = Assignment | Cancel | Hold | Keys | Trust | Done | Failed | Cancelled | Usage

_KINDS: dict[str, type[Message]] = {
    "fetch": Assignment,
    "cancel": Cancel,
    "hold": Hold,
    "keys": Keys,
    "trust": Trust,
    "done": Done,
    "failed": Failed,
    "cancelled": Cancelled,
    "usage": Usage,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}


def encode(message: Message) -> bytes:
    return json.dumps((_NAMES[type(message)], *message), separators=(",", ":")).encode()


def decode(packet: bytes) -> Message:
    name, *fields = json.loads(packet)
    return _KINDS[name](*fields)
