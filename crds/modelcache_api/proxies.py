"""Which origins are reached through the administrator's proxies. Pure.

``HTTPS_PROXY``, ``HTTP_PROXY`` and ``NO_PROXY`` as other programs read them: https goes through its
proxy by CONNECT, so that it sees names and no bytes; http is asked of its proxy by whole URLs; what
``NO_PROXY`` names goes straight.
"""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlsplit

from modelcache_api.errors import InvalidRequestError


class ProxyAddress(NamedTuple):
    """Where a proxy listens, in plain HTTP."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Proxies:
    """By the origin's scheme; None: straight."""

    https: ProxyAddress | None = None
    http: ProxyAddress | None = None
    exempt: tuple[str, ...] = ()

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Proxies":
        """Raises InvalidRequestError: a proxy is not ``http://host:port``."""
        exempt = _value(environment, "NO_PROXY")
        return cls(
            _address(environment, "HTTPS_PROXY"),
            _address(environment, "HTTP_PROXY"),
            tuple(name.strip().lower() for name in exempt.split(",") if name.strip()),
        )

    def way_to(self, scheme: str, host: str) -> ProxyAddress | None:
        """The proxy through which an origin is reached; None: straight."""
        proxy = self.https if scheme == "https" else self.http
        if proxy is None or any(_is_exempt(host.lower(), name) for name in self.exempt):
            return None
        return proxy


def _value(environment: Mapping[str, str], name: str) -> str:
    return environment.get(name) or environment.get(name.lower()) or ""


def _address(environment: Mapping[str, str], name: str) -> ProxyAddress | None:
    url = _value(environment, name)
    if not url:
        return None
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError as e:
        raise InvalidRequestError(f"{name}: {e}") from None
    if parts.scheme != "http" or not parts.hostname or not port or "@" in parts.netloc:
        raise InvalidRequestError(f"{name} is http://host:port, without a user name")
    return ProxyAddress(parts.hostname, port)


def _is_exempt(host: str, name: str) -> bool:
    if name == "*":
        return True
    try:
        address = ipaddress.ip_address(host)
        return address in ipaddress.ip_network(name, strict=False)
    except ValueError:  # one of them is no address: names are compared
        suffix = name.removeprefix("*").removeprefix(".")
        return host == suffix or host.endswith(f".{suffix}")
