"""Ganeti's hooks: what is to be done on this node around an operation on an instance.

After an operation, Ganeti's node daemon runs what is in ``/etc/ganeti/hooks/OPERATION-post.d``, on
the master and on the instance's nodes all at once, with nothing but GANETI_* in the environment
("Ganeti customisation using hooks" of its documentation; ``ganeti.hooksmaster``). That one fails
is a warning, no more. After an operation that has failed nothing is run.

Before an operation, what is in ``OPERATION-pre.d`` is run in the same way, and one that fails
prevents the operation. Ours fails only where our configuration cannot be read, with which NICs
could not be wired either: whatever else goes wrong there is said, and no more.

GANETI_INSTANCE_NAME and so on say what was before, GANETI_POST_INSTANCE_NAME and so on what is
now, but not always:

- of ``rename``, both names are the old one; GANETI_INSTANCE_NEW_NAME is the new one;
- of ``modify``, both sets of NICs are the new one: a NIC that was removed is in neither, so what is
  to be cleaned up is told by the state documents and the kernel (``network.command.tidy``);
- of ``migrate`` and ``failover``, the later set may take the new primary node for the old one.

A node that an operation does not reach, as it is offline, is looked after by ``snf network
reconcile``.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from snf_core import extension, model
from snf_core.errors import ConfigError, InvalidValueError, PluginError, SnfError
from snf_core.ganeti.variables import Variables, nic
from snf_core.model import Action, NicEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from snf_core.config import Config
    from snf_core.model import Nic
    from snf_core.network.reconcile import Finding

LOG = logging.getLogger(__name__)

_OPERATION = re.compile(r"[a-z]+(-[a-z]+)*")
_NODE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_HYPERVISOR = re.compile(r"[a-z][a-z0-9-]{0,31}")
_COUNT = re.compile(r"[0-9]{1,3}")
_STATUS = {"up": True, "True": True, "down": False, "False": False, "offline": False}
"""A boolean where the instance is being added, else what the administrator wants it to be."""


class Phase(enum.Enum):
    """When a hook is run."""

    PRE = "pre"
    POST = "post"


@dataclass(frozen=True)
class HookEvent:
    """An operation on an instance, as a hook is told of it."""

    operation: str
    """Ganeti's name for it: ``instance-stop``, for example."""
    phase: Phase
    old_name: str
    """The instance's name before."""
    new_name: str
    """And after: the same, but where it is renamed."""
    hypervisor: str
    old_primary: str
    """The name of the node that it ran on before."""
    new_primary: str
    """And after: the same, but where it goes to another."""
    secondaries: frozenset[str]
    """The names of the other nodes that have its disks."""
    running: bool
    """Whether it is to run."""
    tags: frozenset[str]
    nics: tuple[Nic, ...]
    """As they are now, as far as Ganeti tells: see above."""

    @property
    def names(self) -> list[str]:
        """All names that it may be known by."""
        return sorted({self.old_name, self.new_name})


def event(environ: Mapping[str, str]) -> HookEvent:
    """The event of a hook's environment.

    Raises InvalidValueError naming the variable that is missing or wrong.
    """
    before = Variables(environ, "GANETI_")
    after = Variables(environ, "GANETI_POST_")
    if after.get("INSTANCE_NAME", model.instance_name) is None:
        after = before
    instance = after.below("INSTANCE_")
    name = before.need("INSTANCE_NAME", model.instance_name)
    old_primary = before.get("OLD_PRIMARY", _node) or before.need("INSTANCE_PRIMARY", _node)
    target = before.get("NEW_PRIMARY", _node) or before.get("TARGET_NODE", _node)
    return HookEvent(
        operation=_operation(before),
        phase=before.need("HOOKS_PHASE", _phase),
        old_name=name,
        new_name=before.get("INSTANCE_NEW_NAME", model.instance_name) or name,
        hypervisor=instance.need("HYPERVISOR", _hypervisor),
        old_primary=old_primary,
        new_primary=target or instance.need("PRIMARY", _node),
        secondaries=instance.get("SECONDARIES", _nodes) or frozenset(),
        running=instance.need("STATUS", _status),
        tags=instance.get("TAGS", model.tags) or frozenset(),
        nics=tuple(
            nic(instance.below(f"NIC{index}_"), index)
            for index in range(instance.need("NIC_COUNT", _count))
        ),
    )


def run(environ: Mapping[str, str], config: Config) -> Iterator[Finding]:
    """Do what is to be done on this node, and say what was found.

    Nothing is to be done around an operation that is not in ACTIONS or PREPARATIONS. After one,
    raises InvalidValueError naming a variable; what the actions raise.
    """
    operation = _operation(Variables(environ, "GANETI_"))
    if environ.get("GANETI_HOOKS_PHASE") == Phase.PRE.value:
        _prepare(operation, environ, config)
        return
    actions = ACTIONS.get(operation, ())
    if not actions:
        return
    try:
        told = event(environ)
    except InvalidValueError:
        yield from _tidied(_names(environ), config)  # whatever is wrong with the rest
        raise
    for action in actions:
        yield from action(told, config)


def _prepare(operation: str, environ: Mapping[str, str], config: Config) -> None:
    for prepare in PREPARATIONS.get(operation, ()):
        try:
            prepare(event(environ), config)
        except SnfError as error:
            LOG.warning("%s is not prepared on this node: %s", operation, error)


