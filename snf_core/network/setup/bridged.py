"""The setup ``bridged``: the NIC becomes a port of the bridge that its link names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oslo_config import cfg

from snf_core.contract import Setup
from snf_core.errors import NetworkError
from snf_core.model import Mode
from snf_core.network.state import LINK, Item, State, Value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from snf_core.model import NicEvent
    from snf_core.network.node import Node

OPTIONS = [
    cfg.ListOpt(
        "tags",
        default=["bridged", "physical-vlan"],
        help="Network tags that mean: the NIC is attached to its bridge. So is a NIC of mode "
        "bridged whose network has no tags.",
    ),
]


def list_opts() -> list[tuple[str, Sequence[cfg.Opt]]]:
    """The setup's options, for oslo-config-generator."""
    return [("network.setup.bridged", OPTIONS)]


class Bridged(Setup):
    """Attach the NIC to its bridge, with the bridge's MTU."""

    api_version = "1.0"
    options = OPTIONS

    def applies(self, event: NicEvent) -> bool:
        """Mode bridged, without network tags or with one of ours."""
        nic = event.nic
        if nic is None or nic.mode is not Mode.BRIDGED:
            return False
        return not nic.network_tags or bool(nic.network_tags & set(self.conf.tags))

    def serves(self) -> str:
        """Its mode and tags."""
        return f"mode bridged, without network tags or with one of {', '.join(self.conf.tags)}"

    def fulfils(self, tag: str) -> bool:
        """Only what the operator says that bridging fulfils."""
        return tag in self.conf.tags

    def wanted(self, event: NicEvent, node: Node) -> State:
        """The bridge's MTU, a MAC address that leaves the bridge's alone, a port, up.

        The MTU comes first: a bridge takes over the smallest MTU of its ports. Up comes last.
        """
        nic = event.nic
        assert nic is not None, "asked for without a NIC that applies"
        if nic.vlan:
            raise NetworkError(
                f"{event.interface}: VLAN-aware bridges are not served yet, and the NIC asks for "
                f"VLAN {nic.vlan} on {nic.link}",
                remedy="use a bridge of that VLAN, and leave the NIC's vlan empty",
            )
        if event.interface == nic.link:
            raise NetworkError(f"{event.interface} cannot be a port of itself")
        bridge = node.bridge(nic.link)
        wanted: dict[str, Value] = {
            "address": _host_address(nic.mac),
            "mtu": bridge.mtu,
            "master": nic.link,
            "up": True,
        }
        return State(tuple(Item(LINK, event.interface, *pair) for pair in wanted.items()))


def _host_address(mac: str) -> str:
    """The MAC address of the host's side of a guest's NIC.

    A bridge takes the numerically lowest address of its ports as its own, and the address of a
    bridge that changes as guests come and go breaks the node's connections: so one above all
    that hardware has. It must not be the guest's own either, or the bridge would keep its frames.
    """
    return ("fa" if mac.startswith("fe") else "fe") + mac[2:]
