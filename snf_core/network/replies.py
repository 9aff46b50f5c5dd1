"""What rtnetlink(7)'s messages say of links, rules, routes and neighbours: pure data.

pyroute2 would say it too, in two hundred times the time, which lists cannot afford.
"""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import replace
from typing import TYPE_CHECKING

from snf_core.network.netlink import attribute_list, attributes
from snf_core.network.node import Link
from snf_core.network.rtnetlink import (
    FR_ACT_TO_TBL,
    IFF_UP,
    IP6_PRIORITY,
    NTF_PROXY,
    PVID,
    RTN_UNICAST,
    UNTAGGED,
    Prefix,
    Route,
    Rule,
    Vlans,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from snf_core.network.netlink import Reply

    Name = Callable[[int], str | None]
    """From an interface's number to its name."""

# linux/rtnetlink.h
_ROUTE_HEADER = struct.Struct("=8BI")
_RTN = {2: "local", 6: "blackhole", 7: "unreachable", 8: "prohibit", 9: "throw"}
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_VIA = 1, 4, 5, 6, 18

# linux/if_link.h
_LINK_HEADER = struct.Struct("=BxHiII")
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER, _IFLA_LINKINFO = 1, 3, 4, 10, 18
_IFLA_INFO_KIND, _IFLA_INFO_DATA, _IFLA_INFO_SLAVE_KIND, _IFLA_INFO_SLAVE_DATA = 1, 2, 4, 5
_IFLA_BR_VLAN_FILTERING = 7
_IFLA_BRPORT_GROUP_FWD_MASK = 31

# linux/if_bridge.h
_VLAN_HEADER = struct.Struct("=BxxxI")
_VLAN_INFO = struct.Struct("=HH")  # flags, number
_BRIDGE_VLANDB_ENTRY, _BRIDGE_VLANDB_ENTRY_INFO, _BRIDGE_VLANDB_ENTRY_RANGE = 1, 1, 2

# linux/fib_rules.h
_RULE_HEADER = struct.Struct("=8BI")
_FIB_RULE_INVERT = 2
_FRA_IIFNAME, _FRA_PRIORITY, _FRA_SUPPRESS_PREFIXLEN, _FRA_TABLE, _FRA_PROTOCOL = 3, 6, 14, 15, 21
_PLAIN_RULE = {_FRA_IIFNAME, _FRA_PRIORITY, _FRA_SUPPRESS_PREFIXLEN, _FRA_TABLE, _FRA_PROTOCOL}
_SUPPRESS_NOTHING = b"\xff\xff\xff\xff"

# linux/neighbour.h
_NEIGHBOUR_HEADER = struct.Struct("=BxxxiHBB")
_NDA_DST = 1

_NUMBER = struct.Struct("=I")
_SHORT = struct.Struct("=H")


def index_and_name(reply: Reply) -> tuple[int, str]:
    """Those of a link, without the cost of all the rest."""
    index = _LINK_HEADER.unpack_from(reply.body)[2]
    names = (
        value
        for kind, value in attribute_list(reply.body, _LINK_HEADER.size)
        if kind == _IFLA_IFNAME
    )
    return index, _text(next(names, b""))


def read_link(reply: Reply) -> tuple[Link, int]:
    """A link but for its master, and the number of that, 0 where it has none."""
    _, _, index, flags, _ = _LINK_HEADER.unpack_from(reply.body)
    found = attributes(reply.body, _LINK_HEADER.size)
    information = attributes(found.get(_IFLA_LINKINFO, b""))
    kind = _text(information.get(_IFLA_INFO_KIND, b""))
    data = attributes(information.get(_IFLA_INFO_DATA, b"")) if kind == "bridge" else {}
    is_port = information.get(_IFLA_INFO_SLAVE_KIND) == b"bridge\0"
    port = attributes(information.get(_IFLA_INFO_SLAVE_DATA, b"")) if is_port else {}
    link = Link(
        index=index,
        name=_text(found.get(_IFLA_IFNAME, b"")),
        kind=kind,
        mtu=_number(found.get(_IFLA_MTU)) or 0,
        up=bool(flags & IFF_UP),
        address=found.get(_IFLA_ADDRESS, b"").hex(":"),
        vlan_aware=data.get(_IFLA_BR_VLAN_FILTERING, b"\0") != b"\0",
        group_fwd_mask=_SHORT.unpack(port.get(_IFLA_BRPORT_GROUP_FWD_MASK, b"\0\0"))[0],
    )
    return link, _number(found.get(_IFLA_MASTER)) or 0


def with_masters(links: Iterable[tuple[Link, int]], names: Mapping[int, str]) -> Iterator[Link]:
    """Links of ``read_link``, with the names of their masters, which are there by their number."""
    for link, master in links:
        yield replace(link, master=names.get(master)) if master else link


def read_vlans(listed: Iterable[Reply]) -> dict[int, Vlans]:
    """The VLANs of ports, by the ports' numbers."""
    ports: dict[int, Vlans] = {}
    for reply in listed:
        _, index = _VLAN_HEADER.unpack_from(reply.body)
        vlans = ports.setdefault(index, {})
        for kind, entry in attribute_list(reply.body, _VLAN_HEADER.size):
            if kind == _BRIDGE_VLANDB_ENTRY:
                found = attributes(entry)
                flags, first = _VLAN_INFO.unpack(found[_BRIDGE_VLANDB_ENTRY_INFO])
                end = found.get(_BRIDGE_VLANDB_ENTRY_RANGE)
                last = _SHORT.unpack(end)[0] if end else first
                vlans |= dict.fromkeys(range(first, last + 1), flags & (PVID | UNTAGGED))
    return ports


def read_rule(reply: Reply) -> tuple[str, Rule] | None:
    """Interface and rule, where it is of the form that items have; None where it is not."""
    header = _RULE_HEADER.unpack_from(reply.body)
    family, destination, source, tos, _, _, _, action, flags = header
    found = attributes(reply.body, _RULE_HEADER.size)
    if (
        destination or source or tos or flags & _FIB_RULE_INVERT
        or action != FR_ACT_TO_TBL
        or not found.keys() <= _PLAIN_RULE
        or _FRA_IIFNAME not in found
        or found.get(_FRA_SUPPRESS_PREFIXLEN, _SUPPRESS_NOTHING) != _SUPPRESS_NOTHING
    ):  # fmt: skip
        return None
    table, priority = _number(found.get(_FRA_TABLE)), _number(found.get(_FRA_PRIORITY))
    name = "inet6" if family == socket.AF_INET6 else "inet"
    return _text(found[_FRA_IIFNAME]), Rule(name, table or 0, priority or 0)


def read_route(reply: Reply, name: Name) -> tuple[tuple[Prefix, int], str] | None:
    """Prefix and metric, 0 for the family's usual one, and where its packets go, in words.

    None for what no item's route would collide with: a choice by more than the destination.
    """
    family, length, source, tos, _, _, _, kind, _ = _ROUTE_HEADER.unpack_from(reply.body)
    found = attributes(reply.body, _ROUTE_HEADER.size)
    usual = IP6_PRIORITY if family == socket.AF_INET6 else 0
    if source or tos:
        return None
    metric = _number(found.get(_RTA_PRIORITY)) or 0
    size = 16 if family == socket.AF_INET6 else 4
    address = socket.inet_ntop(family, found.get(_RTA_DST, bytes(size)))
    where = Prefix(address, length), 0 if metric == usual else metric
    return where, _direction(kind, found, name)


def is_default(reply: Reply) -> bool:
    """Whether a route is a default route by one interface."""
    _, length, _, _, _, _, _, kind, _ = _ROUTE_HEADER.unpack_from(reply.body)
    if length or kind != RTN_UNICAST:
        return False
    return _RTA_OIF in attributes(reply.body, _ROUTE_HEADER.size)


def route_device(reply: Reply) -> int:
    """The number of the interface of a route by one."""
    return _number(attributes(reply.body, _ROUTE_HEADER.size).get(_RTA_OIF)) or 0


def read_neighbour(reply: Reply) -> tuple[int, str] | None:
    """Interface's number and address of a proxied neighbour; None where it is not proxied."""
    family, index, _, flags, _ = _NEIGHBOUR_HEADER.unpack_from(reply.body)
    address = attributes(reply.body, _NEIGHBOUR_HEADER.size).get(_NDA_DST)
    if address is None or not flags & NTF_PROXY:
        return None
    return index, socket.inet_ntop(family, address)


def _direction(kind: int, found: Mapping[int, bytes], name: Name) -> str:
    if kind != RTN_UNICAST:
        return _RTN.get(kind, f"type {kind}")
    index = _number(found.get(_RTA_OIF))
    if index is None:
        return "several next hops"
    device = name(index) or str(index)
    if _RTA_VIA in found:
        return f"another family's gateway dev {device}"
    gateway = found.get(_RTA_GATEWAY)
    if gateway is None:
        return str(Route(device, None))
    family = socket.AF_INET6 if len(gateway) == 16 else socket.AF_INET
    return str(Route(device, socket.inet_ntop(family, gateway)))


def _number(value: bytes | None) -> int | None:
    return None if value is None else int(_NUMBER.unpack(value)[0])


def _text(value: bytes) -> str:
    return os.fsdecode(value.rstrip(b"\0"))
