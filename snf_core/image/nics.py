"""How a guest should configure its NICs: the neutral model between Ganeti and the renderers.

The decision depends on the NIC's address, its network's gateway and tags, as snf-image decided
it; the result depends on no guest. Renderers match NICs by MAC address, never by name.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from snf_core import model
from snf_core.errors import InvalidValueError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from snf_core.model import Nic

V4 = Literal["", "dhcp", "static"]
V6 = Literal["", "dhcp", "slaac", "slaac_dhcp"]

MTU_TAG = "mtu:"
"""How a network's tag begins that says the MTU of its guests' NICs: ``mtu:8950``."""


@dataclass(frozen=True)
class NicPlan:
    """One NIC as the guest should configure it."""

    index: int
    mac: str
    ipv4: V4 = ""
    """Empty: no IPv4."""
    ipv6: V6 = ""
    """``slaac_dhcp``: address by SLAAC, the rest by stateless DHCPv6. Empty: no IPv6."""
    address: ipaddress.IPv4Interface | None = None
    """Address and prefix length; only for static."""
    gateway: ipaddress.IPv4Address | None = None
    gateway_on_link: bool = False
    """The gateway lies outside the subnet and must be reached through the NIC directly."""
    mtu: int = 0
    """Bytes; 0: what the guest takes by itself."""


def plan(nics: Iterable[Nic], conf: Any) -> tuple[list[NicPlan], list[str]]:
    """What each NIC should do, and warnings. ``conf`` is the configuration's network group.

    Raises InvalidValueError for a network's tag that names no MTU, or two that name different ones.
    """
    nics = list(nics)
    plans = [_plan(nic, conf) for nic in nics]
    warnings = []
    if len(plans) == 1 and not plans[0].ipv4 and not plans[0].ipv6:
        plans = [_default(nics[0], conf.default_nic_config)]
        warnings.append(
            "the only NIC has neither an address nor an IPv6 gateway; "
            f"it is configured as {conf.default_nic_config or 'nothing'!r}"
        )
    sizes = [_mtu(nic, conf) for nic in nics]
    return [replace(one, mtu=mtu) for one, mtu in zip(plans, sizes, strict=True)], warnings


def _mtu(nic: Nic, conf: Any) -> int:
    """By a tag of the NIC's network, else as configured."""
    words = sorted(tag for tag in nic.network_tags if tag.startswith(MTU_TAG))
    sizes = {_bytes(word) for word in words}
    if len(sizes) > 1:
        raise InvalidValueError(
            f"nic {nic.index}: the tags {', '.join(words)} of its network contradict each other",
            remedy="remove all but one",
        )
    return sizes.pop() if sizes else int(conf.guest_mtu)


def _bytes(tag: str) -> int:
    digits = tag.removeprefix(MTU_TAG)
    if not re.fullmatch(r"[0-9]{2,5}", digits):
        raise InvalidValueError(
            f"the network tag {tag!r} names no MTU", remedy=f"expected {MTU_TAG}1450, for example"
        )
    return model.mtu(int(digits))


def _plan(nic: Nic, conf: Any) -> NicPlan:
    network = nic.network
    subnet = network.subnet if network else None
    dynamic = subnet is None or bool(nic.network_tags & set(conf.dhcp_tags))
    ipv4: V4 = ""
    if isinstance(nic.ip, ipaddress.IPv4Address):
        ipv4 = "dhcp" if dynamic else "static"
    ipv6: V6 = ""
    if network and network.gateway6:
        # One set of tags can name both; stateless then wins, as it did when tags had an order.
        ipv6 = "dhcp" if nic.network_tags & set(conf.stateful_dhcpv6_tags) else "slaac"
        ipv6 = "slaac_dhcp" if nic.network_tags & set(conf.stateless_dhcpv6_tags) else ipv6
    if ipv4 != "static" or subnet is None:
        return NicPlan(nic.index, nic.mac, ipv4, ipv6)
    gateway = network.gateway if network else None
    return NicPlan(
        nic.index,
        nic.mac,
        ipv4,
        ipv6,
        address=ipaddress.IPv4Interface(f"{nic.ip}/{subnet.prefixlen}"),
        gateway=gateway,
        gateway_on_link=gateway is not None and gateway not in subnet,
    )


def _default(nic: Nic, words: str) -> NicPlan:
    parts = words.split("+") if words else []
    ipv4: V4 = "dhcp" if "dhcp" in parts else ""
    ipv6: V6 = ""
    for part in parts:
        if part == "dhcpv6":
            ipv6 = "dhcp"
        elif part == "slaac":
            ipv6 = "slaac"
        elif part == "slaac_dhcp":
            ipv6 = "slaac_dhcp"
    return NicPlan(nic.index, nic.mac, ipv4, ipv6)
