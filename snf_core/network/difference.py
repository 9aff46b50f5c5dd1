"""From what an interface has to what it should have: the changes, and their order.

Some items can be asked for one by one (links, sysctls, ports of Open vSwitch): they are changed
only where they differ, and taken back only where they still are what we made them. The others
(rules, routes, proxied neighbours, elements of nftables sets) could only be listed with those of
all other NICs: they are taken to be as the state document says, and the change itself finds out.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from snf_core.errors import NetworkError
from snf_core.network.document import Record
from snf_core.network.kernel import LINKS, NFT, SWITCH, SYSCTLS, gate_of
from snf_core.network.state import (
    ELEMENT,
    LINK,
    NEIGHBOUR,
    PORT,
    ROUTE,
    RULE,
    SYSCTL,
    Change,
    Item,
    Key,
    Value,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from snf_core.network.document import Document
    from snf_core.network.kernel import Kernel
    from snf_core.network.state import State

OF_PORTS = {"group_fwd_mask"}
"""Attributes of links that only ports have, and lose with their bridge."""

Step = tuple[str, list[Change]]
"""The name of a gate and the changes that go through it at once."""


@dataclass(frozen=True)
class Difference:
    """What leads from one state to another."""

    undo: list[Change]
    """What is taken back, in the order of that."""
    do: list[Change]
    """What is made, in the order of that."""
    ensured: frozenset[Key]
    """Those of ``do`` that should be there already, and are made again only if they are not."""
    records: tuple[Record, ...] = field(default=())
    """What the state document is to keep."""

    @property
    def nothing(self) -> bool:
        """Whether all is taken to be as it should."""
        return not self.undo and all(change.item.key in self.ensured for change in self.do)

    def steps(self) -> list[Step]:
        """The changes, gate by gate: disconnect, guard, connect.

        What guards a NIC is replaced in one transaction, so that it is guarded all the time. A
        port leaves its bridge before it gets the MTU of another.
        """
        order = [(LINKS, self.undo), (SWITCH, self.undo), (SYSCTLS, self.undo)]
        order += [(NFT, self.undo + self.do)]
        order += [(SYSCTLS, self.do), (SWITCH, self.do), (LINKS, self.do)]
        steps = [(gate, [one for one in of if gate_of(one.item) == gate]) for gate, of in order]
        return [(gate, changes) for gate, changes in steps if changes]


class Others(Protocol):
    """What the state documents of other interfaces say about things that several may want.

    An address that is answered for on an uplink, say, outlives the tap behind which it was; it
    may be behind another tap by now, before anybody has taken the first one down.
    """

    def made(self, keys: Collection[Key]) -> dict[Key, Value]:
        """Which of ``keys`` one of them has made, and what there was before."""

    def wanted(self, keys: Collection[Key]) -> Collection[Key]:
        """Which of ``keys`` an interface wants that is there."""


def towards(
    wanted: State, interface: str, previous: Document | None, kernel: Kernel, others: Others
) -> Difference:
    """The difference to ``wanted`` from what ``previous`` says, and the kernel where it can.

    Of what both have, ``previous`` knows better than the kernel what was there before us.
    Raises NetworkError where an item wants something of an object that does not exist.
    """
    known = {one.item.key: one for one in previous.records} if previous else {}
    values = {item.key: item.value for item in wanted.items}
    outdated = [
        one for key, one in known.items() if key not in values or values[key] != one.item.value
    ]
    undo = undoing(outdated, interface, kernel, others)
    actual = kernel.read(wanted.items)
    actual |= {change.item.key: change.item.value for change in undo}
    moving = {item.object for item in wanted.items if _is_moved(item, actual)}
    do, ensured, records = [], set(), []
    for item in wanted.items:
        key, before = item.key, known.get(item.key)
        if item.attribute in OF_PORTS and item.object in moving:
            do.append(Change(item, actual.get(key)))  # it begins anew with each bridge
        elif key in actual:
            if actual[key] != item.value:
                do.append(Change(item, actual[key]))
        elif _is_read(item):
            raise NetworkError(f"{item.setup} wants {item}, which does not exist")
        elif before is not None:
            do.append(Change(item, item.value))
            ensured.add(key)
        else:
            do.append(Change(item, None))
        records.append(Record(item, before.before if before else actual.get(key)))
    there = {
        one.item.key
        for one in records
        if one.before == one.item.value
        and one.item.key not in known
        and _is_shared(one.item, interface)
    }
    made = others.made(there)
    records = [
        replace(one, before=made[one.item.key]) if one.item.key in made else one for one in records
    ]
    return Difference(undo, do, frozenset(ensured), tuple(records))


def undoing(
    records: Sequence[Record], interface: str, kernel: Kernel, others: Others, *, here: bool = True
) -> list[Change]:
    """The changes that take ``records`` back, where the kernel still holds what we set.

    What another interface wants stays. ``here`` is whether the interface is still there and the
    same one: otherwise what it had went with it.
    """
    mine = [
        one
        for one in reversed(records)
        if one.item.value != one.before and (here or not _belongs(one.item, interface))
    ]
    shared = {one.item.key for one in mine if _is_shared(one.item, interface)}
    theirs = others.wanted(shared)
    mine = [one for one in mine if one.item.key not in theirs]
    # Before the port leaves a bridge, whichever of the documented ones it is in.
    mine.sort(key=lambda one: one.item.attribute not in OF_PORTS)
    actual = kernel.read([one.item for one in mine])
    return [
        Change(one.restored, one.item.value)
        for one in mine
        if (
            actual[one.item.key] == one.item.value
            if one.item.key in actual
            else not _is_read(one.item)
        )
    ]


def corrected(records: Sequence[Record], found: Mapping[Key, Value]) -> tuple[Record, ...]:
    """The same records, with what turned out to have been there ``before``."""
    return tuple(
        replace(one, before=found[one.item.key]) if one.item.key in found else one
        for one in records
    )


def shared(changes: Sequence[Change], interface: str) -> list[Change]:
    """Those of what other interfaces may want as well."""
    return [change for change in changes if _is_shared(change.item, interface)]


def _is_read(item: Item) -> bool:
    """Whether the kernel is asked for it by itself."""
    return item.kind == SYSCTL or (item.kind == LINK and item.attribute != "vlans")


def _is_moved(item: Item, actual: Mapping[Key, Value]) -> bool:
    return item.key[::2] == (LINK, "master") and actual.get(item.key) != item.value


def _is_shared(item: Item, interface: str) -> bool:
    """Whether it is about something else than the interface."""
    if item.kind == ELEMENT:
        return item.attribute.split(" ")[0] != interface
    if item.kind in {ROUTE, RULE, PORT}:
        return False
    return not _belongs(item, interface)


def _belongs(item: Item, interface: str) -> bool:
    """Whether the kernel forgets an item together with the interface."""
    if item.kind == ROUTE:
        return f"{item.value} ".endswith(f"dev {interface} ")
    if item.kind == SYSCTL:
        return interface in item.object.split("/")
    return item.kind in {LINK, NEIGHBOUR} and item.object == interface
