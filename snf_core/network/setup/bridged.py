"""The setup ``bridged``: the NIC becomes a port of the bridge that its link names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oslo_config import cfg

from snf_core.contract import Setup
from snf_core.errors import NetworkError
from snf_core.model import Mode
from snf_core.network.state import ELEMENT, LINK, SYSCTL, Item, State
from snf_core.network.vlan import Vlans, from_ganeti

if TYPE_CHECKING:
    from collections.abc import Sequence

    from snf_core.model import NicEvent
    from snf_core.network.node import Link, Node

OPTIONS = [
    cfg.ListOpt(
        "tags",
        default=["bridged", "physical-vlan"],
        help="Network tags that promise no more than that the NIC is attached to its bridge.",
    ),
]

_RULESET = """\
table bridge snf {
  # Ports of VLAN-aware bridges whose guests are in one VLAN, and do not know which.
  set bridged_untagged { typeof iifname
  }

  # A bridge takes the tag of a port's own VLAN off a frame, as it does with VLAN 0, and would send
  # whatever was tagged behind it into that other VLAN, wherever ours leaves untagged.
  chain bridged_ingress {
    type filter hook prerouting priority -300; policy accept;
    iifname @bridged_untagged ether type { 8021q, 8021ad } drop
  }
}
"""


def list_opts() -> list[tuple[str, Sequence[cfg.Opt]]]:
    """The setup's options, for oslo-config-generator."""
    return [("network.setup.bridged", OPTIONS)]


class Bridged(Setup):
    """Attach the NIC to its bridge and VLANs, with the bridge's MTU if it has none of its own."""

    api_version = "1.0"
    options = OPTIONS

    def applies(self, event: NicEvent) -> bool:
        """Mode bridged, whatever else the network's tags ask for."""
        return event.nic is not None and event.nic.mode is Mode.BRIDGED

    def serves(self) -> str:
        """Its mode."""
        return "mode bridged"

    def fulfils(self, tag: str) -> bool:
        """Only what the operator says that bridging fulfils."""
        return tag in self.conf.tags

    def ruleset(self, mode: Mode) -> str:
        """No tagged frames where the guest is in one VLAN."""
        return _RULESET if mode is Mode.BRIDGED else ""

    def wanted(self, event: NicEvent, node: Node) -> State:
        """An MTU, a MAC address that leaves the bridge's alone, a port, up.

        The MTU comes first: a bridge takes over the smallest MTU of its ports. Up comes last,
        so that the port is in no other VLAN than its own for a moment.
        """
        nic, tap = event.nic, event.interface
        assert nic is not None, "asked for without a NIC that applies"
        if tap == nic.link:
            raise NetworkError(f"{tap} cannot be a port of itself")
        bridge = node.bridge(nic.link)
        vlans = from_ganeti(nic.vlan)
        items = host_side(tap, nic.mac, nic.mtu or bridge.mtu, node)
        items.append(Item(LINK, tap, "master", nic.link))
        items += _in_vlans(tap, vlans, bridge)
        items.append(Item(LINK, tap, "up", True))
        return State(tuple(items))


def host_side(tap: str, mac: str, mtu: int, node: Node) -> list[Item]:
    """What the host's side of a NIC needs wherever it is a port of a switch.

    The host is no station of the guest's network by that port: its kernel must not ask for
    routers and groups there, nor look for duplicates of an address.
    """
    items = [Item(LINK, tap, "address", _host_address(mac)), Item(LINK, tap, "mtu", mtu)]
    if node.ipv6:
        items.insert(0, Item(SYSCTL, f"net/ipv6/conf/{tap}/disable_ipv6", "value", "1"))
    return items


def _in_vlans(tap: str, vlans: Vlans, bridge: Link) -> list[Item]:
    """The port's VLANs, and no others, and no tags of the guest's making on an access port."""
    if not bridge.vlan_aware:
        if vlans != Vlans():
            raise NetworkError(
                f"{tap}: the NIC asks for VLANs ({vlans}), and the bridge {bridge.name} knows none",
                remedy=f"make it VLAN-aware (ip link set {bridge.name} type bridge "
                "vlan_filtering 1 vlan_default_pvid 0), or use a bridge of that VLAN and leave "
                "the NIC's vlan empty",
            )
        return []
    items = [Item(LINK, tap, "vlans", str(vlans))] if vlans != Vlans() else []
    if not vlans.tagged:
        items.append(Item(ELEMENT, "bridge bridged_untagged", tap, True))
    return items


def _host_address(mac: str) -> str:
    """The MAC address of the host's side of a guest's NIC.

    A bridge takes the numerically lowest address of its ports as its own, and the address of a
    bridge that changes as guests come and go breaks the node's connections: so one above all
    that hardware has. It must not be the guest's own either, or the bridge would keep its frames.
    """
    return ("fa" if mac.startswith("fe") else "fe") + mac[2:]
