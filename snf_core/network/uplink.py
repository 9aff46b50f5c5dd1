"""Uplinks: the node's devices behind which the subnets of routed guests are.

``snf network uplink`` prepares them from the configuration, where each has a group named after
its routing table, and takes that back. An uplink has a state like a NIC's, and a document.

What it must not do is answer for addresses that are none of its guests': a node whose uplink
answers whatever its routes lead elsewhere takes over the whole subnet as soon as the default
route of its table is gone. So ``proxy_arp`` of the uplink is off; the setup ``routed`` adds each
guest's address by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from oslo_config import cfg

from snf_core import model
from snf_core.errors import ConfigError, InvalidValueError, NetworkError
from snf_core.network.setup import routed
from snf_core.network.state import ELEMENT, LINK, ROUTE, RULE, SYSCTL, Item, State

if TYPE_CHECKING:
    import ipaddress
    from collections.abc import Callable, Mapping

    from snf_core.config import Config
    from snf_core.network.node import Node

T = TypeVar("T")

GROUP = "network.uplink."
"""What the names of the option groups begin with; the routing table follows."""

MAIN = 254
"""The number of the node's own routing table (linux/rtnetlink.h)."""

OPTIONS = [
    cfg.StrOpt(
        "interface",
        help="The device behind which the guests' subnet is. Rename the group: its last part is "
        "the routing table, a number or a name of rt_tables in lower case, that routed NICs name "
        "as their link. One group for each uplink.",
    ),
    cfg.StrOpt("subnet", help="IPv4 subnet on its wire, ADDRESS/LENGTH."),
    cfg.StrOpt("gateway", help="IPv4 address of the subnet's router."),
    cfg.StrOpt(
        "address",
        help="A spare IPv4 address of the subnet, which nobody has: ARP requests out of the "
        "uplink are sent in its name. Not needed where the node has an address there.",
    ),
    cfg.StrOpt("subnet6", help="IPv6 subnet on its wire, ADDRESS/LENGTH."),
    cfg.StrOpt("gateway6", help="IPv6 address of the subnet's router; it may be link-local."),
]


@dataclass(frozen=True)
class Uplink:
    """An uplink as configured: at least one family has a subnet, and then a gateway."""

    table: str
    """The routing table: a number, or a name of rt_tables."""
    interface: str
    priority: int
    """Of the rule by which what comes in looks up the routing table."""
    subnet: ipaddress.IPv4Network | None = None
    gateway: ipaddress.IPv4Address | None = None
    address: ipaddress.IPv4Address | None = None
    subnet6: ipaddress.IPv6Network | None = None
    gateway6: ipaddress.IPv6Address | None = None


def uplinks(config: Config) -> Mapping[str, Uplink]:
    """The configured uplinks by their routing tables, sorted.

    Raises ConfigError naming the file, the option and the group.
    """
    found: dict[str, Uplink] = {}
    for group in sorted(config.groups()):
        if group.startswith(GROUP):
            one = _read(config, group)
            for other in found.values():
                if other.interface == one.interface:
                    raise ConfigError(
                        f"{config.where(group, 'interface')}: {one.interface} is the uplink of "
                        f"routing table {other.table} already",
                        remedy="one interface leads to one routing table: remove one of the groups",
                    )
            found[one.table] = one
    return found


def wanted(uplink: Uplink, node: Node) -> State:
    """What the uplink should have: settings, the table's routes, and the guards of ``routed``.

    Raises NetworkError where this node cannot be prepared so.
    """
    name, table = uplink.interface, node.table(uplink.table)
    if node.link(name) is None:
        raise NetworkError(
            f"{name}, the uplink of routing table {uplink.table}, does not exist on this node",
            remedy=f"make it, or correct interface in [{GROUP}{uplink.table}]",
        )
    if table == MAIN:
        raise NetworkError(
            f"{name}: the uplink's routing table is the node's own",
            remedy="give routed guests a table of their own",
        )
    items = [Item(LINK, name, "up", True)]
    if uplink.subnet is not None:
        items += _ipv4(uplink, node)
        items += _routes(uplink, table, "inet")
    if uplink.subnet6 is not None:
        items += _ipv6(uplink, node)
        items += _routes(uplink, table, "inet6")
    items.append(Item(ELEMENT, "inet routed_uplinks", name, True))
    if uplink.address is not None:
        items.append(Item(ELEMENT, "arp routed_senders", name, str(uplink.address)))
    return State(tuple(items)).wanted_by("routed")


def _routes(uplink: Uplink, table: int, family: str) -> list[Item]:
    name = uplink.interface
    if family == "inet":
        default, subnet, gateway = "0.0.0.0/0", str(uplink.subnet), str(uplink.gateway)
    else:
        default, subnet, gateway = "::/0", str(uplink.subnet6), str(uplink.gateway6)
    return [
        Item(RULE, name, f"{family} {table} {uplink.priority}", True),
        Item(ROUTE, subnet, str(table), f"dev {name}"),
        Item(ROUTE, default, str(table), f"via {gateway} dev {name}"),
    ]


