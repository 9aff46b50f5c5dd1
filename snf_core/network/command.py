"""What ``snf network`` does: the hypervisor's event in, the engine's work, its answer back."""

from __future__ import annotations

import contextlib
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from snf_core import extension
from snf_core.contract import HostNic
from snf_core.errors import (
    ConfigError,
    InvalidValueError,
    NetworkError,
    PluginError,
    SnfError,
)
from snf_core.model import Action
from snf_core.network import extra, renaming
from snf_core.network.deadline import Deadline
from snf_core.network.document import Documents, facts
from snf_core.network.engine import Engine
from snf_core.network.kernel import SWITCH, SYSCTLS, Kernel
from snf_core.network.links import Links
from snf_core.network.nft import Nft
from snf_core.network.reconcile import Finding, reconcile, standing, tidied
from snf_core.network.switch import Switch
from snf_core.network.sysctl import Sysctl

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from snf_core.config import Config
    from snf_core.contract import Hypervisor
    from snf_core.model import NicEvent
    from snf_core.network.uplink import Uplink


_UNWIRED = "nobody has wired NIC {0.index} of {0.instance}"
_WHO_WIRES = "the instance's next start, or any change to it, will do"

ANNOUNCE_INTERVAL = 2.0
"""Seconds between two announcements of the same (RFC 5227, section 1.1)."""


@contextlib.contextmanager
def engine(config: Config) -> Iterator[Engine]:
    """The engine of this node, in the network namespace of the calling thread.

    Raises ConfigError, PluginError.
    """
    setups = {
        name: extension.make(extension.NETWORK_SETUP, name, config)
        for name in config.network.setups
    }
    runtime = config.runtime()
    documents = Documents.below(runtime)
    nft = Nft(lambda: standing(documents.all(), setups), runtime / "nftables.lock")
    with Kernel(Links(), nft, {SYSCTLS: Sysctl(), SWITCH: Switch()}) as kernel:
        yield Engine(setups, kernel, documents)


def up(
    argv: Sequence[str],
    environ: Mapping[str, str],
    config: Config,
    hypervisor_name: str,
    *,
    began: float | None = None,
) -> None:
    """``snf network up``: wire a NIC. ``argv`` is what follows ``snf network``.

    ``began``: when the hypervisor began to wait, as time.monotonic() has it; None for now.
    Raises InvalidValueError for an event that is not acceptable, before anything is touched;
    NetworkError where the NIC cannot be wired; ConfigError; PluginError.
    """
    _handle(Action.UP, argv, environ, config, hypervisor_name, began=began)


def down(
    argv: Sequence[str],
    environ: Mapping[str, str],
    config: Config,
    hypervisor_name: str,
    *,
    began: float | None = None,
) -> None:
    """``snf network down``: take back what ``up`` did. Raises the same."""
    _handle(Action.DOWN, argv, environ, config, hypervisor_name, began=began)


def event(
    argv: Sequence[str],
    environ: Mapping[str, str],
    config: Config,
    hypervisor_name: str,
    *,
    began: float | None = None,
) -> None:
    """``snf network event``: up or down, as the event itself says. Raises the same."""
    _handle(None, argv, environ, config, hypervisor_name, began=began)


def _handle(
    action: Action | None,
    argv: Sequence[str],
    environ: Mapping[str, str],
    config: Config,
    hypervisor_name: str,
    *,
    began: float | None,
) -> None:
    """Read the event and do what it asks for, as long as the hypervisor waits for it."""
    hypervisor = extension.make(extension.HYPERVISOR, hypervisor_name, config)
    deadline = Deadline(hypervisor.nic_timeout, began)
    with deadline.kept():
        told = _event(action, argv, environ, hypervisor, hypervisor_name)
    if told is not None:
        with _answering(hypervisor, told), deadline.kept(), engine(config) as here:
            (_up if told.action is Action.UP else _down)(told, config, here)


def _up(told: NicEvent, config: Config, here: Engine) -> None:
    known = facts(told)
    here.up(told, lambda: extra.call(config.network.extra_up, told, known))


def _down(told: NicEvent, config: Config, here: Engine) -> None:
    told = renaming.known(told, here.documents)
    known = here.known(told)
    if known is None:
        return  # the interface is another instance's by now
    try:
        extra.call(config.network.extra_down, told, known)
    finally:
        here.down(told)


def plan(
    argv: Sequence[str], environ: Mapping[str, str], config: Config, hypervisor_name: str
) -> list[dict[str, Any]]:
    """``snf network plan``: what ``up`` would make of an event; nothing is touched.

    One object per item and announcement: kind, object, attribute, value, setup. Raises as ``up``.
    """
    hypervisor = extension.make(extension.HYPERVISOR, hypervisor_name, config)
    told = _event(Action.UP, argv, environ, hypervisor, hypervisor_name)
    if told is None:
        return []
    with engine(config) as here:
        state = here.plan(told)
    announced = [
        {
            "kind": "announcement",
            "object": one.interface,
            "attribute": str(one.address),
            "value": one.mac,
            "setup": "",
        }
        for one in state.announcements
    ]
    return state.to_json() + announced


def status(config: Config, interface: str = "") -> list[dict[str, Any]]:
    """``snf network status``: wanted against actual, for one NIC or for all (see ``status``)."""
    from snf_core.network import status as found

    with engine(config) as here:
        return found.status(here, interface)


