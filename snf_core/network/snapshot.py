"""What many items of links, rules, routes and neighbours are now, from the kernel's whole lists.

Each list is read once, and only where an item needs it: its cost is that of the node, not that of
the number of items times that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from snf_core.network import replies
from snf_core.network import rtnetlink as rt
from snf_core.network.state import LINK, NEIGHBOUR, ROUTE, RULE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from snf_core.network.netlink import Reply
    from snf_core.network.node import Link
    from snf_core.network.state import Item, Key, Value


class Lister(Protocol):
    """What asks the kernel for a list. Raises NetworkError, naming what it asked for."""

    def __call__(self, message: rt.Message, what: str) -> list[Reply]:
        """All replies."""


def snapshot(items: Collection[Item], ask: Lister) -> dict[Key, Value]:
    """The value of each item, None for what is absent.

    What belongs to an interface that does not exist is left out, but for rules: they stay in the
    kernel without it. A route's value is what has the prefix at that place, whoever it is from.
    Where links are looked at, the number of each stands beside, as its attribute "index".
    Raises NetworkError.
    """
    kinds = {item.kind for item in items}
    links = _links(ask) if kinds & {LINK, ROUTE, NEIGHBOUR} else {}
    return {
        **{(LINK, link.name, "index"): link.index for link in links.values()},
        **dict(_link_values([item for item in items if item.kind == LINK], links, ask)),
        **dict(_rule_values([item for item in items if item.kind == RULE], ask)),
        **dict(_route_values([item for item in items if item.kind == ROUTE], links, ask)),
        **dict(_neighbour_values([item for item in items if item.kind == NEIGHBOUR], links, ask)),
    }


def _links(ask: Lister) -> dict[str, Link]:
    listed = ask(rt.list_links(), "links")
    links = [replies.read_link(reply) for reply in listed]
    names = {link.index: link.name for link, _ in links}
    return {link.name: link for link in replies.with_masters(links, names)}


def _link_values(
    items: list[Item], links: dict[str, Link], ask: Lister
) -> Iterator[tuple[Key, Value]]:
    ports: dict[int, rt.Vlans] = {}
    if any(item.attribute == "vlans" for item in items):
        ports = replies.read_vlans(ask(rt.list_vlans(), "VLANs"))
    for item in items:
        link = links.get(item.object)
        if link is None:
            continue
        if item.attribute != "vlans":
            yield item.key, getattr(link, item.attribute)
            continue
        vlans = ports.get(link.index, {})
        same = item.value is not None and rt.parse_vlans(str(item.value)) == vlans
        yield item.key, item.value if same else rt.format_vlans(vlans)


def _rule_values(items: list[Item], ask: Lister) -> Iterator[tuple[Key, Value]]:
    wanted = [(item.key, item.object, rt.parse_rule(item.attribute)) for item in items]
    families = {rule.family for _, _, rule in wanted}
    rules = {
        found
        for family in families
        for reply in ask(rt.list_rules(rt.FAMILIES[family]), f"rules of {family}")
        if (found := replies.read_rule(reply)) is not None
    }
    for key, interface, rule in wanted:
        yield key, True if (interface, rule) in rules else None


def _route_values(
    items: list[Item], links: dict[str, Link], ask: Lister
) -> Iterator[tuple[Key, Value]]:
    names = {link.index: link.name for link in links.values()}
    wanted = [
        (
            item,
            rt.family_of(item.object),
            rt.parse_place(item.attribute),
            rt.parse_prefix(item.object),
        )
        for item in items
    ]
    routes = {
        (family, table): dict(
            found
            for reply in ask(rt.list_routes(family, table), f"routing table {table}")
            if (found := replies.read_route(reply, names.get)) is not None
        )
        for family, table in {(family, place.table) for _, family, place, _ in wanted}
    }
    for item, family, place, prefix in wanted:
        value = routes[family, place.table].get((prefix, place.metric))
        same = item.value is not None and str(rt.parse_route(str(item.value))) == value
        yield item.key, item.value if same else value


def _neighbour_values(
    items: list[Item], links: dict[str, Link], ask: Lister
) -> Iterator[tuple[Key, Value]]:
    proxied = {
        found
        for family in {rt.family_of(item.attribute) for item in items}
        for reply in ask(rt.list_neighbours(family), "proxied neighbours")
        if (found := replies.read_neighbour(reply)) is not None
    }
    for item in items:
        link = links.get(item.object)
        if link is not None:
            here = (link.index, rt.canonical(item.attribute)) in proxied
            yield item.key, True if here else None
