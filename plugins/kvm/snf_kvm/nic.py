"""NIC events as Ganeti delivers them for KVM instances.

======= ==================================================== =================================
Ganeti  it calls                                             we get
======= ==================================================== =================================
3.0     ``kvm-vif-bridge``                                   ``up``
3.1     ``kvm-ifup-custom TAP``                              ``up TAP``
\\       ``kvm-ifdown-custom TAP LOCAL_ONLY`` (true or false) ``down TAP LOCAL_ONLY``
3.2     ``network/MODE/up``                                  ``up``
\\       ``network/MODE/down``                                ``down``
======= ==================================================== =================================

Some trees of 3.1 alone call ``kvm-ifup-custom`` and ``kvm-ifdown-custom``. The NIC itself is in the
environment (INTERFACE, INSTANCE, MAC, MODE and so on; see the operators' guide): for ``up``, and
from 3.2 on for ``down``, too. There, ACTION says once more what has happened, and MIGRATION_PHASE
which call it is where the guest comes from another node.

Ganeti's own NICs, over which an instance may talk to its metadata daemon, come the same way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from snf_core import model
from snf_core.errors import InvalidValueError
from snf_core.ganeti.variables import Variables, parsed, script_nic
from snf_core.model import Action, Migration, NicEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

E = TypeVar("E", Action, Migration)

COMMUNICATION = "gnt.com."
"""What Ganeti's own taps are called, and nobody else's."""


def nic_event(argv: Sequence[str], environ: Mapping[str, str]) -> NicEvent | None:
    """The event of ``argv`` (see above, or ``event``: see ACTION) and the environment.

    None for a NIC of Ganeti's own. Raises InvalidValueError naming the variable or argument that
    is missing or wrong.
    """
    variables = Variables(environ)
    match list(argv):
        case ["up", *taps] if len(taps) <= 1:
            return _event(Action.UP, variables, *taps)
        case ["down", *words] if len(words) <= 2:
            return _event(Action.DOWN, variables, *words)
        case ["event"]:
            return _event(variables.need("ACTION", _one_of(Action)), variables)
    raise InvalidValueError(
        "arguments: not those of a NIC event",
        remedy="expected: up [TAP], or down [TAP [true|false]], or event",
    )


def _event(
    action: Action, variables: Variables, tap: str = "", local_only: str = "false"
) -> NicEvent | None:
    told = variables.get("ACTION", _one_of(Action))
    if told not in {None, action}:
        raise InvalidValueError(f"ACTION: {told.value!r}, but this is {action.value}")
    interface = _interface(variables, tap)
    if interface.startswith(COMMUNICATION) and variables.get("MODE", str) in {None, "routed"}:
        return None
    if local_only not in {"true", "false"}:
        raise InvalidValueError(
            f"LOCAL_ONLY (argument): {local_only!r} is neither 'true' nor 'false'"
        )
    if action is Action.DOWN and told is None:
        # Anything may be in the environment before 3.2; the interface says enough.
        instance = variables.get("INSTANCE", model.instance_name) or ""
        return NicEvent(action, interface, instance, local_only=local_only == "true")
    return NicEvent(
        action=action,
        interface=interface,
        instance=variables.need("INSTANCE", model.instance_name),
        nic=script_nic(variables),
        instance_tags=variables.get("TAGS", model.tags) or frozenset(),
        local_only=local_only == "true",
        migration=variables.get("MIGRATION_PHASE", _one_of(Migration)),
    )


def _interface(variables: Variables, tap: str) -> str:
    """The tap's name, from the argument, the environment, or both if they agree."""
    passed = parsed("TAP (argument)", tap, model.interface_name)
    named = variables.get("INTERFACE", model.interface_name)
    if passed and named and passed != named:
        raise InvalidValueError(
            f"INTERFACE: {named!r} in the environment, but the argument is {passed!r}"
        )
    return passed or named or variables.need("INTERFACE", model.interface_name)


def _one_of(kind: type[E]) -> Callable[[str], E]:
    def parse(value: str) -> E:
        try:
            return kind(value)
        except ValueError as error:
            expected = " or ".join(one.value for one in kind)
            raise InvalidValueError(f"{value!r} is not {expected}") from error

    return parse
