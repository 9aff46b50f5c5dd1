"""What items are in rtnetlink(7)'s messages: pure data.

Requests are described here as the names of pyroute2's message classes and of their fields;
``links`` makes bytes of them.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from typing import Any, NamedTuple

from snf_core.errors import NetworkError
from snf_core.network.netlink import (
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    NLM_F_REQUEST,
)

# linux/rtnetlink.h
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30
RTM_NEWRULE, RTM_DELRULE, RTM_GETRULE = 32, 33, 34
RTM_GETVLAN = 114
RTN_UNICAST = 1
_RTEXT_FILTER_SKIP_STATS = 1 << 3
_RTPROT_STATIC = 4
_RT_SCOPE_UNIVERSE, _RT_SCOPE_LINK = 0, 253

# linux/if.h, linux/ipv6_route.h, linux/fib_rules.h, linux/neighbour.h
IFNAMSIZ = 16
IFF_UP = 1
IP6_PRIORITY = 1024  # of a route for which none is given
FR_ACT_TO_TBL = 1
NTF_PROXY = 8
_NUD_PERMANENT = 0x80

# linux/if_bridge.h
PVID, UNTAGGED = 2, 4
_AF_BRIDGE = 7
_RANGE_BEGIN, _RANGE_END = 8, 16
_VLAN_FLAGS = {"untagged": PVID | UNTAGGED, "tagged": 0, "pvid": PVID, "egress": UNTAGGED}
"""The last two only where others than we have set them: untagged in one direction alone."""

FAMILIES = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}

Vlans = dict[int, int]
"""A port's VLANs: number -> BRIDGE_VLAN_INFO_* flags."""


class Message(NamedTuple):
    """A request."""

    layout: str
    """The pyroute2 class of it."""
    type: int
    flags: int
    fields: dict[str, Any]
    attributes: list[tuple[str, Any]]


class Prefix(NamedTuple):
    """What a route is for."""

    address: str
    length: int


class Route(NamedTuple):
    """Where packets to a prefix go."""

    device: str
    gateway: str | None

    def __str__(self) -> str:
        return f"via {self.gateway} dev {self.device}" if self.gateway else f"dev {self.device}"


class Place(NamedTuple):
    """What the attribute of a route's item says: where among all routes to its prefix it stands."""

    table: int
    metric: int
    """0 for the usual one, which is the family's own."""


class Rule(NamedTuple):
    """What the attribute of a rule's item says."""

    family: str
    table: int
    priority: int

    def __str__(self) -> str:
        return f"{self.family} {self.table} {self.priority}"


# Items in words


def parse_rule(attribute: str) -> Rule:
    """``inet 100 20000``. Raises NetworkError."""
    match attribute.split(" "):
        case [family, table, priority] if family in FAMILIES:
            return Rule(family, parse_table(table), _number(priority, "the priority of a rule"))
    raise NetworkError(f"{attribute!r} is not a rule: FAMILY TABLE PRIORITY")


def parse_table(text: str) -> int:
    """Raises NetworkError."""
    return _number(text, "the number of a routing table")


def parse_place(attribute: str) -> Place:
    """``100`` or ``100 2048``. Raises NetworkError."""
    table, _, metric = attribute.partition(" ")
    return Place(parse_table(table), _number(metric, "the metric of a route") if metric else 0)


def parse_prefix(text: str) -> Prefix:
    """``192.0.2.1/32``. Raises NetworkError."""
    words, _, length = text.partition("/")
    address = canonical(words)
    try:
        if length != ("128" if ":" in address else "32"):
            ipaddress.ip_network(text)
        return Prefix(address, int(length))
    except ValueError as error:
        raise NetworkError(f"{text!r} is not the prefix of a route: {error}") from error


def parse_route(value: str) -> Route:
    """``dev tap0`` or ``via 192.0.2.1 dev eth1``. Raises NetworkError."""
    match value.split(" "):
        case ["dev", device] if device:
            return Route(device, None)
        case ["via", gateway, "dev", device] if device:
            return Route(device, canonical(gateway))
    raise NetworkError(f"{value!r} is not where a route can go: [via ADDRESS] dev INTERFACE")


