"""NIC events as Ganeti delivers them for KVM instances.

======= ==================================================== =================================
Ganeti  it calls                                             we get
======= ==================================================== =================================
3.0     ``kvm-vif-bridge``                                   ``up``
3.1     ``kvm-ifup-custom TAP``                              ``up TAP``
\\       ``kvm-ifdown-custom TAP LOCAL_ONLY`` (true or false) ``down TAP LOCAL_ONLY``
======= ==================================================== =================================

The NIC itself is in the environment, for ``up`` (INTERFACE, INSTANCE, MAC, MODE and so on; see
the operators' guide). An optional variable may be absent or empty: that is the same. Values are
parsed, and never reach a shell.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeVar

from snf_core import model
from snf_core.errors import InvalidValueError
from snf_core.model import Action, Mode, Network, Nic, NicEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

T = TypeVar("T")

_INDEX = re.compile(r"[0-9]{1,3}")
_VLAN = re.compile(r"\.?[0-9]{1,4}(:[0-9]{1,4})*|(:[0-9]{1,4})+")
_TABLE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_SWITCHED = {Mode.BRIDGED, Mode.OPENVSWITCH}


def nic_event(argv: Sequence[str], environ: Mapping[str, str]) -> NicEvent:
    """The event of ``argv`` (``up [TAP]`` or ``down [TAP [LOCAL_ONLY]]``) and the environment.

    Raises InvalidValueError naming the variable or argument that is missing or wrong.
    """
    variables = _Variables(environ)
    match list(argv):
        case ["up", *taps] if len(taps) <= 1:
            return _up(variables, *taps)
        case ["down", *words] if len(words) <= 2:
            return _down(variables, *words)
    raise InvalidValueError(
        "arguments: not those of a NIC event",
        remedy="expected: up [TAP], or down [TAP [true|false]]",
    )


class _Variables:
    """The environment, each variable parsed by its own rule."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def get(self, name: str, parse: Callable[[str], T]) -> T | None:
        """A variable's value, or None where it is absent or empty."""
        return _parsed(name, self._environ.get(name, ""), parse)

    def need(self, name: str, parse: Callable[[str], T]) -> T:
        """A variable's value."""
        value = self.get(name, parse)
        if value is None:
            raise InvalidValueError(
                f"{name}: missing from the environment", remedy="Ganeti sets it for NIC scripts"
            )
        return value


def _parsed(name: str, value: str, parse: Callable[[str], T]) -> T | None:
    if not value:
        return None
    if not value.isprintable():
        raise InvalidValueError(f"{name}: {value!r} holds characters that cannot be printed")
    try:
        return parse(value)
    except InvalidValueError as error:
        raise InvalidValueError(f"{name}: {error.message}", remedy=error.remedy) from error


def _interface(variables: _Variables, tap: str) -> str:
    """The tap's name, from the argument, the environment, or both if they agree."""
    passed = _parsed("TAP (argument)", tap, model.interface_name)
    named = variables.get("INTERFACE", model.interface_name)
    if passed and named and passed != named:
        raise InvalidValueError(
            f"INTERFACE: {named!r} in the environment, but the argument is {passed!r}"
        )
    return passed or named or variables.need("INTERFACE", model.interface_name)


def _down(variables: _Variables, tap: str = "", local_only: str = "false") -> NicEvent:
    if local_only not in {"true", "false"}:
        raise InvalidValueError(
            f"LOCAL_ONLY (argument): {local_only!r} is neither 'true' nor 'false'"
        )
    return NicEvent(
        action=Action.DOWN,
        interface=_interface(variables, tap),
        instance=variables.get("INSTANCE", model.instance_name) or "",
        local_only=local_only == "true",
    )


def _up(variables: _Variables, tap: str = "") -> NicEvent:
    return NicEvent(
        action=Action.UP,
        interface=_interface(variables, tap),
        instance=variables.need("INSTANCE", model.instance_name),
        nic=_nic(variables),
        instance_tags=variables.get("TAGS", model.tags) or frozenset(),
    )


def _nic(variables: _Variables) -> Nic:
    mode = variables.need("MODE", _mode)
    link = variables.need("LINK", model.interface_name if mode in _SWITCHED else _table)
    bridge = variables.get("BRIDGE", model.interface_name)
    if mode in _SWITCHED and bridge not in {None, link}:
        raise InvalidValueError(f"BRIDGE: {bridge!r}, but LINK is {link!r}")
    return Nic(
        index=variables.need("INTERFACE_INDEX", _index),
        mac=variables.need("MAC", model.mac_address),
        mode=mode,
        link=link,
        ip=variables.get("IP", model.address),
        vlan=variables.get("VLAN", _vlan) or "",
        name=variables.get("INTERFACE_NAME", model.name) or "",
        uuid=variables.get("INTERFACE_UUID", model.uuid) or "",
        network=_network(variables),
    )


def _network(variables: _Variables) -> Network | None:
    nameless = Network(name="-")
    name = variables.get("NETWORK_NAME", model.name)
    network = Network(
        name=name or nameless.name,
        uuid=variables.get("NETWORK_UUID", model.uuid) or "",
        subnet=variables.get("NETWORK_SUBNET", model.ipv4_network),
        gateway=variables.get("NETWORK_GATEWAY", model.ipv4_address),
        subnet6=variables.get("NETWORK_SUBNET6", model.ipv6_network),
        gateway6=variables.get("NETWORK_GATEWAY6", model.ipv6_address),
        mac_prefix=variables.get("NETWORK_MAC_PREFIX", model.mac_prefix) or "",
        tags=variables.get("NETWORK_TAGS", model.tags) or frozenset(),
    )
    if name:
        return network
    # Without its network a NIC would lose what the network's tags promise.
    if network != nameless:
        raise InvalidValueError("NETWORK_NAME: missing, but other NETWORK_ variables are set")
    return None


def _mode(value: str) -> Mode:
    try:
        return Mode(value)
    except ValueError as error:
        raise InvalidValueError(
            f"{value!r} is not a NIC mode",
            remedy="expected " + ", ".join(mode.value for mode in Mode),
        ) from error


def _index(value: str) -> int:
    if not _INDEX.fullmatch(value):
        raise InvalidValueError(f"{value!r} is not the number of a NIC")
    return int(value)


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
