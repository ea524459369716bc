"""Which origins are reached through the administrator's proxy, and how a tunnel is asked for.

``HTTPS_PROXY`` and ``NO_PROXY`` as other programs read them: https goes through the proxy by
CONNECT, so that it sees names and no bytes; what ``NO_PROXY`` names, and plain http, goes straight.
The proxy is the administrator's, at whatever address; where a name leads behind it, the proxy
decides: of origins reached through it the *names* are checked (see `rules`), and addresses that
stand as names.
"""

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from modelcache_api.errors import InvalidRequestError
from modelcache_node.transfer.addresses import Endpoint
from modelcache_node.transfer.failures import FailureKind, RangeFailedError
from modelcache_node.transfer.transports import (
    WOULD_BLOCK,
    OpenTransport,
    PlainTransport,
    Transport,
)

#: A proxy's answer to CONNECT is a line and a few headers. Arbitrary, far above.
MAX_ANSWER_BYTES = 8 << 10


@dataclass(frozen=True, slots=True)
class Proxies:
    """See the module. `https` None: none."""

    https: Endpoint | None = None
    exempt: tuple[str, ...] = ()

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Proxies":
        """Raises InvalidRequestError: HTTPS_PROXY is not ``http://host:port``."""
        url = environment.get("HTTPS_PROXY") or environment.get("https_proxy") or ""
        exempt = environment.get("NO_PROXY") or environment.get("no_proxy") or ""
        names = tuple(name.strip().lower() for name in exempt.split(",") if name.strip())
        if not url:
            return cls(None, names)
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError as e:
            raise InvalidRequestError(f"HTTPS_PROXY: {e}") from None
        if parts.scheme != "http" or not parts.hostname or not port or "@" in parts.netloc:
            raise InvalidRequestError("HTTPS_PROXY is http://host:port, without a user name")
        return cls(Endpoint("http", parts.hostname, port), names)

    def way_to(self, endpoint: Endpoint) -> Endpoint | None:
        """The proxy through which an origin is reached; None: straight."""
        if self.https is None or endpoint.scheme != "https":
            return None
        host = endpoint.host.lower()
        return None if any(_is_exempt(host, name) for name in self.exempt) else self.https


def _is_exempt(host: str, name: str) -> bool:
    if name == "*":
        return True
    try:
        address = ipaddress.ip_address(host)
        return address in ipaddress.ip_network(name, strict=False)
    except ValueError:  # one of them is no address: names are compared
        suffix = name.removeprefix("*").removeprefix(".")
        return host == suffix or host.endswith(f".{suffix}")


class TunnelTransport:
    """CONNECT through a proxy, and then whatever goes through the tunnel."""

    def __init__(
        self, raw: PlainTransport, target: str, open_inner: Callable[[], Transport]
    ) -> None:
        self._raw = raw
        self._target = target
        self._open_inner = open_inner
        self._unsent = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode()
        self._answer = b""
        self._inner: Transport | None = None

    def fileno(self) -> int:
        return (self._inner or self._raw).fileno()

    def handshake(self) -> Literal["read", "write"] | None:
        if self._inner is None:
            wants = self._tunnel()
            if wants is not None:
                return wants
            self._inner = self._open_inner()
        return self._inner.handshake()

    def send(self, view: memoryview) -> int:
        assert self._inner is not None
        return self._inner.send(view)

    def receive(self, view: memoryview) -> int:
        assert self._inner is not None
        return self._inner.receive(view)

    def close(self) -> None:
        (self._inner or self._raw).close()

    def _tunnel(self) -> Literal["read", "write"] | None:
        while self._unsent:
            sent = self._raw.send(memoryview(self._unsent))
            if sent == WOULD_BLOCK:
                return "write"
            self._unsent = self._unsent[sent:]
        byte = memoryview(bytearray(1))  # not one more: what follows belongs to the tunnel
        while not self._answer.endswith(b"\r\n\r\n"):
            received = self._raw.receive(byte)
            if received == WOULD_BLOCK:
                return "read"
            if received == 0 or len(self._answer) >= MAX_ANSWER_BYTES:
                raise RangeFailedError(
                    FailureKind.UNAVAILABLE, f"the proxy opened no tunnel to {self._target}"
                )
            self._answer += bytes(byte)
        _, _, status = self._answer.partition(b" ")
        if not status.startswith(b"200"):
            kind = FailureKind.REFUSED if status[:1] == b"4" else FailureKind.UNAVAILABLE
            code = status[:3].decode("latin-1")
            said = code if code.isdigit() else "no HTTP"
            raise RangeFailedError(kind, f"the proxy opened no tunnel to {self._target}: {said}")
        return None


def through(target: str, open_inner: OpenTransport) -> OpenTransport:
    """A transport through the proxy that a socket is connected to."""
    return lambda connected: TunnelTransport(
        PlainTransport(connected), target, lambda: open_inner(connected)
    )
