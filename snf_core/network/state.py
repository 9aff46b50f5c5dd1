"""What one interface should have on the host: pure data.

A state is a sequence of items, in the order in which they are applied; they are taken back in
the reverse order. Each setup states its own; ``merge`` makes one of them all. An item names an
attribute of an object of the kernel and the value it should have; None stands for absence.

========= ===================== ================ ==============================================
kind      object                attribute        value
========= ===================== ================ ==============================================
link      interface             address          MAC address of the host's side (str)
\\                               mtu              bytes (int)
\\                               master           bridge that it is a port of (str), or None
\\                               vlans            a port's VLANs on a VLAN-aware bridge (str):
\\                                                ``untagged 100``, ``tagged 200,300``, or both
\\                                                with a blank between; or None
\\                               group_fwd_mask   a port's link-local groups that are not kept to
\\                                                the link (STP, LLDP...), as bits (int)
\\                               up               administratively up (bool)
port      interface             switch           Open vSwitch bridge that it is a port of, with
\\                                                the VLANs in the same notation (str):
\\                                                ``br0``, ``br0 untagged 100``; or None
sysctl    path below /proc/sys  value            ``1`` (str)
rule      interface             ``FAMILY TABLE   True: packets that come in by the interface
\\                               PRIORITY``       look up the routing table; or None
route     prefix                table's number,  ``dev tap0``, ``via 192.0.2.1 dev eth1`` (str),
\\                               and a metric     or None
\\                               other than the
\\                               usual: ``100``,
\\                               ``100 2048``
neighbour interface             address          True: answered for by proxy (ARP or NDP) on
\\                                                the interface; or None
element   ``FAMILY SET``        its key          of a set in our nftables table: True; of a map:
\\                                                the data (str); or None
========= ===================== ================ ==============================================

FAMILY of a rule is ``inet`` or ``inet6``, of a set ``bridge``, ``inet`` or ``arp``. The parts of
an element's key are separated by blanks, in nft(8)'s notation: ``tap0 aa:00:00:12:34:56``; its
first part is the name of the interface.
"""

from __future__ import annotations

import functools
from dataclasses import asdict, dataclass, replace
from types import NoneType
from typing import TYPE_CHECKING, Any, NamedTuple

from snf_core.errors import NetworkError

if TYPE_CHECKING:
    import ipaddress
    from collections.abc import Iterable, Mapping

Value = str | int | bool | None
"""What an attribute may hold: the JSON scalars. None stands for absence."""

Key = tuple[str, str, str]

LINK = "link"
PORT = "port"
SYSCTL = "sysctl"
RULE = "rule"
ROUTE = "route"
NEIGHBOUR = "neighbour"
ELEMENT = "element"

_TYPES: dict[str, dict[str, set[type]]] = {
    LINK: {
        "address": {str},
        "mtu": {int},
        "master": {str, NoneType},
        "vlans": {str, NoneType},
        "group_fwd_mask": {int},
        "up": {bool},
    },
    PORT: {"switch": {str, NoneType}},
    SYSCTL: {"value": {str}},
    RULE: {"": {bool, NoneType}},
    ROUTE: {"": {str, NoneType}},
    NEIGHBOUR: {"": {bool, NoneType}},
    ELEMENT: {"": {bool, str, NoneType}},
}
"""For each kind what an attribute holds; "" stands for any attribute."""


def shown(value: Value) -> str:
    """A value as people read it."""
    if value is None:
        return "absent"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def possible(kind: str, attribute: str, value: Value) -> bool:
    """Whether an attribute of an object of this kind can have such a value."""
    attributes = _TYPES.get(kind, {})
    types = attributes.get(attribute) or attributes.get("", set())
    return type(value) in types and (value is not False or kind == LINK)


@dataclass(frozen=True)
class Item:
    """One attribute of one object of the kernel, and the setup that wants it.

    Raises NetworkError where it is not one of the table above.
    """

    kind: str
    object: str
    attribute: str
    value: Value
    setup: str = ""
    """Filled in by the engine: a setup does not know the name it is installed under."""

    def __post_init__(self) -> None:
        if not possible(self.kind, self.attribute, self.value):
            raise NetworkError(
                f"{self.attribute} {self.value!r} is nothing that a {self.kind} can have"
            )

    @functools.cached_property
    def key(self) -> Key:
        """What can hold but one value."""
        return (self.kind, self.object, self.attribute)

    def __str__(self) -> str:
        return f"{self.kind} {self.object} {self.attribute} {shown(self.value)}"


class Change(NamedTuple):
    """An item as it shall be, and the value that it has, or is taken to have, now."""

    item: Item
    before: Value

    @property
    def reversed(self) -> Change:
        """The change that takes this one back."""
        return Change(replace(self.item, value=self.before), self.item.value)


@dataclass(frozen=True)
class Announcement:
    """That an address is reached by a MAC address now, to be told on an interface.

    IPv4 by gratuitous ARP (RFC 5227, section 3), IPv6 by an unsolicited neighbour advertisement
    (RFC 4861, section 7.2.6).
    """

    interface: str
    address: ipaddress.IPv4Address | ipaddress.IPv6Address
    mac: str


@dataclass(frozen=True)
class State:
    """What an interface should have. Raises NetworkError where an item is stated twice."""

    items: tuple[Item, ...] = ()
    announcements: tuple[Announcement, ...] = ()
    """Made once all items are as wanted."""

    def __post_init__(self) -> None:
        seen = set()
        for item in self.items:
            if item.key in seen:
                raise NetworkError(f"{item.attribute} of {item.kind} {item.object} is stated twice")
            seen.add(item.key)

    def wanted_by(self, setup: str) -> State:
        """The same state with every item carrying the name of a setup."""
        items = tuple(replace(item, setup=setup) for item in self.items)
        return State(items, self.announcements)

    def to_json(self) -> list[dict[str, Any]]:
        """JSON-able, one object per item."""
        return [asdict(item) for item in self.items]

    @classmethod
    def from_json(cls, data: Iterable[Mapping[str, Any]]) -> State:
        """The inverse of ``to_json``. Raises NetworkError where ``data`` is anything else."""
        return cls(tuple(item_from_json(entry) for entry in data))


def item_from_json(data: Mapping[str, Any]) -> Item:
    """An item as ``State.to_json`` writes it; further keys are ignored. Raises NetworkError."""
    try:
        item = Item(data["kind"], data["object"], data["attribute"], data["value"], data["setup"])
    except (KeyError, TypeError) as error:
        raise NetworkError(f"{data!r} is not an item of a state") from error
    if not (
        isinstance(item.object, str)
        and isinstance(item.attribute, str)
        and isinstance(item.setup, str)
    ):
        raise NetworkError(f"{data!r} is not an item of a state")
    return item


def merge(states: Iterable[State]) -> State:
    """One state of several. Setups may agree on an item; the first then stands for both.

    Raises NetworkError naming both setups where they want different values.
    """
    merged: dict[Key, Item] = {}
    announcements: list[Announcement] = []
    for state in states:
        announcements += state.announcements
        for item in state.items:
            other = merged.setdefault(item.key, item)
            if other.value != item.value:
                raise NetworkError(
                    f"setups {other.setup!r} and {item.setup!r} contradict each other: "
                    f"{other}, but {item}",
                    remedy="change the network's tags, or [network] setups, so that only one "
                    "of them applies",
                )
    return State(tuple(merged.values()), tuple(dict.fromkeys(announcements)))
