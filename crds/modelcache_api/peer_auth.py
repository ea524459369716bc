"""How agents know each other's requests and answers: HMAC-SHA256 under the cluster key, version 1.

A request carries ``ModelCache-Peer: 1 <unix_ms> <nonce> <asker> <mac>``, its MAC over these, each
followed by a line feed::

    modelcache-peer-request-1, unix_ms, nonce, asker, method, target, range, body

An answer carries ``ModelCache-Peer: 1 <provider> <checksum> <mac>``, its MAC over these::

    modelcache-peer-answer-1, nonce, status, length, checksum, provider

`nonce` is 32 hexadecimal digits, new for each request; `asker` and `provider` are who asks and who
answers, as ``host:port``; `target` is path and query as sent; `range` the value of ``Range`` or
nothing; `body` ``sha256:<64 hex>`` of the request's body, or nothing without one; `length` that of
the answer's body; `checksum` ``crc32c:<8 hex>`` of a chunk's bytes or ``sha256:<64 hex>`` of any
other body. MACs are 64 hexadecimal digits.

What this is for: who lacks the key is served nothing, and nothing of his is taken. A request is
good once, at one node, within `MAX_SKEW_S` of that node's clock. Who can change bytes on their way
can still forge a body of equal CRC32C; against him there is TLS, and the origin's checksum.
"""

import hashlib
import hmac
import re
from dataclasses import dataclass, field
from typing import Self

from modelcache_api.errors import InvalidRequestError, ModelCacheError

HEADER = "ModelCache-Peer"
VERSION = "1"
#: How far two nodes' clocks may differ, a request's time in queues included. Arbitrary; NTP keeps
#: clocks within milliseconds.
MAX_SKEW_S = 120.0
NONCE_BYTES = 16
#: Shortest key, in bytes: as long as the hash (RFC 2104, section 3).
MIN_KEY_BYTES = 32
MAX_KEYS = 2

_NONCE = re.compile(r"[0-9a-f]{32}")
_MAC = re.compile(r"[0-9a-f]{64}")
_MILLISECONDS = re.compile(r"[0-9]{1,15}")
_ADDRESS = re.compile(r"[!-~]{1,300}")
_CHECKSUM = re.compile(r"crc32c:[0-9a-f]{8}|sha256:[0-9a-f]{64}")


class UntrustedError(ModelCacheError):
    """A request or an answer is not one of this cluster's, or not one of now. Use nothing of it."""


class ClockSkewError(UntrustedError):
    """A request is genuine, and from another time. Its text has the difference in it."""


@dataclass(frozen=True, slots=True)
class ClusterKeys:
    """The key that signs, and those that verify: itself, and one more during a rotation."""

    keys: tuple[bytes, ...] = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Keys from a file: one line each, the first one signs.

        Raises:
            InvalidRequestError: not one or two keys of at least 32 bytes.
        """
        keys = tuple(line.strip().encode() for line in text.splitlines() if line.strip())
        if not 0 < len(keys) <= MAX_KEYS:
            raise InvalidRequestError(
                f"{len(keys)} cluster keys; give one line, or two while it is rotated"
            )
        if any(len(key) < MIN_KEY_BYTES for key in keys):
            raise InvalidRequestError(f"a cluster key has at least {MIN_KEY_BYTES} bytes")
        return cls(keys)

    @classmethod
    def of_loopback(cls) -> Self:
        """No secret: for agents that one machine's loopback keeps apart from all others."""
        return cls((b"modelcache agents of one loopback",))

    def mac(self, text: str) -> str:
        return _mac(self.keys[0], text)

    def has_made(self, mac: str, text: str) -> bool:
        """Whether one of the keys made this MAC. Takes the same time for any wrong one."""
        found = [hmac.compare_digest(_mac(key, text), mac) for key in self.keys]
        return any(found)


@dataclass(frozen=True, slots=True)
class Asked:
    """What of a request is signed. `byte_range` is the value of ``Range``, or empty."""

    method: str
    target: str
    byte_range: str = ""
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Answered:
    """What of an answer is signed."""

    status: int
    length: int
    checksum: str
    provider: str


@dataclass(frozen=True, slots=True)
class Admission:
    """A genuine request of now. Its nonce must not have been seen, and be kept until it expires."""

    asker: str
    nonce: str
    expires_at: float