def _expect(told: HookEvent, config: Config) -> None:
    """Where the instance is about to arrive, its hypervisor may want to know what its NICs are."""
    here = os.uname().nodename
    if here in {told.new_primary, told.new_primary.partition(".")[0]}:
        hypervisor = extension.make(extension.HYPERVISOR, told.hypervisor, config)
        hypervisor.expect(told.new_name, told.nics, told.tags)


def _tidy(told: HookEvent, config: Config) -> Iterator[Finding]:
    """Take back what is left of the instance's NICs whose interface is gone."""
    yield from _tidied(told.names, config)


def _tidied(names: Iterable[str], config: Config) -> Iterator[Finding]:
    for name in _here(names, config):
        from snf_core.network import command

        yield from command.tidy(config, name)


def _repair(told: HookEvent, config: Config) -> Iterator[Finding]:
    """The same, and make those that are here what they should be."""
    for name in _here(told.names, config):
        from snf_core.network import command

        yield from command.repair_instance(config, name)


def _connect(told: HookEvent, config: Config) -> Iterator[Finding]:
    """Wire those of its NICs that stand here and that nobody has wired, and the same as _repair.

    Ganeti goes on where the script of a routed NIC fails after a migration, and where there is no
    script of ours, or was none.
    """
    yield from _repair(told, config)
    try:
        hypervisor = extension.make(extension.HYPERVISOR, told.hypervisor, config)
    except (ConfigError, PluginError):
        return  # the instance is none of ours, or "snf doctor" says what is wrong
    events = [
        NicEvent(Action.UP, one.interface, told.new_name, told.nics[one.index], told.tags)
        for one in hypervisor.host_nics()
        if one.instance == told.new_name and one.index < len(told.nics)
    ]
    if events:
        from snf_core.network import command

        yield from command.wire(config, events)


def _announce(told: HookEvent, config: Config) -> Iterator[Finding]:
    """Tell the neighbours once more where the instance is now."""
    for name in _here(told.names, config):
        from snf_core.network import command

        command.announce(config, name)
    yield from ()


def _here(names: Iterable[str], config: Config) -> list[str]:
    """By which of its names something of an instance stands, or is left, on this node.

    On most of the nodes that a hook runs on nothing does; there, nothing more is imported.
    """
    from snf_core.network.document import Documents

    documents = Documents.below(config.runtime())
    return [name for name in names if documents.of(name)]


ACTIONS: Mapping[str, tuple[Callable[[HookEvent, Config], Iterator[Finding]], ...]] = {
    # It may have been started, too, as in the next ones.
    "instance-add": (_connect,),
    "instance-start": (_connect,),
    # KVM: its interfaces have been made anew.
    "instance-reboot": (_connect,),
    # It may have been shut down for it, and started again or removed.
    "instance-export": (_connect,),
    # A NIC may have been plugged in or unplugged.
    "instance-modify": (_connect,),
    # Gone on the one node, here on the other.
    "instance-failover": (_connect, _announce),
    "instance-migrate": (_connect, _announce),
    "instance-move": (_connect, _announce),
    "instance-stop": (_tidy,),
    # Nobody will ask for this name again.
    "instance-remove": (_tidy,),
    "instance-rename": (_tidy,),
}
"""What is done after which operation. Others, ``reinstall`` for example, leave NICs alone."""

PREPARATIONS: Mapping[str, tuple[Callable[[HookEvent, Config], None], ...]] = {
    # Its NICs appear before it is known to be here.
    "instance-migrate": (_expect,),
}
"""What is done before which operation."""

HOOKS = (
    *(f"{operation}-post.d" for operation in ACTIONS),
    *(f"{operation}-pre.d" for operation in PREPARATIONS),
)
"""The directories below ``/etc/ganeti/hooks`` from which ``snf ganeti hook`` is to be run."""


def _operation(variables: Variables) -> str:
    return variables.need("HOOKS_PATH", _checked(_OPERATION, "the name of an operation"))


def _names(environ: Mapping[str, str]) -> list[str]:
    """The names that an instance is known by, of those that can be understood."""
    names = set()
    for name in ("INSTANCE_NAME", "INSTANCE_NEW_NAME"):
        with contextlib.suppress(InvalidValueError):
            names.add(Variables(environ, "GANETI_").need(name, model.instance_name))
    return sorted(names)


def _checked(pattern: re.Pattern[str], what: str) -> Callable[[str], str]:
    def check(value: str) -> str:
        if not pattern.fullmatch(value):
            raise InvalidValueError(f"{value!r} is not {what}")
        return value

    return check


_hypervisor = _checked(_HYPERVISOR, "the name of a hypervisor")
_node = _checked(_NODE, "the name of a node")


def _nodes(words: str) -> frozenset[str]:
    return frozenset(_node(word) for word in words.split())


def _count(value: str) -> int:
    return int(_checked(_COUNT, "a number of NICs")(value))


def _phase(value: str) -> Phase:
    try:
        return Phase(value)
    except ValueError as error:
        raise InvalidValueError(f"{value!r} is not a phase of hooks") from error


def _status(value: str) -> bool:
    if value not in _STATUS:
        raise InvalidValueError(f"{value!r} is not the status of an instance")
    return _STATUS[value]
