"""Tags that promise something of the host's side of a NIC."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snf_core.model import NicEvent

_NETWORK = frozenset({"ip-less-routed", "masq", "nfdhcpd", "private-filtered"})

_INSTANCE = re.compile(r"gnt:isolate|gnt:whitelist_ip:.+")

_FIREWALL = re.compile(r"synnefo:network:(?P<nic>[^:]+):(protected|limited)")


def promised(event: NicEvent) -> set[str]:
    """The tags of a NIC's network and instance that some setup must fulfil.

    A tag that asks for filtering and gets none would leave a guest open that its owner believes
    shut, so tags are only ignored where they promise nothing of this NIC.
    """
    nic = event.nic
    if nic is None:
        return set()
    names = {str(nic.index), nic.name, nic.uuid}
    found = set(nic.network_tags & _NETWORK)
    for tag in event.instance_tags:
        profile = _FIREWALL.fullmatch(tag)
        if _INSTANCE.fullmatch(tag) or (profile and profile["nic"] in names):
            found.add(tag)
    return found
