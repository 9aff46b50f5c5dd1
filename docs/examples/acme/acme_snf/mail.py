"""The network setup "acme-mail": NICs of networks tagged ``acme:no-mail`` send no mail."""

from __future__ import annotations

from typing import TYPE_CHECKING

from snf_core.contract import Setup
from snf_core.model import Mode
from snf_core.network.state import ELEMENT, Item, State

if TYPE_CHECKING:
    from snf_core.model import NicEvent
    from snf_core.network.node import Node

TAG = "acme:no-mail"

FAMILIES = {Mode.BRIDGED: "bridge", Mode.ROUTED: "inet"}

RULES = """
table {family} snf {{
    set acme_mail_nics {{
        type ifname
    }}
    chain acme_mail_prerouting {{
        type filter hook prerouting priority -250; policy accept;
        iifname @acme_mail_nics tcp dport 25 drop
    }}
}}
"""


class NoMail(Setup):
    """One rule for all NICs, and an element for each."""

    api_version = "1.0"

    def applies(self, event: NicEvent) -> bool:
        """By the tag of the NIC's network."""
        nic = event.nic
        return nic is not None and nic.mode in FAMILIES and TAG in nic.network_tags

    def serves(self) -> str:
        """For the message to the user whose NIC nothing applies to."""
        return f"networks tagged {TAG}"

    def ruleset(self, mode: Mode) -> str:
        """Bridged frames pass other tables than routed packets; of other modes none is ours."""
        return RULES.format(family=FAMILIES[mode]) if mode in FAMILIES else ""

    def wanted(self, event: NicEvent, node: Node) -> State:
        """That the rule is about this NIC, too."""
        assert event.nic is not None, "asked for without a NIC that applies"
        nics = f"{FAMILIES[event.nic.mode]} acme_mail_nics"
        return State((Item(ELEMENT, nics, event.interface, True),))
