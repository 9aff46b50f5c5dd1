"""The setup ``routed``: the node routes between the NIC and the uplink, without an address.

The guests' subnet is on the wire of the uplink U, a device of the node; the node routes to its
guests by the routing table T that the NIC's link names. T's default route leads out of U. On U
the node answers ARP requests and neighbour solicitations for each of its guests by itself, and
for nothing else; to the guest it answers for all IPv4 addresses, since all are behind the node.

IPv4 forwarding and proxying are kernel's (Documentation/networking/ip-sysctl.rst: ``proxy_arp``,
``forwarding``); so is IPv6's (``proxy_ndp``), which knows single addresses only: a guest is told
where its gateway is. Other addresses of its prefix it must send to the gateway, that is: have its
own address as a /128, or an off-link prefix (RFC 4861, section 4.6.2).

A NIC may have two interfaces here, of which the guest uses one at a time (``model.Twin``). Then
both have a route to its addresses: the paravirtual one the usual one, which the kernel passes over
while the guest's driver has not connected to it (``ignore_routes_with_linkdown``), and the emulated
one a route of a worse metric. What comes in by the one that is not in use, the kernel drops.

U itself is prepared by ``snf network uplink up`` (see ``network.uplink``).
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from oslo_config import cfg

from snf_core.contract import Setup
from snf_core.errors import NetworkError
from snf_core.model import Mode, Twin
from snf_core.network.eui64 import eui64
from snf_core.network.setup.routed_rules import RULESET
from snf_core.network.state import (
    ELEMENT,
    LINK,
    NEIGHBOUR,
    ROUTE,
    RULE,
    SYSCTL,
    Announcement,
    Item,
    State,
)
from snf_core.network.tags import DISABLE_IPV4, DISABLE_IPV6

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from snf_core.model import Address, Nic, NicEvent
    from snf_core.network.node import Link, Node

OPTIONS = [
    cfg.ListOpt(
        "tags",
        default=["ip-less-routed"],
        help="Network tags that mean: the NIC is routed by the node. So is a NIC of mode routed "
        "whose network has no tags.",
    ),
    cfg.StrOpt(
        "address",
        default="cc:47:52:4e:45:54",
        regex=r"[0-9A-Fa-f][02468ACEace](:[0-9A-Fa-f]{2}){5}",
        help="MAC address of the host's side of every NIC. The same on all nodes, so that what a "
        "guest has learned of its gateway holds after a migration.",
    ),
    cfg.IntOpt(
        "rule_priority",
        default=20000,
        min=1,
        max=32765,
        help="Priority of the rules by which packets of guests and uplinks look up their routing "
        "table: below that of the main table, 32766.",
    ),
    cfg.ListOpt(
        "ip_spoofing_tags",
        default=["ip-spoofing"],
        help="Network tags that mean: guests may send with any IP source address. Their MAC "
        "address stays their own.",
    ),
]

REMEDY = 'say "snf network uplink up", with a group [network.uplink.TABLE] in the configuration'

INET = "inet"
INET6 = "inet6"

_WORSE = 2048
"""A metric above the usual ones, 0 with IPv4 and 1024 with IPv6."""


def list_opts() -> list[tuple[str, Sequence[cfg.Opt]]]:
    """The setup's options, for oslo-config-generator."""
    return [("network.setup.routed", OPTIONS)]


@dataclass(frozen=True)
class _Path:
    """How one address of a guest is reached from outside."""

    family: str
    address: Address
    uplink: Link


