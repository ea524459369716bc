"""Which hosts and addresses tenants may send this node to. Pure; `addresses` applies it.

An endpoint is a tenant's word, and the node that follows it has another place in the network than
the tenant: beside the cloud's metadata service, on the node's loopback, inside the cluster. So
those places are closed unless the administrator opens them, by range; and where he lists hosts,
all others are closed too. Of the ranges that hold an address, the narrowest decides: opening
``0.0.0.0/0`` opens no metadata service, and closing the pods' range closes it within an open one.
"""

import ipaddress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TypeAlias

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

#: How an administrator opens an address; named in refusals.
ALLOW_FLAG = "allow-range"
ALLOW_VALUE = "network.allowedRanges"
ALLOW_HOST_VALUE = "network.allowedHosts"

#: Closed by themselves, and why. IANA's special-purpose registries, and what clouds document.
_CLOSED: tuple[tuple[Network, str], ...] = tuple(
    (ipaddress.ip_network(network), what)
    for what, networks in {
        "this host": ("0.0.0.0/8", "127.0.0.0/8", "::/128", "::1/128"),
        "link-local, where metadata services are": ("169.254.0.0/16", "fe80::/10"),
        "a cloud's metadata service": (
            "100.100.100.200/32",  # Alibaba Cloud
            "168.63.129.16/32",  # Azure's wire server
            "192.0.0.0/24",  # Oracle Cloud; IETF protocol assignments
            "fd00:ec2::254/128",  # AWS
            "fd20:ce::254/128",  # Google Cloud
        ),
        "private, where clusters are": (
            *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"),
            *("fc00::/7", "fec0::/10"),
        ),
        "no single host": ("224.0.0.0/4", "240.0.0.0/4", "ff00::/8"),
    }.items()
    for network in networks
)
#: IPv6 that a translator turns into the IPv4 address in its last 32 bits (RFC 6052, RFC 8215).
_NAT64 = tuple(map(ipaddress.IPv6Network, ("64:ff9b::/96", "64:ff9b:1::/48")))


@dataclass(frozen=True, slots=True)
class NetworkRules:
    """What the administrator says; see the module.

    Attributes:
        allowed_ranges: Open, unless a narrower range is closed.
        denied_ranges: Closed, unless a narrower range is open: the cluster's own, where public.
        allowed_hosts: Patterns of host names, with ``*``; empty: any.
    """

    allowed_ranges: tuple[Network, ...] = ()
    denied_ranges: tuple[Network, ...] = ()
    allowed_hosts: tuple[str, ...] = ()

    def host_refusal(self, host: str) -> str | None:
        """Why a host may not be named; None: it may."""
        name = host.lower().rstrip(".")
        if not self.allowed_hosts or any(
            fnmatchcase(name, pattern.lower()) for pattern in self.allowed_hosts
        ):
            return None
        return (
            f"the host {host[:80]} is not among those that the administrator allows "
            f"({ALLOW_HOST_VALUE})"
        )

    def address_refusal(self, text: str) -> str | None:
        """Why an address may not be connected to; None: it may."""
        for address in _meanings(text):
            refusal = self._refusal(address)
            if refusal:
                return refusal
        return None

    def _refusal(self, address: Address) -> str | None:
        open_bits = _narrowest(self.allowed_ranges, address)
        denied_bits = _narrowest(self.denied_ranges, address)
        closed = [(network, what) for network, what in _CLOSED if address in network]
        closed_bits = max((network.prefixlen for network, _ in closed), default=-1)
        if open_bits >= max(closed_bits, denied_bits):
            return None
        what = "closed by the administrator"
        if closed_bits > denied_bits:
            what = next(what for network, what in closed if network.prefixlen == closed_bits)
        return (
            f"{address} is {what}; an administrator can open it: "
            f"{ALLOW_VALUE}: [{address}/{address.max_prefixlen}]"
        )


@dataclass(frozen=True, slots=True)
class OpenNetwork:
    """No rules: who starts the process may go anywhere it can."""

    def host_refusal(self, _host: str) -> None:
        return None

    def address_refusal(self, _text: str) -> None:
        return None


Rules: TypeAlias = NetworkRules | OpenNetwork


def parse_network(text: str) -> Network:
    """``10.0.0.0/8`` or one address.

    Raises:
        ValueError: neither, or with bits set beyond its prefix.
    """
    return ipaddress.ip_network(text)


def _narrowest(networks: tuple[Network, ...], address: Address) -> int:
    return max((one.prefixlen for one in networks if address in one), default=-1)


def _meanings(text: str) -> list[Address]:
    """An address, and the IPv4 address that it reaches by another way."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv4Address):
        return [address]
    inner = address.ipv4_mapped or address.sixtofour or (address.teredo and address.teredo[1])
    if inner is None and any(address in network for network in _NAT64):
        inner = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    if inner is None and int(address) >> 32 == 0 and int(address) > 1:  # deprecated ::a.b.c.d
        inner = ipaddress.IPv4Address(int(address))
    if address.ipv4_mapped:
        return [address.ipv4_mapped]
    return [address, inner] if inner else [address]
