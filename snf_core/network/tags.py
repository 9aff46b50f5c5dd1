"""Tags that ask something of the host's side of a NIC.

Tags of a network are the operator's; those of an instance may be its owner's, and so may only
shut more, or choose among the firewall profiles that the operator offers.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snf_core.model import NicEvent

ISOLATE = "gnt:isolate"
WHITELIST = "gnt:whitelist_ip:"
DISABLE_IPV4 = "disable_ipv4"
DISABLE_IPV6 = "disable_ipv6"

_NETWORK = frozenset({"filtered", "ip-less-routed", "masq", "nfdhcpd", "private-filtered"})

_INSTANCE = frozenset({ISOLATE, DISABLE_IPV4, DISABLE_IPV6})

_FIREWALL = re.compile(r"synnefo:network:(?P<nic>.+):(?P<profile>[^:]+)")

UNPROTECTED = "unprotected"
"""The firewall profile that is none."""


def promised(event: NicEvent) -> set[str]:
    """The tags of a NIC's network and instance that some setup must fulfil.

    A tag that asks for filtering and gets none would leave a guest open that its owner believes
    shut, so tags are only ignored where they promise nothing of this NIC.
    """
    if event.nic is None:
        return set()
    found = {tag for tag in event.instance_tags if tag in _INSTANCE or tag.startswith(WHITELIST)}
    profiles = firewall_profiles(event)
    found |= {tag for tag, profile in profiles.items() if profile != UNPROTECTED}
    return found | (event.nic.network_tags & _NETWORK)


def firewall_profiles(event: NicEvent) -> dict[str, str]:
    """The firewall profiles that an instance's tags ask for this NIC, by tag.

    A tag names its NIC by index, name or UUID (the latter in upper or lower case).
    """
    nic = event.nic
    if nic is None:
        return {}
    names = {str(nic.index), nic.name, nic.uuid, nic.uuid.upper()}
    found = {tag: _FIREWALL.fullmatch(tag) for tag in event.instance_tags}
    return {
        tag: match["profile"] for tag, match in found.items() if match and match["nic"] in names
    }
