"""The setup ``firewall``: what may begin a conversation with a guest, by profiles.

An instance's tag gives one of its NICs a profile. What the guest begins by itself is answered
whatever the profile; what others begin is let through only to the ports that the profile opens.
"""

from __future__ import annotations

import logging
import re
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

from oslo_config import cfg, types

from snf_core.contract import Setup
from snf_core.errors import NetworkError
from snf_core.model import Mode
from snf_core.network.setup.firewall_rules import bridged_rules, routed_rules
from snf_core.network.state import ELEMENT, Item, State
from snf_core.network.tags import UNPROTECTED, firewall_profiles
from snf_core.network.vlan import from_ganeti

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from snf_core.model import Nic, NicEvent
    from snf_core.network.node import Node

LOG = logging.getLogger(__name__)

_PROFILE = re.compile(r"(?P<name>[a-z][a-z0-9_]{0,31}) *:(?P<ports>.*)")
_PORTS = re.compile(r"(?P<protocol>tcp|udp) +(?P<first>[0-9]{1,5})(-(?P<last>[0-9]{1,5}))?")
_FAMILIES = {Mode.BRIDGED: "bridge", Mode.ROUTED: "inet"}


class Ports(NamedTuple):
    """Ports of ``tcp`` or ``udp``, from the first to the last."""

    protocol: str
    first: int
    last: int


class Profile(NamedTuple):
    """A firewall profile and the ports that it opens."""

    name: str
    ports: tuple[Ports, ...] = ()

    @property
    def openness(self) -> tuple[int, str]:
        """Less is stricter: the number of ports that are open; then the name, to be certain."""
        return sum(ports.last - ports.first + 1 for ports in self.ports), self.name


class ProfileType(types.ConfigType):  # type: ignore[misc]  # it is untyped
    """``web: tcp 80, tcp 443, udp 8000-8099`` in the configuration."""

    def __init__(self) -> None:
        super().__init__(type_name="firewall profile")

    def __call__(self, value: Any) -> Profile:
        """The profile. Raises ValueError."""
        if isinstance(value, Profile):
            return value
        found = _PROFILE.fullmatch(str(value).strip())
        if found is None or found["name"] == UNPROTECTED:
            raise ValueError(
                f"{value!r} is not a firewall profile; expected 'NAME: tcp 80, udp 8000-8099', "
                f"the name of lower-case letters, digits and _, and not {UNPROTECTED}"
            )
        words = [word.strip() for word in found["ports"].split(",") if word.strip()]
        return Profile(found["name"], tuple(_ports(word) for word in words))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ProfileType)

    def __hash__(self) -> int:
        return hash(ProfileType)

    def __repr__(self) -> str:
        return "firewall profile"

    def _formatter(self, value: Any) -> str:
        return str(value)


def _ports(text: str) -> Ports:
    found = _PORTS.fullmatch(text)
    if found is not None:
        first = int(found["first"])
        last = int(found["last"] or first)
        if 1 <= first <= last <= 65535:
            return Ports(found["protocol"], first, last)
    raise ValueError(f"{text!r} are not ports; expected 'tcp 80' or 'udp 8000-8099'")


BUILT_IN = (
    Profile("protected"),
    Profile("limited", (Ports("tcp", 22, 22), Ports("tcp", 3389, 3389))),
)

OPTIONS = [
    cfg.MultiOpt(
        "profile",
        item_type=ProfileType(),
        help="A firewall profile: its name, a colon, and the ports that it opens towards a guest, "
        "separated by commas ('web: tcp 80, tcp 443, udp 8000-8099'). May be given many times; "
        "later ones replace earlier ones of the same name, and so the built-in 'protected:' and "
        "'limited: tcp 22, tcp 3389'. What a guest begins is always answered, and so is ICMP.",
    ),
    cfg.ListOpt(
        "private_tags",
        default=["private-filtered"],
        help="Network tags that mean: the network is apart from others on its bridge. What is "
        "known of its conversations is then not mistaken for another's. To be the same as of the "
        "setup filtered.",
    ),
]


def list_opts() -> list[tuple[str, Sequence[cfg.Opt]]]:
    """The setup's options, for oslo-config-generator."""
    return [("network.setup.firewall", OPTIONS)]


