"""The network setup "acme-external": another program wires the NIC, this one sets its MTU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oslo_config import cfg

from snf_core.contract import Setup
from snf_core.model import Mode
from snf_core.network.state import LINK, Item, State

if TYPE_CHECKING:
    from snf_core.model import NicEvent
    from snf_core.network.node import Node

OPTIONS = (cfg.IntOpt("mtu", default=9000, min=68, max=65535, help="MTU in bytes."),)


class External(Setup):
    """NICs of Ganeti's mode "ext"."""

    api_version = "1.0"
    options = OPTIONS

    def applies(self, event: NicEvent) -> bool:
        """By the NIC's mode alone."""
        return event.nic is not None and event.nic.mode is Mode.EXTERNAL

    def serves(self) -> str:
        """For the message to the user whose NIC nothing applies to."""
        return "mode ext"

    def wanted(self, event: NicEvent, node: Node) -> State:
        """The MTU, then up."""
        mtu = Item(LINK, event.interface, "mtu", self.conf.mtu)
        return State((mtu, Item(LINK, event.interface, "up", True)))