def _setting(path: str, value: int) -> Item:
    return Item(SYSCTL, f"net/{path}", "value", str(value))


def _ipv4(uplink: Uplink, node: Node) -> list[Item]:
    """IPv4 is forwarded by interface; other interfaces of the node are as they were."""
    name = uplink.interface
    if node.sysctl("net/ipv4/conf/all/proxy_arp") == "1":
        raise NetworkError(
            f"{name} would answer ARP requests for all of {uplink.subnet}: "
            "net.ipv4.conf.all.proxy_arp is 1",
            remedy="set it to 0, and that of single interfaces where it is needed",
        )
    return [
        _setting(f"ipv4/conf/{name}/forwarding", 1),
        _setting(f"ipv4/conf/{name}/proxy_arp", 0),
        # Answers for guests come from here alone; they need not be late, by up to 0.8 s.
        _setting(f"ipv4/neigh/{name}/proxy_delay", 0),
    ]


def _ipv6(uplink: Uplink, node: Node) -> list[Item]:
    """IPv6 is forwarded by all interfaces or none (Documentation/networking/ip-sysctl.rst).

    A forwarding node ignores router advertisements, and forgets the default routes it has of
    them at once, unless ``accept_ra`` of the interface is 2. So it becomes 2, before, where the
    node's own default route leads out and advertisements are accepted. Addresses and routes of
    advertisements on further interfaces need the same, from the operator.
    """
    name = uplink.interface
    if not node.ipv6:
        raise NetworkError(
            f"{name} has {uplink.subnet6}, and this node's kernel no IPv6",
            remedy="boot the node without ipv6.disable, or remove subnet6",
        )
    items = []
    own = node.uplink(MAIN, "inet6")
    if own is not None:
        accepting = f"net/ipv6/conf/{own.name}/accept_ra"
        if node.sysctl(accepting) in {"1", "2"}:
            items.append(Item(SYSCTL, accepting, "value", "2"))
    return [
        *items,
        _setting("ipv6/conf/all/forwarding", 1),
        _setting(f"ipv6/conf/{name}/disable_ipv6", 0),
        _setting(f"ipv6/conf/{name}/forwarding", 1),
        _setting(f"ipv6/conf/{name}/proxy_ndp", 1),
        _setting(f"ipv6/neigh/{name}/proxy_delay", 0),
    ]


def _read(config: Config, group: str) -> Uplink:
    view = config.plugin(group, OPTIONS)
    where = _Where(config, group, view)
    uplink = Uplink(
        table=group.removeprefix(GROUP),
        interface=where.value("interface", model.interface_name) or where.missing("interface"),
        priority=config.plugin("network.setup.routed", routed.OPTIONS).rule_priority,
        subnet=where.value("subnet", model.ipv4_network),
        gateway=where.value("gateway", model.ipv4_address),
        address=where.value("address", model.ipv4_address),
        subnet6=where.value("subnet6", model.ipv6_network),
        gateway6=where.value("gateway6", model.ipv6_address),
    )
    if uplink.subnet is None and uplink.subnet6 is None:
        where.missing("subnet")
    for one, other in (("subnet", "gateway"), ("subnet6", "gateway6")):
        for option, needed in ((one, other), (other, one)):
            if getattr(uplink, option) is not None and getattr(uplink, needed) is None:
                where.missing(needed)
    if uplink.address is not None:
        if uplink.subnet is None or uplink.address not in uplink.subnet:
            where.wrong("address", f"{uplink.address} is not in the subnet", "give one of it")
        if uplink.address == uplink.gateway:
            where.wrong("address", f"{uplink.address} is the gateway", "give a spare one")
    return uplink


@dataclass(frozen=True)
class _Where:
    """One group's options, and errors that name them."""

    config: Config
    group: str
    view: Any

    def value(self, option: str, parse: Callable[[str], T]) -> T | None:
        """An option's value, None where there is none."""
        text = getattr(self.view, option)
        if text is None:
            return None
        try:
            return parse(text)
        except InvalidValueError as error:
            self.wrong(option, error.message, error.remedy)

    def missing(self, option: str) -> NoReturn:
        raise ConfigError(
            f"{', '.join(self.config.files_of(self.group))}: group [{self.group}] has no {option}",
            remedy="see etc/snf.conf.sample",
        )

    def wrong(self, option: str, problem: str, remedy: str) -> NoReturn:
        where = self.config.where(self.group, option)
        raise ConfigError(f"{where}: {problem}", remedy=remedy)