def repair(config: Config, *, check: bool) -> Iterator[Finding]:
    """``snf network reconcile``: what was not as it should be, NICs and uplinks.

    An uplink whose device was made anew is prepared again.
    """
    from snf_core.network.uplink import uplinks

    with engine(config) as here:
        prepared = [
            one for one in uplinks(config).values() if one.interface in here.documents.interfaces()
        ]
        yield from reconcile(here, check=check)
        if not check:
            yield from _again(prepared, here)
        for one in unwired(config, here):
            yield Finding(one.interface, _UNWIRED.format(one), False, "" if check else _WHO_WIRES)


def unwired(config: Config, here: Engine) -> Iterator[HostNic]:
    """The NICs of running instances that nobody has wired, as hypervisors know them.

    Where a script of ours was missing, failed in a migration, or the state documents were lost.
    A hypervisor's plugin that cannot be used knows of none.
    """
    known = set(here.documents.interfaces())
    for name in extension.names(extension.HYPERVISOR):
        try:
            hypervisor = extension.make(extension.HYPERVISOR, name, config)
        except (ConfigError, PluginError):
            continue
        for one in hypervisor.host_nics():
            if one.interface not in known and here.kernel.links.get(one.interface) is not None:
                yield one


def wire(config: Config, events: Sequence[NicEvent]) -> Iterator[Finding]:
    """Wire those NICs of ``events`` that stand here and that nobody has wired.

    Not one whose interface is said to be another instance's, too: an instance that ended by
    itself stays in a hypervisor's list, and its interface's name is used again.
    """
    with engine(config) as here:
        missing = list(unwired(config, here))
        claimed = [one.interface for one in missing]
        for told in events:
            nic = told.nic
            assert nic is not None
            claim = HostNic(told.instance, nic.index, told.interface)
            if claim not in missing or claimed.count(told.interface) > 1:
                continue
            statement = _UNWIRED.format(claim)
            finish = partial(extra.call, config.network.extra_up, told, facts(told))
            try:
                here.up(told, finish)
            except SnfError as error:
                yield Finding(told.interface, statement, False, str(error))
            else:
                yield Finding(told.interface, statement, True)


def tidy(config: Config, instance: str) -> Iterator[Finding]:
    """Take back what is left of an instance's NICs whose interface is gone (see ``reconcile``)."""
    with engine(config) as here:
        yield from tidied(here, instance)


def repair_instance(config: Config, instance: str) -> Iterator[Finding]:
    """What was not as it should be of an instance's NICs, whether they are here or gone."""
    with engine(config) as here:
        yield from reconcile(here, instance=instance)


def announce(config: Config, instance: str) -> None:
    """Announce an instance's NICs that are here once more, and again. Raises NetworkError.

    Until the node that it has come from is told, which may be at the same time, that node answers
    for it, too; and a neighbour that asks meanwhile believes the last answer.
    """
    with engine(config) as here:
        if here.announce(instance):
            time.sleep(ANNOUNCE_INTERVAL)
            here.announce(instance)


def _again(uplinks: Sequence[Uplink], here: Engine) -> Iterator[Finding]:
    for one in uplinks:
        known = one.interface in here.documents.interfaces()
        if known or here.kernel.links.get(one.interface) is None:
            continue
        statement = f"the uplink of routing table {one.table} is not prepared"
        try:
            _prepare("up", one, here)
        except NetworkError as error:
            yield Finding(one.interface, statement, False, str(error))
        else:
            yield Finding(one.interface, statement, True)


def uplink(what: str, config: Config, tables: Sequence[str]) -> list[dict[str, Any]]:
    """``snf network uplink``: ``up``, ``down`` or ``status`` of uplinks, by their tables or all.

    Returns the status of each, as ``status`` does. Raises ConfigError, NetworkError.
    """
    from snf_core.network import status as found

    with engine(config) as here:
        chosen = _uplinks(config, tables)
        for one in chosen:
            _prepare(what, one, here)
        missing = 'not prepared: say "snf network uplink up"'
        return [
            line
            for one in chosen
            for line in found.status(here, one.interface)
            or [{"interface": one.interface, "agrees": False, "error": missing}]
        ]


def _uplinks(config: Config, tables: Sequence[str]) -> list[Uplink]:
    from snf_core.network.uplink import uplinks

    known = uplinks(config)
    for table in tables:
        if table not in known:
            raise ConfigError(
                f"no uplink is configured for routing table {table}",
                remedy=f"add a group [network.uplink.{table}]; there are: "
                + (", ".join(known) or "none"),
            )
    if not known:
        raise ConfigError(
            "no uplink is configured", remedy="add a group [network.uplink.TABLE] for each"
        )
    return [known[table] for table in tables or known]


def _prepare(what: str, one: Uplink, here: Engine) -> None:
    from snf_core.network.uplink import wanted

    if what == "status":
        return
    with here.locked(one.interface):
        if what == "down":
            here.clear(one.interface)
        else:
            known = {"mode": "routed", "link": one.table, "uplink": True}
            here.connect(one.interface, wanted(one, here.kernel.node), known)


@contextlib.contextmanager
def _answering(hypervisor: Hypervisor, event: NicEvent) -> Iterator[None]:
    """Tell the hypervisor how it went."""
    try:
        yield
    except Exception as error:
        hypervisor.refuse(event, error.message if isinstance(error, SnfError) else str(error))
        raise
    hypervisor.acknowledge(event)


def _event(
    action: Action | None,
    argv: Sequence[str],
    environ: Mapping[str, str],
    hypervisor: Hypervisor,
    name: str,
) -> NicEvent | None:
    """What has happened; none where it is not our business."""
    told = hypervisor.nic_event(argv, environ)
    if told is not None and action not in {None, told.action}:
        raise InvalidValueError(
            f"{told.interface}: the {name} event is {told.action.value}, the command {action.value}"
        )
    return told
