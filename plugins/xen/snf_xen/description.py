"""What a domain's NIC is to be, as Ganeti or the operator has described it on this node.

Ganeti writes a file for each NIC before it creates the domain, to be sourced by a shell: lines
NAME=VALUE, parsed here. The operator of domains that are not Ganeti's may write such files, too,
below a directory of our own; what is not described there has no more than xl knows of it.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from snf_core import model
from snf_core.errors import InvalidValueError, NetworkError
from snf_core.ganeti.variables import Variables, script_nic

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from snf_core.model import Nic

    Ask = Callable[[str, int], Mapping[str, str]]
    """Answers with the variables of an instance's NIC, as ``snf_core.ganeti.query.nic`` does."""

GANETI = Path("/var/run/ganeti/xen-hypervisor/nic")
"""Holds INSTANCE/DEVICE, one file for each NIC, as Ganeti writes them."""

_QUOTED = re.compile(r'(TAGS|NETWORK_[A-Z0-9_]+)="(.*)"')
_BARE = re.compile(r"(?!TAGS|NETWORK_)([A-Z][A-Z0-9_]*)=(.*)")
_ORDER = ["TAGS", "NETWORK_", "MAC", "IP", "INTERFACE_INDEX", "INTERFACE_NAME", "INTERFACE_UUID",
          "MODE", "LINK", "VLAN"]  # fmt: skip
"""The variables of a NIC's file; NETWORK_ stands for all that begin with it."""

_OF_NETWORKS = ("NAME", "UUID", "TAGS", "SUBNET", "GATEWAY", "SUBNET6", "GATEWAY6", "MAC_PREFIX")
_NAMES = (*(name for name in _ORDER if name != "NETWORK_"), *map("NETWORK_{}".format, _OF_NETWORKS))


class Described(NamedTuple):
    """A NIC, and the tags of its domain."""

    nic: Nic
    tags: frozenset[str]
    source: str
    """What says so: a file, or in words."""


def by_ganeti(
    domain: str, device: int, directory: Path = GANETI, ask: Ask | None = None
) -> Described:
    """The NIC ``device`` of an instance of Ganeti's.

    Where there is no file, as on the node that an instance migrates to, Ganeti is asked. Raises
    InvalidValueError naming what is wrong, NetworkError where nobody describes it.
    """
    path = directory / domain / str(device)
    text = _read(path)
    if text is not None:
        return _described(str(path), lambda: _in_order(_values(text)))
    if ask is None:
        from snf_core.ganeti import query

        ask = query.nic
    answer = functools.partial(ask, domain, device)
    try:
        return _described("Ganeti's configuration", answer)
    except NetworkError as error:
        raise NetworkError(
            f"Ganeti has not described NIC {device} of {domain} on this node: there is no {path}, "
            f"and {error.message}",
            remedy="it writes the file where it starts an instance, and not where it migrates one "
            "to: use gnt-instance failover",
        ) from error


def by_operator(domain: str, device: int, directory: Path, known: Mapping[str, str]) -> Described:
    """The NIC ``device`` of a domain that xl alone has made.

    ``known`` are the keys that xl gave it in xenstore, of which mac, ip, bridge and mtu stand
    where no file in ``directory`` says more. Raises InvalidValueError, NetworkError.
    """
    path = directory / domain / str(device)
    text = _read(path)
    given = {"MAC": known.get("mac", ""), "INTERFACE_INDEX": str(device)}
    if text is not None:
        return _described(str(path), lambda: given | _known(_values(_without_comments(text))))
    given |= {"MODE": "bridged", "LINK": known.get("bridge", ""), "IP": known.get("ip", "")}
    return _described("its configuration", lambda: given)


def _described(source: str, values: Callable[[], Mapping[str, str]]) -> Described:
    try:
        variables = Variables(values())
        tags = variables.get("TAGS", model.tags) or frozenset()
        return Described(script_nic(variables), tags, source)
    except InvalidValueError as error:
        raise InvalidValueError(f"{source}: {error.message}", remedy=error.remedy) from error


def _read(path: Path) -> str | None:
    try:
        return path.read_bytes().decode()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise NetworkError(f"{path} cannot be read: {error}") from error


def _values(text: str) -> dict[str, str]:
    """The variables of a NIC's file.

    As Ganeti writes them: TAGS and NETWORK_* in double quotes, all else bare, nothing escaped but
    the blanks in TAGS, which no shell needs inside quotes.
    """
    values: dict[str, str] = {}
    for line in text.removesuffix("\n").split("\n"):
        found = _QUOTED.fullmatch(line) or _BARE.fullmatch(line)
        if not found or found[1] in values:
            raise InvalidValueError(f"{line!r} is not what Ganeti writes there")
        values[found[1]] = found[2]
    if "TAGS" in values:
        values["TAGS"] = values["TAGS"].replace("\\ ", " ")
    return values


def _in_order(values: dict[str, str]) -> dict[str, str]:
    """The same, if they stand in Ganeti's order.

    A NIC's name may hold line ends, and then whatever it likes: hence the order, in which nothing
    optional follows the name.
    """
    kinds = ["NETWORK_" if name.startswith("NETWORK_") else name for name in values]
    places = [_ORDER.index(kind) for kind in kinds if kind in _ORDER]
    if places != sorted(places):
        raise InvalidValueError(f"not in Ganeti's order: {', '.join(values)}")
    return values


def _known(values: dict[str, str]) -> dict[str, str]:
    """The same, if all of it means something: what is misspelt must not be what a NIC lacks."""
    for name in values:
        if name not in _NAMES:
            raise InvalidValueError(f"{name} means nothing", remedy=f"known: {', '.join(_NAMES)}")
    return values


def _without_comments(text: str) -> str:
    """A text as people write it, of nothing but what it sets."""
    lines = map(str.strip, text.split("\n"))
    return "\n".join(line for line in lines if line and not line.startswith("#"))
