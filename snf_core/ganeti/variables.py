"""A NIC in Ganeti's variables, as NIC scripts, Xen's NIC files and hooks have them.

They bear the same names everywhere, behind a prefix of each; the NIC's own name and UUID alone are
called INTERFACE_NAME and INTERFACE_UUID in scripts, NAME and UUID in hooks. An optional variable
may be absent or empty: that is the same. Values are parsed, and never reach a shell.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeVar

from snf_core import model
from snf_core.errors import InvalidValueError
from snf_core.model import Mode, Network, Nic

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")

_INDEX = re.compile(r"[0-9]{1,3}")
_VLAN = re.compile(r"\.?[0-9]{1,4}(:[0-9]{1,4})*|(:[0-9]{1,4})+")
_TABLE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_SWITCHED = {Mode.BRIDGED, Mode.OPENVSWITCH}


class Variables:
    """Named values, each parsed by its own rule. Whatever is raised names the variable."""

    def __init__(self, values: Mapping[str, str], prefix: str = "") -> None:
        """``prefix`` is what all names begin with, and need not be said when asking."""
        self._values = values
        self._prefix = prefix

    def full(self, name: str) -> str:
        """What the variable is called in full."""
        return self._prefix + name

    def get(self, name: str, parse: Callable[[str], T]) -> T | None:
        """A variable's value, or None where it is absent or empty. Raises InvalidValueError."""
        return parsed(self.full(name), self._values.get(self.full(name), ""), parse)

    def need(self, name: str, parse: Callable[[str], T]) -> T:
        """A variable's value. Raises InvalidValueError where it has none, too."""
        value = self.get(name, parse)
        if value is None:
            raise InvalidValueError(
                f"{self.full(name)}: missing", remedy="Ganeti sets it for its scripts and hooks"
            )
        return value

    def below(self, prefix: str) -> Variables:
        """Those whose names continue with ``prefix``."""
        return Variables(self._values, self.full(prefix))


def parsed(name: str, value: str, parse: Callable[[str], T]) -> T | None:
    """The value of what is called ``name``; None where it is empty. Raises InvalidValueError."""
    if not value:
        return None
    if not value.isprintable():
        raise InvalidValueError(f"{name}: {value!r} holds characters that cannot be printed")
    return named(name, lambda: parse(value))


def named(name: str, make: Callable[[], T]) -> T:
    """What ``make`` makes of what is called ``name``. Raises its InvalidValueError, naming it."""
    try:
        return make()
    except InvalidValueError as error:
        raise InvalidValueError(f"{name}: {error.message}", remedy=error.remedy) from error


def script_nic(variables: Variables) -> Nic:
    """The NIC that a NIC script is told of. Raises InvalidValueError naming the variable."""
    return nic(variables, variables.need("INTERFACE_INDEX", nic_index), own="INTERFACE_")


def nic(variables: Variables, index: int, own: str = "") -> Nic:
    """The NIC number ``index``, whose name and UUID are called what ``own`` begins.

    Raises InvalidValueError naming the variable.
    """
    mode = variables.need("MODE", _mode)
    switched = mode in _SWITCHED
    link = (
        variables.need("LINK", model.interface_name) if switched else variables.get("LINK", _table)
    )
    bridge = variables.get("BRIDGE", model.interface_name)
    if switched and bridge not in {None, link}:
        raise InvalidValueError(f"{variables.full('BRIDGE')}: {bridge!r}, but LINK is {link!r}")
    return Nic(
        index=index,
        mac=variables.need("MAC", model.mac_address),
        mode=mode,
        link=link or "",
        ip=variables.get("IP", model.address),
        vlan=variables.get("VLAN", _vlan) or "",
        name=variables.get(f"{own}NAME", model.name) or "",
        uuid=variables.get(f"{own}UUID", model.uuid) or "",
        network=_network(variables.below("NETWORK_")),
    )


def _network(variables: Variables) -> Network | None:
    nameless = Network(name="-")
    name = variables.get("NAME", model.name)
    network = Network(
        name=name or nameless.name,
        uuid=variables.get("UUID", model.uuid) or "",
        subnet=variables.get("SUBNET", model.ipv4_network),
        gateway=variables.get("GATEWAY", model.ipv4_address),
        subnet6=variables.get("SUBNET6", model.ipv6_network),
        gateway6=variables.get("GATEWAY6", model.ipv6_address),
        mac_prefix=variables.get("MAC_PREFIX", model.mac_prefix) or "",
        tags=variables.get("TAGS", model.tags) or frozenset(),
    )
    if name:
        return network
    # Without its network a NIC would lose what the network's tags promise.
    if network != nameless:
        named = variables.full("NAME")
        raise InvalidValueError(f"{named}: missing, but others of its network are set")
    return None


def nic_index(value: str) -> int:
    """The number of a NIC, from 0. Raises InvalidValueError."""
    if not _INDEX.fullmatch(value):
        raise InvalidValueError(f"{value!r} is not the number of a NIC")
    return int(value)


def _mode(value: str) -> Mode:
    try:
        return Mode(value)
    except ValueError as error:
        raise InvalidValueError(
            f"{value!r} is not a NIC mode",
            remedy="expected " + ", ".join(mode.value for mode in Mode),
        ) from error


def _table(value: str) -> str:
    """A routing table's number or name, or whatever mode ext makes of a link."""
    if not _TABLE.fullmatch(value):
        raise InvalidValueError(f"{value!r} is not the name of a routing table")
    return value


def _vlan(value: str) -> str:
    """Ganeti's notation (man gnt-instance): ``.N`` or ``N`` untagged, ``:N:N...`` tagged."""
    numbers = [int(number) for number in re.findall(r"[0-9]+", value)]
    if not _VLAN.fullmatch(value) or not all(1 <= number <= 4094 for number in numbers):
        raise InvalidValueError(
            f"{value!r} is not a VLAN", remedy="expected .N or :N:N..., N from 1 to 4094"
        )
    return value
