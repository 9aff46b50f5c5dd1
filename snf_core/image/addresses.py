"""Which addresses a node reaches for at a tenant's wish: public ones, and what the operator lists.

Whatever a tenant has the node fetch, the tenant gets to see. So nothing is reached that the tenant
could not reach alone: neither the node, nor its neighbours, nor the services that answer clouds'
machines at link-local addresses.
"""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# ipaddress.is_global is not enough: to Python 3.11, multicast is global, and so are 6to4, NAT64,
# site-local addresses and what has been set apart since.
_SPECIAL_IPV4 = [
    ipaddress.IPv4Network(prefix)
    for prefix in (
        "0.0.0.0/8",  # this host
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # behind a provider's NAT
        "127.0.0.0/8",  # loopback
        "169.254.0.0/16",  # link-local
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
]
"""IANA's registry of special-purpose IPv4 addresses, and multicast."""

_UNICAST_IPV6 = ipaddress.IPv6Network("2000::/3")
"""All that IANA has given out as global unicast. Outside of it are loopback, link-local, unique
local, site-local and multicast addresses, and those that hold an IPv4 address (mapped, NAT64)."""

_SPECIAL_IPV6 = [
    ipaddress.IPv6Network(prefix)
    for prefix in (
        "2001::/23",  # protocol assignments: Teredo, benchmarks, ORCHID
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4, which holds an IPv4 address
        "3fff::/20",  # documentation
    )
]
"""Of IANA's registry of special-purpose IPv6 addresses, what lies in 2000::/3."""


@dataclass(frozen=True)
class Allowed:
    """What may be reached although it is not public."""

    names: frozenset[str] = frozenset()
    """Hosts, in lower case, whatever addresses they have."""
    networks: tuple[Network, ...] = ()

    def host(self, name: str) -> bool:
        """Whether a host is listed by its name."""
        return name.lower().rstrip(".") in self.names

    def address(self, address: Address) -> bool:
        """Whether an address is in a listed prefix."""
        return any(address in network for network in self.networks)


def allowed(entries: Iterable[str]) -> Allowed:
    """Of hosts, addresses and prefixes; what is no address is a host."""
    names, networks = set(), []
    for entry in entries:
        try:
            networks.append(ipaddress.ip_network(entry))
        except ValueError:
            names.add(entry.lower().rstrip("."))
    return Allowed(frozenset(names), tuple(networks))


def public(address: Address) -> bool:
    """Whether an address belongs to somebody on the Internet."""
    if isinstance(address, ipaddress.IPv4Address):
        return address.is_global and not any(address in special for special in _SPECIAL_IPV4)
    return (
        address.is_global
        and address in _UNICAST_IPV6
        and not any(address in special for special in _SPECIAL_IPV6)
    )


def own(address: Address) -> bool:
    """Whether an address is one of this node's, public as it may be.

    The kernel says so: to its own addresses a node speaks from these (ip(7)). Nothing is sent.
    """
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((str(address), 9))
            return ipaddress.ip_address(probe.getsockname()[0]) == address
    except OSError:  # no way leads there, as will be seen
        return False