class Firewall(Setup):
    """Guard a NIC by the profile that a tag of its instance names."""

    api_version = "1.0"
    options = OPTIONS

    def applies(self, event: NicEvent) -> bool:
        """Mode bridged or routed, where a tag gives this NIC a profile."""
        if event.nic is None or event.nic.mode not in _FAMILIES:
            return False
        return not {UNPROTECTED}.issuperset(firewall_profiles(event).values())

    def serves(self) -> str:
        """Its modes and tags."""
        return (
            "modes bridged and routed, where the instance is tagged "
            f"synnefo:network:NIC:PROFILE, the profile one of {', '.join(self._profiles())}"
        )

    def fulfils(self, tag: str) -> bool:
        """The tags of profiles; of those that it does not know, ``wanted`` says more."""
        return tag.startswith("synnefo:network:")

    def ruleset(self, mode: Mode) -> str:
        """The profiles, each a chain, and the map that says which is a NIC's."""
        opened = {
            name: [(one.protocol, one.first, one.last) for one in profile.ports]
            for name, profile in self._profiles().items()
        }
        if mode is Mode.BRIDGED:
            return bridged_rules(opened)
        return routed_rules(opened) if mode is Mode.ROUTED else ""

    def wanted(self, event: NicEvent, node: Node) -> State:
        """The NIC's place in the map of profiles and, bridged, where its conversations belong."""
        nic, tap = event.nic, event.interface
        assert nic is not None, "asked for without a NIC that applies"
        name = self._strictest(event)
        family = _FAMILIES[nic.mode]
        items = [Item(ELEMENT, f"{family} firewall_profiles", tap, f"jump firewall_profile_{name}")]
        if nic.mode is Mode.BRIDGED:
            zone, mark = self._zone(tap, nic), _mark(tap, node)
            items += [
                Item(ELEMENT, "bridge firewall_zones", tap, zone),
                Item(ELEMENT, "bridge firewall_guests", f"{nic.link} {nic.mac}", zone),
                Item(ELEMENT, "bridge firewall_marks", tap, mark),
                Item(ELEMENT, "bridge firewall_origins", f"{tap} {mark}", True),
            ]
        return State(tuple(items))

    def _profiles(self) -> Mapping[str, Profile]:
        return {profile.name: profile for profile in (*BUILT_IN, *(self.conf.profile or ()))}

    def _strictest(self, event: NicEvent) -> str:
        """The profile of the NIC. Raises NetworkError for one that is not defined."""
        known, asked = self._profiles(), set(firewall_profiles(event).values())
        for unknown in sorted(asked - known.keys() - {UNPROTECTED}):
            raise NetworkError(
                f"{event.interface}: a tag of {event.instance} asks for the firewall profile "
                f"{unknown!r}, which is not defined",
                remedy=f"use one of {', '.join([*known, UNPROTECTED])}, or define it by profile "
                "in [network.setup.firewall]",
            )
        strictest = min((known[one] for one in asked - {UNPROTECTED}), key=lambda one: one.openness)
        if len(asked) > 1:
            LOG.warning(
                "%s: tags of %s contradict each other (%s): the strictest profile stands, %s",
                event.interface,
                event.instance,
                ", ".join(sorted(asked)),
                strictest.name,
            )
        return strictest.name

    def _zone(self, tap: str, nic: Nic) -> str:
        """The conntrack zone of the NIC's network segment, 1 to 65535.

        Addresses are unique in a segment only: without zones, who owns two guests in a private
        network could begin there, under another guest's addresses, the conversation whose
        answers that guest's firewall would then let through.
        """
        vlans = from_ganeti(nic.vlan)
        if vlans.tagged:
            raise NetworkError(
                f"{tap}: a firewall profile for a NIC with tagged VLANs ({vlans}) is not supported",
                remedy="filter in the guest, or give it a NIC for each VLAN",
            )
        network = nic.network
        private = network is not None and network.tags & set(self.conf.private_tags)
        segment = f"{nic.link} {vlans} {network.name if network and private else ''}"
        return str(1 + zlib.crc32(segment.encode()) % 65535)


def _mark(tap: str, node: Node) -> str:
    """What tells the tap from all others of the node: its index."""
    link = node.link(tap)
    if link is None:
        raise NetworkError(f"{tap} does not exist", remedy="it must be made before it is wired")
    return str(link.index)
