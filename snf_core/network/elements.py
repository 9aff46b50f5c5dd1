"""Elements of nftables sets and maps: from items to nft(8)'s notation, and back from its JSON.

What comes out of here is free of injection by construction: every part of a key or of data is an
interface's name, a MAC or IP address, a number or a plain word, and is written in quotes, within
which nft knows no syntax. Addresses must be in their canonical form, so that what is listed can
be compared with what was wanted: MAC addresses in lower case, IPv6 as in RFC 5952.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from snf_core.errors import InvalidValueError, NetworkError
from snf_core.model import address, interface_name
from snf_core.network.state import ELEMENT, Change, Item, Value

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from snf_core.network.state import Key

FAMILIES = ("bridge", "inet", "arp")
"""Of our tables, all of which are named ``snf``."""

NICS = "inet nics"
"""The set in which every NIC has its marker, by which a new one is told from one forgotten."""

_OBJECT = re.compile(r"(bridge|inet|arp) ([A-Za-z][A-Za-z0-9_]{0,63})")
_VERDICT = re.compile(r"accept|drop|return|continue|(?:jump|goto) [A-Za-z][A-Za-z0-9_]{0,63}")
_MAC = re.compile(r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}", re.IGNORECASE)
_NUMBER = re.compile(r"0|[1-9][0-9]{0,9}|0x[1-9a-f][0-9a-f]{0,31}")
"""In decimal, or in hexadecimal where nft knows no type: raw parts of packets."""


class Element(NamedTuple):
    """An element as nft(8) writes it; ``key`` alone where it is of a set."""

    family: str
    name: str
    """Of the set or map."""
    key: str
    data: str

    @property
    def place(self) -> str:
        """Where it is, for a command: ``bridge snf filtered_macs``."""
        return f"{self.family} snf {self.name}"

    @property
    def text(self) -> str:
        """Key and data."""
        return f"{self.key} : {self.data}" if self.data else self.key


def element(item: Item) -> Element:
    """The element that an item stands for; without data where the item is to be absent.

    Raises NetworkError where it cannot be one.
    """
    place = _OBJECT.fullmatch(item.object)
    if place is None:
        raise NetworkError(f"{item.object!r} is not a set of our nftables tables")
    interface, *parts = item.attribute.split(" ")
    try:
        key = " . ".join([f'"{interface_name(interface)}"', *map(_quoted, parts)])
        return Element(place[1], place[2], key, _data(item.value))
    except InvalidValueError as error:
        raise NetworkError(
            f"element {item.attribute!r} of {item.object}: {error.message}"
        ) from error


def _data(value: Value) -> str:
    if value is None or value is True:
        return ""
    text = str(value)
    if _VERDICT.fullmatch(text):
        return text
    return " . ".join(map(_quoted, text.split(" ")))


def _quoted(part: str) -> str:
    """A part in quotes. Raises InvalidValueError where it is none, or not in canonical form."""
    canonical = part
    if _MAC.fullmatch(part):
        canonical = part.lower()
    elif not _NUMBER.fullmatch(part):
        try:
            canonical = str(address(part))
        except InvalidValueError:
            interface_name(part)  # which is as plain a word as any other
    if canonical != part:
        raise InvalidValueError(f"{part!r} is to be written {canonical}")
    return f'"{part}"'


def stated(changes: Iterable[Change]) -> str:
    """The commands that make changes, each taken to be from what ``before`` says."""
    lines = []
    for item, before in changes:
        found = element(item)
        if before is not None and before != item.value:
            lines.append(f"delete element {found.place} {{ {found.key} }}\n")
        if item.value is not None:
            verb = "create" if item.object == NICS and before is None else "add"
            lines.append(f"{verb} element {found.place} {{ {found.text} }}\n")
    return "".join(lines)


def added_together(items: Iterable[Item]) -> str:
    """Commands that add elements: one for each set, which takes half of the time and memory."""
    places: dict[str, list[str]] = {}
    for item in items:
        found = element(item)
        places.setdefault(found.place, []).append(found.text)
    return "".join(
        f"add element {place} {{ {', '.join(texts)} }}\n" for place, texts in places.items()
    )


def known(changes: Iterable[Change], actual: Mapping[Key, Value]) -> set[Key]:
    """The markers of NICs that were to be new and are not."""
    return {
        item.key
        for item, before in changes
        if item.object == NICS and item.value and before is None and item.key in actual
    }


def corrected(changes: Sequence[Change], actual: Mapping[Key, Value]) -> list[Change]:
    """The changes that lead to the same from what there actually is.

    Of a NIC that was to be new and is not, all goes that is not wanted: nobody remembers it.
    """
    goal = {item.key: item for item, _ in changes}
    stale = {interface for _, _, interface in known(changes, actual)}
    for key in actual:
        if key not in goal and key[2].split(" ")[0] in stale:
            goal[key] = Item(*key, None)
    return [
        Change(item, actual.get(key)) for key, item in goal.items() if item.value != actual.get(key)
    ]


def listed(tables: Iterable[Mapping[str, Any]]) -> Iterator[tuple[Key, str | bool]]:
    """The elements in what libnftables lists (libnftables-json(5)), one object at a time.

    Left out are sets whose key does not begin with an interface: they are not about NICs.
    """
    for entry in tables:
        found = entry.get("set") or entry.get("map")
        if not found:
            continue
        kinds = [found["type"]] if isinstance(found["type"], str) else found["type"]
        if kinds[0] != "ifname":
            continue
        place = f"{found['family']} {found['name']}"
        is_map = "map" in found
        # Most are as they should be: it is worth not to look at each part of ten thousands.
        verbatim = {"ifname", "ether_addr", "ipv4_addr"}.issuperset(kinds)
        for one in found.get("elem", ()):
            key, data = one if is_map else (one, None)
            if verbatim and isinstance(key, dict) and "concat" in key:
                text = " ".join(key["concat"])
            elif verbatim and isinstance(key, str):
                text = key
            else:
                text = _key(key, kinds)
            yield (ELEMENT, place, text), _plain(data) if is_map else True


def _key(value: Any, kinds: Sequence[str]) -> str:
    """A key of libnftables' JSON in our notation. Raw parts of packets are of type integer."""
    if isinstance(value, dict) and "elem" in value:
        return _key(value["elem"]["val"], kinds)
    parts = value["concat"] if isinstance(value, dict) and "concat" in value else [value]
    return " ".join(
        f"{int(str(part), 0):#x}" if kind == "integer" else _plain(part)
        for part, kind in zip(parts, kinds, strict=True)
    )


def _plain(value: Any) -> str:
    """A key or data of libnftables' JSON in our notation."""
    if isinstance(value, str):
        if "." in value and ":" in value:  # the C library's own form of some IPv6 addresses
            return _ipv6(value)
        return value
    if isinstance(value, dict):
        (kind, inner), *_ = value.items()
        if kind == "concat":
            return " ".join(map(_plain, inner))
        if kind == "elem":  # with a counter or the like beside it
            return _plain(inner["val"])
        return f"{kind} {inner['target']}" if inner else str(kind)
    return str(value)


def _ipv6(value: str) -> str:
    try:
        return str(ipaddress.IPv6Address(value))
    except ValueError:
        return value  # an interface's name may have both