def sign_request(keys: ClusterKeys, asked: Asked, *, asker: str, nonce: str, now: float) -> str:
    """The header's value.

    Args:
        keys: Of the cluster.
        asked: The request.
        asker: This node, ``host:port``.
        nonce: 32 hexadecimal digits, never used before.
        now: Seconds of the Unix epoch.
    """
    unix_ms = str(int(now * 1000))
    mac = keys.mac(_request_text(unix_ms, nonce, asker, asked))
    return f"{VERSION} {unix_ms} {nonce} {asker} {mac}"


def verify_request(keys: ClusterKeys, value: str | None, asked: Asked, *, now: float) -> Admission:
    """Check a request's header, but for whether its nonce is new.

    Raises:
        ClockSkewError: signed with the cluster's key, at another time.
        UntrustedError: not signed by this cluster, or not what was signed.
    """
    unix_ms, nonce, asker, mac = _request_fields(value)
    if not keys.has_made(mac, _request_text(unix_ms, nonce, asker, asked)):
        raise UntrustedError(
            "the request is not signed with this node's cluster key; compare the key files"
        )
    sent_at = int(unix_ms) / 1000
    skew_s = sent_at - now
    if abs(skew_s) > MAX_SKEW_S:
        where = "ahead of" if skew_s > 0 else "behind"
        raise ClockSkewError(
            f"clock skew: the asking node's clock is {abs(skew_s):.1f} s {where} this node's, and"
            f" {MAX_SKEW_S:.0f} s are allowed; synchronise the clocks (NTP)"
        )
    return Admission(asker, nonce, sent_at + MAX_SKEW_S)


def nonce_of(value: str | None) -> str | None:
    """The nonce that a request states, true or not: so that its refusal can be signed."""
    try:
        return _request_fields(value)[1]
    except UntrustedError:
        return None


def sign_answer(keys: ClusterKeys, answered: Answered, *, nonce: str) -> str:
    """The header's value."""
    mac = keys.mac(_answer_text(nonce, answered))
    return f"{VERSION} {answered.provider} {answered.checksum} {mac}"


def verify_answer(
    keys: ClusterKeys, value: str | None, *, nonce: str, status: int, length: int
) -> Answered:
    """Check an answer's header; that its body has this checksum is left to who reads it.

    Raises:
        UntrustedError: not an answer of this cluster to the request with this nonce.
    """
    fields = (value or "").split(" ")
    if len(fields) != 4 or fields[0] != VERSION:
        raise UntrustedError("the answer is not signed, or in another version")
    _, provider, checksum, mac = fields
    if not (_ADDRESS.fullmatch(provider) and _CHECKSUM.fullmatch(checksum)):
        raise UntrustedError("the answer's signature is malformed")
    answered = Answered(status, length, checksum, provider)
    if not _MAC.fullmatch(mac) or not keys.has_made(mac, _answer_text(nonce, answered)):
        raise UntrustedError("the answer is not one of this cluster to this request")
    return answered


def crc32c_text(crc32c: int) -> str:
    return f"crc32c:{crc32c:08x}"


def sha256_text(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def _mac(key: bytes, text: str) -> str:
    return hmac.new(key, text.encode("latin-1"), hashlib.sha256).hexdigest()


def _request_fields(value: str | None) -> tuple[str, str, str, str]:
    fields = (value or "").split(" ")
    if len(fields) != 5 or fields[0] != VERSION:
        raise UntrustedError("the request is not signed, or in another version")
    _, unix_ms, nonce, asker, mac = fields
    if not (
        _MILLISECONDS.fullmatch(unix_ms)
        and _NONCE.fullmatch(nonce)
        and _ADDRESS.fullmatch(asker)
        and _MAC.fullmatch(mac)
    ):
        raise UntrustedError("the request's signature is malformed")
    return unix_ms, nonce, asker, mac


def _request_text(unix_ms: str, nonce: str, asker: str, asked: Asked) -> str:
    body = sha256_text(asked.body) if asked.body else ""
    return _lines(
        "modelcache-peer-request-1",
        unix_ms,
        nonce,
        asker,
        asked.method,
        asked.target,
        asked.byte_range,
        body,
    )


def _answer_text(nonce: str, answered: Answered) -> str:
    return _lines(
        "modelcache-peer-answer-1",
        nonce,
        str(answered.status),
        str(answered.length),
        answered.checksum,
        answered.provider,
    )


def _lines(*parts: str) -> str:
    """One part per line. A part holds no line feed, so that no two lists give the same text."""
    assert not any("\n" in part for part in parts)
    return "".join(f"{part}\n" for part in parts)
