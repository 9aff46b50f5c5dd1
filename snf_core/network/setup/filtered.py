"""The setup ``filtered``: a NIC on a bridge sends nothing that it should not.

It holds on every bridge, whatever else is done with the NIC there. With it, a guest can speak for
no other: see docs/security.md. A private network, besides, is one of many on a bridge: its NICs
have a MAC prefix in common and hear of no others.

What loosens the filter are tags of the network, which only the operator sets.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from oslo_config import cfg

from snf_core.contract import Setup
from snf_core.errors import NetworkError
from snf_core.model import Mode
from snf_core.network.eui64 import LINK_LOCAL, eui64
from snf_core.network.setup.filtered_rules import rules
from snf_core.network.state import ELEMENT, LINK, Item, State

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from snf_core.model import Network, Nic, NicEvent
    from snf_core.network.node import Node

OPTIONS = [
    cfg.ListOpt(
        "tags",
        default=["filtered", "private-filtered"],
        help="Network tags that mean: a bridged NIC sends only by its own MAC address and IP "
        "addresses, and nothing that only routers and DHCP servers send.",
    ),
    cfg.ListOpt(
        "private_tags",
        default=["private-filtered"],
        help="Network tags that mean, in addition: only what comes from the same MAC prefix "
        "reaches the NIC.",
    ),
    cfg.StrOpt(
        "mac_mask",
        default="ff:ff:f0:00:00:00",
        regex="^[0-9a-f]{2}(:[0-9a-f]{2}){5}$",
        help="The part of a MAC address that the NICs of one private network have in common. "
        "Networks whose MAC prefixes differ only beyond it are one network to the filter.",
    ),
    cfg.ListOpt(
        "ip_spoofing_tags",
        default=["ip-spoofing"],
        help="Network tags that allow any IP source address (guests that route or share an "
        "address). The MAC address stays pinned.",
    ),
    cfg.ListOpt(
        "ipv6_privacy_tags",
        default=["ipv6-privacy"],
        help="Network tags that allow any IPv6 address of the network's prefix (RFC 8981), but "
        "for the gateway's and those made of others' MAC addresses.",
    ),
    cfg.ListOpt(
        "dhcp_server_tags",
        default=["dhcp-server"],
        help="Network tags that allow guests to be DHCP servers.",
    ),
    cfg.ListOpt(
        "router_tags",
        default=["router"],
        help="Network tags that allow guests to be routers: IPv6 router advertisements, "
        "redirects, and multicast queries.",
    ),
]

_ALL_GROUPS = 0xFFFD
"""01:80:c2:00:00:00 to 0f but for 01: pause frames go no further than their link in any case."""


def list_opts() -> list[tuple[str, Sequence[cfg.Opt]]]:
    """The setup's options, for oslo-config-generator."""
    return [("network.setup.filtered", OPTIONS)]


class Filtered(Setup):
    """Let a NIC on a bridge send only what is its own."""

    api_version = "1.0"
    options = OPTIONS

    def applies(self, event: NicEvent) -> bool:
        """Mode bridged, with one of our network tags."""
        nic = event.nic
        return nic is not None and nic.mode is Mode.BRIDGED and bool(nic.network_tags & self._tags)

    @property
    def _tags(self) -> set[str]:
        return {*self.conf.tags, *self.conf.private_tags}

    def serves(self) -> str:
        """Its mode and tags."""
        return f"mode bridged, with one of the network tags {', '.join(sorted(self._tags))}"

    def fulfils(self, tag: str) -> bool:
        """What asks for the filter."""
        return tag in self._tags

    def ruleset(self, mode: Mode) -> str:
        """The filters, for bridged NICs."""
        return rules(self.conf.mac_mask) if mode is Mode.BRIDGED else ""

    def wanted(self, event: NicEvent, node: Node) -> State:
        """What the NIC may send, as elements of our sets.

        And that its bridge forwards frames to link-local groups (so that the filter drops them):
        those that it keeps to the link do not pass any filter before it learns their source
        addresses, by which a guest could draw the frames of others to itself.
        """
        nic = event.nic
        assert nic is not None, "asked for without a NIC that applies"
        assert nic.network is not None, "asked for without a network that has our tags"
        if ":" in nic.vlan:
            raise NetworkError(
                f"{event.interface}: a NIC with tagged VLANs ({nic.vlan}) cannot be filtered",
                remedy="give the NIC a single VLAN (.100), or its network other tags",
            )
        tap = event.interface
        elements = [*self._by_mac(nic), *self._by_address(nic, nic.network)]
        items = [
            Item(ELEMENT, f"bridge filtered_{name}", " ".join((tap, *data)), True)
            for name, *data in elements
        ]
        return State((*items, Item(LINK, tap, "group_fwd_mask", _ALL_GROUPS)))

    def _by_mac(self, nic: Nic) -> Iterator[tuple[str, ...]]:
        yield ("interfaces",)
        yield ("macs", nic.mac)
        yield ("link_layers", _number(int(nic.mac.replace(":", ""), 16)))
        if self._tagged(nic, "dhcp_server_tags"):
            yield ("dhcp_servers",)
        if self._tagged(nic, "router_tags"):
            yield ("routers",)
        if self._tagged(nic, "private_tags"):
            yield ("private",)
            yield ("private_prefixes", self._prefix(nic))

    def _tagged(self, nic: Nic, option: str) -> bool:
        return not nic.network_tags.isdisjoint(getattr(self.conf, option))

    def _prefix(self, nic: Nic) -> str:
        """The part of the MAC address by which the NIC's private network is told from others."""
        mask = self.conf.mac_mask
        prefix = _masked(nic.mac, mask)
        assert nic.network is not None
        expected = nic.network.mac_prefix
        if expected and _masked(f"{expected}:00:00:00", mask)[:8] != prefix[:8]:
            raise NetworkError(
                f"the MAC address {nic.mac} is not one of the private network "
                f"{nic.network.name}, whose prefix is {expected}",
                remedy="give the NIC a MAC address of its network",
            )
        return prefix

    def _by_address(self, nic: Nic, network: Network) -> Iterator[tuple[str, ...]]:
        if self._tagged(nic, "ip_spoofing_tags"):
            yield ("any4",)
            yield ("any6",)
            return
        if isinstance(nic.ip, ipaddress.IPv4Address):
            yield ("addresses4", str(nic.ip))
            yield ("pairs4", nic.mac, str(nic.ip))
        else:
            yield ("any4",)
        own = {nic.ip} if isinstance(nic.ip, ipaddress.IPv6Address) else set()
        if network.subnet6 is not None:
            own.add(eui64(network.subnet6, nic.mac))
        if not own:
            yield ("any6",)
            return
        own.add(eui64(LINK_LOCAL, nic.mac))
        for address in sorted(own):
            yield ("addresses6", _number(int(address)))
            yield ("pairs6", nic.mac, str(address))
        if network.subnet6 is not None and self._tagged(nic, "ipv6_privacy_tags"):
            for prefix in (network.subnet6, LINK_LOCAL):
                yield ("prefixes6", _number(int(prefix.network_address)))
            if network.gateway6 is not None:
                yield ("gateways6", _number(int(network.gateway6)))


def _number(value: int) -> str:
    """As nft(8) writes a key that has no type but a length."""
    return f"{value:#x}"


def _masked(mac: str, mask: str) -> str:
    pairs = zip(mac.split(":"), mask.split(":"), strict=True)
    return ":".join(f"{int(octet, 16) & int(bits, 16):02x}" for octet, bits in pairs)
