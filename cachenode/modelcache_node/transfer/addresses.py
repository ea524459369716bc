"""Where a URL leads: its origin, the addresses behind it, and which of them may be connected to.

The parent of the movers looks names up and checks every address; a mover connects to the checked
addresses and to nothing else, so a name cannot change between the check and the connection.
"""

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from modelcache_api.errors import (
    EndpointDeniedError,
    InvalidSourceError,
    SourceUnavailableError,
)
from modelcache_node.transfer.rules import OpenNetwork, Rules

#: How long an answer is used. Object stores rotate their addresses within seconds to minutes.
FRESH_S = 30.0
#: Names remembered at once; arbitrary, far above the origins one node reads.
MAX_NAMES = 256
#: Addresses used of one name; object stores answer with up to 8.
MAX_ADDRESSES = 16

_DEFAULT_PORTS = {"http": 80, "https": 443}

#: What a resolver would read as an IPv4 address although it is not written as one.
_NUMERIC = re.compile(r"(0[xX][0-9a-fA-F]+|[0-9]+)(\.(0[xX][0-9a-fA-F]+|[0-9]+)){0,3}\.?")

Lookup = Callable[[str, int], Awaitable[Sequence[str]]]


class Endpoint(NamedTuple):
    """Whom a connection is to, and whom its certificate must name."""

    scheme: str
    host: str
    port: int

    @property
    def host_header(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


def parse_url(url: str) -> tuple[Endpoint, str]:
    """The endpoint of a URL, and its path and query exactly as written.

    Raises:
        InvalidSourceError: not a usable http or https URL.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as e:
        raise InvalidSourceError(f"malformed URL: {e}") from None
    if parts.scheme not in _DEFAULT_PORTS or not host or "@" in parts.netloc:
        raise InvalidSourceError("not a URL of the form http(s)://host[:port]/path")
    if not host.isascii():
        raise InvalidSourceError(f"the host {host[:80]!r} must be written in ASCII")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Endpoint(parts.scheme, host, port or _DEFAULT_PORTS[parts.scheme]), target


async def look_up(host: str, port: int) -> list[str]:
    """All addresses of a name, by the system's resolver, in a thread."""
    infos = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(info[4][0]) for info in infos]


def check_name(rules: Rules, host: str) -> None:
    """Whether an origin may be named that somebody else looks up for us.

    Raises:
        EndpointDeniedError: its name, or the address that stands there, is closed.
    """
    refusal = rules.host_refusal(host)
    if refusal is None and (_is_address(host) or _NUMERIC.fullmatch(host)):
        refusal = rules.address_refusal(host) if _is_address(host) else "an address in disguise"
    if refusal:
        raise EndpointDeniedError(f"{host[:80]}: {refusal}")


class AddressBook:
    """Checked addresses by name, for a while. Each call begins at the next address."""

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        rules: Rules | None = None,
        lookup: Lookup = look_up,
    ) -> None:
        self._clock = clock
        self._rules = rules or OpenNetwork()
        self._lookup = lookup
        self._known: dict[tuple[str, int], tuple[float, list[str]]] = {}
        self._turn = 0

    async def addresses_of(self, endpoint: Endpoint) -> list[str]:
        """Addresses to try, in this order.

        Raises:
            SourceUnavailableError: the name does not resolve now.
            EndpointDeniedError: it leads nowhere that may be connected to.
        """
        key = (endpoint.host, endpoint.port)
        looked_up_at, found = self._known.get(key, (0.0, []))
        if not found or self._clock() - looked_up_at > FRESH_S:
            found = await self._find(endpoint)
            while len(self._known) >= MAX_NAMES:
                self._known.pop(next(iter(self._known)))
            self._known[key] = (self._clock(), found)
        self._turn += 1
        turn = self._turn % len(found)
        return found[turn:] + found[:turn]

    def forget(self, endpoint: Endpoint) -> None:
        """Look the name up anew next time: its addresses did not answer."""
        self._known.pop((endpoint.host, endpoint.port), None)

    async def _find(self, endpoint: Endpoint) -> list[str]:
        refusal = self._rules.host_refusal(endpoint.host)
        if refusal:
            raise EndpointDeniedError(refusal)
        if _is_address(endpoint.host):
            found: Sequence[str] = [endpoint.host]
        else:
            try:
                found = await self._lookup(endpoint.host, endpoint.port)
            except (OSError, UnicodeError) as e:
                raise SourceUnavailableError(f"cannot resolve {endpoint.host}: {e}") from e
        allowed: list[str] = []
        for address in dict.fromkeys(found):
            refusal = self._rules.address_refusal(address)
            if refusal is None:
                allowed.append(address)
        if not allowed:
            raise EndpointDeniedError(
                f"{endpoint.host} leads to no address that may be used: {refusal}"
            )
        return allowed[:MAX_ADDRESSES]


def _is_address(host: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except OSError:
            continue
        return True
    return False