class Routed(Setup):
    """Route to the NIC's addresses, answer for them on the uplink, pin its sources."""

    api_version = "1.0"
    options = OPTIONS

    def applies(self, event: NicEvent) -> bool:
        """Mode routed, without network tags or with one of ours."""
        nic = event.nic
        if nic is None or nic.mode is not Mode.ROUTED:
            return False
        return not nic.network_tags or bool(nic.network_tags & set(self.conf.tags))

    def serves(self) -> str:
        """Its mode and tags."""
        return f"mode routed, without network tags or with one of {', '.join(self.conf.tags)}"

    def fulfils(self, tag: str) -> bool:
        """What the operator says that routing fulfils, and that a family is not routed."""
        return tag in {*self.conf.tags, DISABLE_IPV4, DISABLE_IPV6}

    def ruleset(self, mode: Mode) -> str:
        """The guards of routed NICs and of uplinks."""
        return RULESET if mode is Mode.ROUTED else ""

    def wanted(self, event: NicEvent, node: Node) -> State:
        """Settings, up, rule, route, proxying on the uplink, and the pins of its sources."""
        nic = event.nic
        assert nic is not None, "asked for without a NIC that applies"
        tap = event.interface
        table = node.table(nic.link or "main")
        addresses = _addresses(event, node)
        paths = [_path(tap, nic, address, table, node) for address in addresses]
        families = [path.family for path in paths]
        priority = self.conf.rule_priority
        spoofing = bool(nic.network_tags & set(self.conf.ip_spoofing_tags))
        place = f"{table} {_WORSE}" if event.twin is Twin.EMULATED else str(table)
        items = [
            Item(LINK, tap, "address", self.conf.address.lower()),
            *([Item(LINK, tap, "mtu", nic.mtu)] if nic.mtu else []),
            *_settings4(tap, node, spoofing=spoofing),
            *_settings6(tap, nic, wanted=INET6 in families, node=node),
            *(_yielding(tap, families) if event.twin is Twin.PARAVIRTUAL else ()),
            Item(LINK, tap, "up", True),
            *(Item(RULE, tap, f"{family} {table} {priority}", True) for family in families),
            *(Item(ROUTE, _prefix(path.address), place, f"dev {tap}") for path in paths),
            *(Item(NEIGHBOUR, path.uplink.name, str(path.address), True) for path in paths),
            *_pins(tap, nic, paths, spoofing=spoofing),
        ]
        if INET6 in families and nic.network and nic.network.gateway6:
            items.append(Item(NEIGHBOUR, tap, str(nic.network.gateway6), True))
        told = (Announcement(one.uplink.name, one.address, one.uplink.address) for one in paths)
        return State(tuple(items), tuple(told))


def _pins(tap: str, nic: Nic, paths: Sequence[_Path], *, spoofing: bool) -> Iterator[Item]:
    """The elements that let the guest send what it may (see ``routed_rules``)."""
    for family in ("inet", "arp"):
        yield _element(f"{family} routed_guests", tap)
        yield _element(f"{family} routed_macs", f"{tap} {nic.mac}")
        if spoofing:
            yield _element(f"{family} routed_spoofers", tap)
    for uplink in dict.fromkeys(path.uplink.name for path in paths):
        yield _element("inet routed_ways", f"{tap} {uplink}")
    for path in paths:
        if path.family == INET6:
            yield _element("inet routed_sources6", f"{tap} {path.address}")
            continue
        for address in (path.address, "0.0.0.0"):
            yield _element("inet routed_sources4", f"{tap} {address}")
            yield _element("arp routed_sources", f"{tap} {address}")
        if nic.network and nic.network.gateway:
            yield Item(ELEMENT, "arp routed_senders", tap, str(nic.network.gateway))


def _element(name: str, key: str) -> Item:
    return Item(ELEMENT, name, key, True)


def _prefix(address: Address) -> str:
    return f"{address}/{address.max_prefixlen}"


def _settings(directory: str, **values: int) -> list[Item]:
    return [
        Item(SYSCTL, f"net/{directory}/{name}", "value", str(value))
        for name, value in values.items()
    ]


def _settings4(tap: str, node: Node, *, spoofing: bool) -> list[Item]:
    """What makes the kernel the guest's IPv4 router, and nothing that the guest could turn.

    With strict reverse path filtering (RFC 3704; ip-sysctl: ``rp_filter`` 1) the kernel itself
    pins the source, even while nftables are flushed: the way back to it, which is looked up as
    that of packets from the uplink, must be by T to the NIC. What a guest sends to the node's own
    addresses passes only where the node's way back to it is by T, too. Where any source is
    allowed it must be off: on an interface without an address, loose filtering (2) is strict.
    """
    if spoofing and node.sysctl("net/ipv4/conf/all/rp_filter") != "0":
        raise NetworkError(
            f"{tap} may send from any address by its network's tags, which the node's "
            "net.ipv4.conf.all.rp_filter forbids to all interfaces",
            remedy="set that to 0, and rp_filter of the node's own interfaces as it was; or take "
            "the tag off",
        )
    return [
        *_settings(
            f"ipv4/conf/{tap}",
            forwarding=1,
            proxy_arp=1,
            rp_filter=0 if spoofing else 1,
            accept_redirects=0,
            accept_source_route=0,
        ),
        # Nobody else answers, so there is nobody to be polite to, by up to 0.8 s.
        *_settings(f"ipv4/neigh/{tap}", proxy_delay=0),
    ]