def parse_vlans(value: str) -> Vlans:
    """``untagged 100 tagged 200,300``. Raises NetworkError."""
    words = value.split(" ")
    vlans: Vlans = {}
    try:
        for word, numbers in zip(words[::2], words[1::2], strict=True):
            vlans |= {int(number): _VLAN_FLAGS[word] for number in numbers.split(",")}
    except (KeyError, ValueError) as error:
        raise NetworkError(f"{value!r} are not the VLANs of a port") from error
    return vlans


def format_vlans(vlans: Vlans) -> str | None:
    """The same in words; None where there are none."""
    words = []
    for word, flags in _VLAN_FLAGS.items():
        numbers = sorted(number for number, one in vlans.items() if one == flags)
        if numbers:
            words.append(f"{word} {','.join(map(str, numbers))}")
    return " ".join(words) or None


def family_of(address: str) -> int:
    """The address family's number of an address or prefix in words."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def canonical(address: str) -> str:
    """An address in the words in which the kernel's are put here. Raises NetworkError."""
    family = family_of(address)
    try:
        return socket.inet_ntop(family, socket.inet_pton(family, address))
    except (OSError, ValueError) as error:
        raise NetworkError(f"{address!r} is not an IP address") from error


def _number(text: str, what: str) -> int:
    if re.fullmatch("[0-9]{1,10}", text) and int(text) < 1 << 32:
        return int(text)
    raise NetworkError(f"{text!r} is not {what}")


# Requests


def get_link(name: str = "", index: int = 0) -> Message:
    """One link, by its name or by its number."""
    wanted = [("IFLA_IFNAME", os.fsencode(name))] if name else []
    return _ask(_link_question(wanted, index))


def list_links() -> Message:
    """All links."""
    return _list(_link_question([], 0))


def set_link(index: int, attribute: str, value: Any) -> Message:
    """One attribute of a link; the value of ``master`` is the bridge's number, or 0.

    One message for each: the kernel does not undo one that fails half-way.
    """
    fields: dict[str, Any] = {"index": index}
    attrs = []
    if attribute == "up":
        fields |= {"flags": IFF_UP if value else 0, "change": IFF_UP}
    elif attribute == "group_fwd_mask":
        port = [("IFLA_BRPORT_GROUP_FWD_MASK", value)]
        information = [
            ("IFLA_INFO_SLAVE_KIND", "bridge"),
            ("IFLA_INFO_SLAVE_DATA", {"attrs": port}),
        ]
        attrs = [("IFLA_LINKINFO", {"attrs": information})]
        return _do(RTM_NEWLINK, "ifinfmsg", fields, attrs)
    else:
        attrs = [(f"IFLA_{attribute.upper()}", value)]
    return _do(RTM_SETLINK, "ifinfmsg", fields, attrs)


def set_vlans(index: int, wanted: Vlans, actual: Vlans | None) -> list[Message]:
    """Make a port's VLANs ``wanted``; ``actual`` is None for a port that is only becoming one.

    A port gets its bridge's default VLAN when it becomes one, and must lose that.
    """
    if actual is None:
        removed = [(_RANGE_BEGIN, 1), (_RANGE_END, 4094)]
        added = wanted
    else:
        removed = [(0, number) for number in actual if number not in wanted]
        added = {number: flag for number, flag in wanted.items() if actual.get(number) != flag}
    messages = []
    for kind, vlans in (
        (RTM_DELLINK, removed),
        (RTM_SETLINK, [(flags, number) for number, flags in sorted(added.items())]),
    ):
        if vlans:
            information = [
                ("IFLA_BRIDGE_VLAN_INFO", {"flags": flags, "vid": number})
                for flags, number in vlans
            ]
            fields = {"family": _AF_BRIDGE, "index": index}
            attrs = [("IFLA_AF_SPEC", {"attrs": information})]
            messages.append(_do(kind, "ifinfmsg", fields, attrs))
    return messages


def list_vlans(index: int = 0) -> Message:
    """The VLANs of one port, or of all."""
    return _list(
        Message("br_vlan_msg", RTM_GETVLAN, 0, {"family": _AF_BRIDGE, "ifindex": index}, [])
    )


