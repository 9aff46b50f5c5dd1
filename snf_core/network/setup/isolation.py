"""The setup ``isolation``: what a guest's owner shuts by tags of the instance.

=============================== ================================================================
tag                             of the traffic from and to all NICs of the instance
=============================== ================================================================
``gnt:isolate``                 nothing passes
``gnt:whitelist_ip:ADDRESS``    only what goes to, or comes from, one of the addresses named so
``disable_ipv4``                no IPv4 and no ARP passes
``disable_ipv6``                no IPv6 passes
=============================== ================================================================

Tags of instances may come from tenants, and these only ever shut more: what other setups drop
stays dropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from snf_core.contract import Setup
from snf_core.errors import InvalidValueError, NetworkError
from snf_core.model import Mode, address
from snf_core.network.setup.isolation_rules import BRIDGED, ROUTED
from snf_core.network.state import ELEMENT, LINK, Item, State
from snf_core.network.tags import DISABLE_IPV4, DISABLE_IPV6, ISOLATE, WHITELIST

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from snf_core.model import NicEvent
    from snf_core.network.node import Node

_SETS = {
    ISOLATE: "isolation_isolated",
    DISABLE_IPV4: "isolation_disabled4",
    DISABLE_IPV6: "isolation_disabled6",
}
_RULES = {Mode.BRIDGED: BRIDGED, Mode.ROUTED: ROUTED}
_FAMILIES = {Mode.BRIDGED: ("bridge",), Mode.ROUTED: ("inet", "arp")}
"""The families in which a tag is a set; addresses are of the first alone."""

_ALL_GROUPS = 0xFFFD
"""See ``filtered``: no frame passes the bridge's filter unseen."""


class Isolation(Setup):
    """Shut a NIC, or all of it but for some addresses, or one of its address families."""

    api_version = "1.0"

    def applies(self, event: NicEvent) -> bool:
        """Mode bridged or routed, with one of our instance tags."""
        return (
            event.nic is not None
            and event.nic.mode in _RULES
            and any(self.fulfils(tag) for tag in event.instance_tags)
        )

    def serves(self) -> str:
        """Its modes and tags."""
        return (
            f"mode bridged or routed, with one of the instance tags {', '.join(_SETS)} and "
            f"{WHITELIST}ADDRESS"
        )

    def fulfils(self, tag: str) -> bool:
        """All of its tags."""
        return tag in _SETS or tag.startswith(WHITELIST)

    def ruleset(self, mode: Mode) -> str:
        """The filters, on bridges and between interfaces."""
        return _RULES.get(mode, "")

    def wanted(self, event: NicEvent, node: Node) -> State:
        """What is shut, as elements of our sets."""
        assert event.nic is not None, "asked for without a NIC that applies"
        tap, mode = event.interface, event.nic.mode
        items = [
            Item(ELEMENT, f"{family} {_SETS[tag]}", tap, True)
            for tag in sorted(_SETS.keys() & event.instance_tags)
            for family in _FAMILIES[mode]
            if (family, tag) != ("arp", DISABLE_IPV6)
        ]
        items += [
            Item(ELEMENT, f"{_FAMILIES[mode][0]} {name}", " ".join((tap, *data)), True)
            for name, *data in _whitelist(event.instance_tags)
        ]
        if mode is Mode.BRIDGED:
            items.append(Item(LINK, tap, "group_fwd_mask", _ALL_GROUPS))
        return State(tuple(items))


def _whitelist(tags: Iterable[str]) -> Iterator[tuple[str, ...]]:
    listed = {_listed(tag) for tag in tags if tag.startswith(WHITELIST)}
    if listed:
        yield ("isolation_whitelisted",)
    for version, text in sorted(listed):
        yield (f"isolation_addresses{version}", text)


def _listed(tag: str) -> tuple[int, str]:
    """Version and address in canonical form, of which two tags may name the same."""
    try:
        found = address(tag.removeprefix(WHITELIST))
    except InvalidValueError as error:
        raise NetworkError(
            f"the tag {tag!r} names no address: {error.message}",
            remedy=f"write {WHITELIST}192.0.2.1 or {WHITELIST}2001:db8::1, for example",
        ) from error
    return found.version, str(found)
