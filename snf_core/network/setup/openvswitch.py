"""The setup ``openvswitch``: the NIC becomes a port of the Open vSwitch bridge of its link.

Our filters, firewall and isolation do not reach into Open vSwitch: the tags that ask for them are
refused for such a NIC.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from oslo_config import cfg

from snf_core.contract import Setup
from snf_core.errors import NetworkError
from snf_core.model import Mode, interface_name
from snf_core.network.setup.bridged import host_side
from snf_core.network.state import LINK, PORT, Item, State
from snf_core.network.vlan import from_ganeti

if TYPE_CHECKING:
    from collections.abc import Sequence

    from snf_core.model import NicEvent
    from snf_core.network.node import Link, Node

OPTIONS = [
    cfg.ListOpt(
        "tags",
        default=["bridged", "physical-vlan"],
        help="Network tags that promise no more than that the NIC is attached to its switch.",
    ),
]


def list_opts() -> list[tuple[str, Sequence[cfg.Opt]]]:
    """The setup's options, for oslo-config-generator."""
    return [("network.setup.openvswitch", OPTIONS)]


class OpenVSwitch(Setup):
    """Attach the NIC to its switch and VLANs, with the switch's MTU."""

    api_version = "1.0"
    options = OPTIONS

    def applies(self, event: NicEvent) -> bool:
        """Mode openvswitch."""
        return event.nic is not None and event.nic.mode is Mode.OPENVSWITCH

    def serves(self) -> str:
        """Its mode."""
        return "mode openvswitch"

    def fulfils(self, tag: str) -> bool:
        """Only what the operator says that attaching fulfils."""
        return tag in self.conf.tags

    def wanted(self, event: NicEvent, node: Node) -> State:
        """Its own MTU or the switch's, an address above that of its hardware, a port of it, up.

        A NIC without a VLAN exchanges untagged frames only: a guest that may tag can reach every
        VLAN of the switch, so that is for those who ask for a trunk.
        """
        nic, tap = event.nic, event.interface
        assert nic is not None, "asked for without a NIC that applies"
        switch = _switch(nic.link, node)
        port = f"{nic.link} {from_ganeti(nic.vlan)}".rstrip()
        items = host_side(tap, nic.mac, nic.mtu or switch.mtu, node)
        items.append(Item(PORT, tap, "switch", port))
        items.append(Item(LINK, tap, "up", True))
        return State(tuple(items))


def _switch(name: str, node: Node) -> Link:
    """The bridge's own device, which Open vSwitch makes for each. Raises NetworkError."""
    link = node.link(interface_name(name))
    if link is None:
        raise NetworkError(
            f"the Open vSwitch bridge {name} does not exist on this node",
            remedy=f"create it (ovs-vsctl add-br {name}), or correct the NIC's link",
        )
    if link.kind != "openvswitch":
        raise NetworkError(
            f"{name} is not an Open vSwitch bridge but {link.kind or 'a hardware interface'}",
            remedy="give the NIC the name of one as its link, or another mode",
        )
    return link