def change_rule(interface: str, rule: Rule, add: bool) -> Message:
    """Add or remove a rule. To add one that is there already fails with EEXIST."""
    fields = {"family": FAMILIES[rule.family], "action": FR_ACT_TO_TBL}
    attrs = [
        ("FRA_IIFNAME", os.fsencode(interface)),
        ("FRA_TABLE", rule.table),
        ("FRA_PRIORITY", rule.priority),
        ("FRA_PROTOCOL", _RTPROT_STATIC),
    ]
    return _add_or_remove(add, RTM_NEWRULE, "fibmsg", fields, attrs)


def list_rules(family: int) -> Message:
    """All rules of a family."""
    return _list(Message("fibmsg", RTM_GETRULE, 0, {"family": family}, []))


def change_route(prefix: Prefix, place: Place, route: Route, index: int, add: bool) -> Message:
    """Add or remove a route by the interface numbered ``index``.

    To add a second one to the same prefix and place fails with EEXIST, wherever it goes.
    """
    fields = {
        "family": family_of(prefix.address),
        "dst_len": prefix.length,
        "proto": _RTPROT_STATIC,
        "scope": _RT_SCOPE_UNIVERSE if route.gateway else _RT_SCOPE_LINK,
        "type": RTN_UNICAST,
    }
    attrs: list[tuple[str, Any]] = [("RTA_TABLE", place.table), ("RTA_OIF", index)]
    if place.metric:
        attrs.append(("RTA_PRIORITY", place.metric))
    if prefix.length:
        attrs.append(("RTA_DST", prefix.address))
    if route.gateway:
        attrs.append(("RTA_GATEWAY", route.gateway))
    return _add_or_remove(add, RTM_NEWROUTE, "rtmsg", fields, attrs)


def list_routes(family: int, table: int) -> Message:
    """All routes of a table."""
    fields = {"family": family, "proto": 0, "type": 0}
    return _list(Message("rtmsg", RTM_GETROUTE, 0, fields, [("RTA_TABLE", table)]))


def get_neighbour(index: int, address: str) -> Message:
    """A proxied neighbour."""
    return _ask(_neighbour(RTM_GETNEIGH, index, address))


def change_neighbour(index: int, address: str, add: bool) -> Message:
    """Add or remove a proxied neighbour. To add one that is there already does not fail."""
    asked = _neighbour(RTM_GETNEIGH, index, address)
    # What is not permanent is gone as soon as the interface loses its carrier for a moment.
    fields = asked.fields | {"state": _NUD_PERMANENT}
    return _add_or_remove(add, RTM_NEWNEIGH, asked.layout, fields, asked.attributes)


def list_neighbours(family: int) -> Message:
    """All proxied neighbours of a family."""
    return _list(Message("ndmsg", RTM_GETNEIGH, 0, {"family": family, "flags": NTF_PROXY}, []))


def _link_question(attrs: list[tuple[str, Any]], index: int) -> Message:
    # Counters are most of what the kernel would tell.
    attrs = [*attrs, ("IFLA_EXT_MASK", _RTEXT_FILTER_SKIP_STATS)]
    return Message("ifinfmsg", RTM_GETLINK, 0, {"index": index}, attrs)


def _neighbour(kind: int, index: int, address: str) -> Message:
    fields = {"family": family_of(address), "ifindex": index, "flags": NTF_PROXY}
    return Message("ndmsg", kind, 0, fields, [("NDA_DST", address)])


def _ask(message: Message) -> Message:
    return message._replace(flags=NLM_F_REQUEST | NLM_F_ACK)


def _list(message: Message) -> Message:
    return message._replace(flags=NLM_F_REQUEST | NLM_F_DUMP)


def _do(kind: int, layout: str, fields: dict[str, Any], attrs: list[tuple[str, Any]]) -> Message:
    return Message(layout, kind, NLM_F_REQUEST | NLM_F_ACK, fields, attrs)


def _add_or_remove(
    add: bool, kind: int, layout: str, fields: dict[str, Any], attrs: list[tuple[str, Any]]
) -> Message:
    """``kind`` is that of the addition; the removal's is the next number."""
    message = _do(kind if add else kind + 1, layout, fields, attrs)
    return message._replace(flags=message.flags | NLM_F_CREATE | NLM_F_EXCL) if add else message