def _settings6(tap: str, nic: Nic, *, wanted: bool, node: Node) -> list[Item]:
    """The same for IPv6, or no IPv6 at all: then the kernel drops whatever the guest sends.

    A guest's router advertisements must not configure the node, nor must its answers to
    duplicate address detection take the node's address there away.
    """
    if not node.ipv6:
        return []
    if not wanted:
        return _settings(f"ipv6/conf/{tap}", disable_ipv6=1)
    proxying = bool(nic.network and nic.network.gateway6)
    return [
        *_settings(
            f"ipv6/conf/{tap}",
            disable_ipv6=0,
            accept_ra=0,
            accept_redirects=0,
            accept_dad=0,
            forwarding=1,
            proxy_ndp=int(proxying),
        ),
        *_settings(f"ipv6/neigh/{tap}", proxy_delay=0),
    ]


def _yielding(tap: str, families: Sequence[str]) -> list[Item]:
    """What makes the kernel pass over the routes of an interface that has no carrier."""
    directories = [f"{'ipv4' if family == INET else 'ipv6'}/conf/{tap}" for family in families]
    return [
        item
        for directory in dict.fromkeys(directories)
        for item in _settings(directory, ignore_routes_with_linkdown=1)
    ]


def _addresses(event: NicEvent, node: Node) -> list[Address]:
    """The addresses that the guest shall have, by its network and the instance's tags."""
    nic = event.nic
    assert nic is not None
    subnet6 = nic.network.subnet6 if nic.network else None
    if nic.ip is None and subnet6 is None:
        raise NetworkError(
            f"{event.interface}: a routed NIC needs an address, and this one has none",
            remedy="give the NIC an IPv4 address, or its network an IPv6 subnet",
        )
    addresses: list[Address] = []
    if nic.ip is not None and DISABLE_IPV4 not in event.instance_tags:
        addresses.append(_checked(event.interface, nic, nic.ip))
    if subnet6 is not None and DISABLE_IPV6 not in event.instance_tags:
        if not node.ipv6:
            raise NetworkError(
                f"{event.interface}: its network has {subnet6}, and this node's kernel no IPv6",
                remedy="boot the node without ipv6.disable, or tag the instance disable_ipv6",
            )
        address = eui64(subnet6, nic.mac)
        if nic.network and address == nic.network.gateway6:
            raise NetworkError(f"{event.interface}: {address} is the network's gateway")
        addresses.append(address)
    return addresses


def _checked(interface: str, nic: Nic, address: Address) -> Address:
    """A NIC's IPv4 address. Raises NetworkError where no guest of its network can have it."""
    if not isinstance(address, ipaddress.IPv4Address):
        raise NetworkError(
            f"{interface}: {address} is not an IPv4 address",
            remedy="a NIC's IPv6 address follows from its network's IPv6 subnet and its MAC",
        )
    network = nic.network
    if network and address == network.gateway:
        raise NetworkError(
            f"{interface}: {address} is the gateway of network {network.name}",
            remedy="give the NIC another address",
        )
    if network and network.subnet and address not in network.subnet:
        raise NetworkError(
            f"{interface}: {address} is not in {network.subnet} of network {network.name}",
            remedy="give the NIC an address of its network",
        )
    if address.is_multicast or address.is_loopback or address.is_unspecified:
        raise NetworkError(f"{interface}: {address} is not the address of a guest")
    return address


def _path(interface: str, nic: Nic, address: Address, table: int, node: Node) -> _Path:
    """The way to an address by T's default route. Raises NetworkError where it is not there."""
    family, name = (INET, "IPv4") if address.version == 4 else (INET6, "IPv6")
    uplink = node.uplink(table, family)
    if uplink is None:
        raise NetworkError(
            f"{interface}: routing table {nic.link or table} has no {name} default route, by "
            f"which {address} could be reached",
            remedy=REMEDY,
        )
    if uplink.name == interface:
        raise NetworkError(f"{interface} is the uplink of routing table {table}, not a NIC")
    switch = f"net/ipv4/conf/{uplink.name}" if family == INET else "net/ipv6/conf/all"
    if node.sysctl(f"{switch}/forwarding") != "1":
        raise NetworkError(
            f"{interface}: the node does not forward {name} packets that come in by "
            f"{uplink.name} ({switch}/forwarding)",
            remedy=REMEDY,
        )
    return _Path(family, address, uplink)
