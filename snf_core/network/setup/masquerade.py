"""The setup ``masquerade``: source NAT for the NIC's IPv4 address where it leaves the node.

What the guest sends out of the uplink carries the uplink's own address (masquerading, nft(8)), so
the uplink must have one; answers come back to the guest. The uplink of a routed NIC is the device
of the default route of its routing table; of a bridged one, that of the node's main table.

For a bridged NIC the node must be its gateway: an address on the bridge, and IPv4 forwarding on
the bridge and the uplink, are the operator's. For a routed one, ``routed`` and ``snf network
uplink`` see to forwarding.

Hosts of the NIC's own subnet know it by its own address, on whichever node they are: what is
sent to them is not translated.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from oslo_config import cfg

from snf_core.contract import Setup
from snf_core.errors import NetworkError
from snf_core.model import Mode
from snf_core.network.state import ELEMENT, Item, State
from snf_core.network.tags import DISABLE_IPV4

if TYPE_CHECKING:
    from collections.abc import Sequence

    from snf_core.model import NicEvent
    from snf_core.network.node import Node

OPTIONS = [
    cfg.ListOpt(
        "tags",
        default=["masq"],
        help="Network tags that mean: what leaves the node from an IPv4 address of the network "
        "is translated to the uplink's own address. The node must be the network's router.",
    ),
]

_LENGTHS = range(8, 31)
"""Of an IPv4 subnet with hosts in it (a /31 has no gateway)."""


def list_opts() -> list[tuple[str, Sequence[cfg.Opt]]]:
    """The setup's options, for oslo-config-generator."""
    return [("network.setup.masquerade", OPTIONS)]


class Masquerade(Setup):
    """Translate the NIC's IPv4 address at the uplink."""

    api_version = "1.0"
    options = OPTIONS

    def applies(self, event: NicEvent) -> bool:
        """A bridged or routed NIC with an IPv4 address, in a network with one of our tags."""
        nic = event.nic
        return (
            nic is not None
            and nic.mode in {Mode.BRIDGED, Mode.ROUTED}
            and isinstance(nic.ip, ipaddress.IPv4Address)
            and bool(nic.network_tags & set(self.conf.tags))
        )

    def serves(self) -> str:
        """Its modes and tags."""
        return (
            "what another setup wires in mode bridged or routed, with an IPv4 address and one of "
            f"the network tags {', '.join(self.conf.tags)}"
        )

    def fulfils(self, tag: str) -> bool:
        """Only what the operator says that translation fulfils."""
        return tag in self.conf.tags

    def ruleset(self, mode: Mode) -> str:
        """The same rules for all modes, in chains of their own: both may be loaded."""
        return _ruleset(f"masquerade_{mode.value}")

    def wanted(self, event: NicEvent, node: Node) -> State:
        """The NIC's address, as the sender out of the uplink, and the subnet that knows it."""
        nic = event.nic
        assert nic is not None, "asked for without a NIC that applies"
        if DISABLE_IPV4 in event.instance_tags:
            return State()
        table = (nic.link if nic.mode is Mode.ROUTED else "") or "main"
        uplink = node.uplink(node.table(table), "inet")
        if uplink is None:
            raise NetworkError(
                f"{event.interface}: routing table {table} has no IPv4 default route, out of "
                f"which {nic.ip} could be translated",
                remedy='give the node a default route; for routed NICs: "snf network uplink up"',
            )
        items = [Item(ELEMENT, "inet masquerade_sources", f"{uplink.name} {nic.ip}", True)]
        subnet = nic.network.subnet if nic.network else None
        if subnet is not None and subnet.prefixlen in _LENGTHS:
            key = f"{uplink.name} {nic.ip} {subnet.network_address} {subnet.broadcast_address}"
            items.append(Item(ELEMENT, "inet masquerade_inside", key, True))
        return State(tuple(items))


def _inside(length: int) -> str:
    """The rule for destinations in the subnets of one length."""
    any_host = ipaddress.IPv4Network((0, length))
    return (
        f"oifname . ip saddr . ip daddr & {any_host.netmask} . ip daddr | {any_host.hostmask} "
        "@masquerade_inside return"
    )


def _ruleset(chain: str) -> str:
    inside = "\n        ".join(map(_inside, _LENGTHS))
    return f"""\
table inet snf {{
    # Who is translated, and where: by its own source, which other setups have pinned.
    set masquerade_sources {{
        typeof oifname . ip saddr
    }}
    # Who is known as it is, and where: its own subnet, by the first and the last address, which
    # together are no other subnet's. So a hash will do, which an interval would not allow.
    set masquerade_inside {{
        typeof oifname . ip saddr . ip daddr . ip daddr
    }}
    # Only the first packet of a connection comes here.
    chain {chain}_postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        oifname . ip saddr @masquerade_sources jump {chain}
    }}
    chain {chain} {{
        {inside}
        masquerade
    }}
}}
"""
