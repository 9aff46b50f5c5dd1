"""What ``snf network`` does: the hypervisor's event in, the engine's work, its answer back."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from snf_core import extension
from snf_core.errors import ConfigError, InvalidValueError, NetworkError, SnfError
from snf_core.model import Action
from snf_core.network import extra
from snf_core.network.document import Documents
from snf_core.network.engine import Engine
from snf_core.network.kernel import SWITCH, SYSCTLS, Kernel
from snf_core.network.links import Links
from snf_core.network.nft import Nft
from snf_core.network.reconcile import Finding, reconcile, standing
from snf_core.network.switch import Switch
from snf_core.network.sysctl import Sysctl

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from snf_core.config import Config
    from snf_core.contract import Hypervisor
    from snf_core.model import NicEvent
    from snf_core.network.uplink import Uplink


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
    documents = Documents(runtime / "network")
    nft = Nft(lambda: standing(documents.all(), setups), runtime / "nftables.lock")
    with Kernel(Links(), nft, {SYSCTLS: Sysctl(), SWITCH: Switch()}) as kernel:
        yield Engine(setups, kernel, documents)


def up(
    argv: Sequence[str], environ: Mapping[str, str], config: Config, hypervisor_name: str
) -> None:
    """``snf network up``: wire a NIC. ``argv`` is what follows ``snf network``.

    Raises InvalidValueError for an event that is not acceptable, before anything is touched;
    NetworkError where the NIC cannot be wired; ConfigError; PluginError.
    """
    hypervisor, event = _event(Action.UP, argv, environ, config, hypervisor_name)
    with _answering(hypervisor, event), engine(config) as here:
        here.up(event, lambda: extra.call(config.network.extra_up, event))


def down(
    argv: Sequence[str], environ: Mapping[str, str], config: Config, hypervisor_name: str
) -> None:
    """``snf network down``: take back what ``up`` did. Raises the same."""
    hypervisor, event = _event(Action.DOWN, argv, environ, config, hypervisor_name)
    with _answering(hypervisor, event), engine(config) as here:
        try:
            extra.call(config.network.extra_down, event)
        finally:
            here.down(event)


def plan(
    argv: Sequence[str], environ: Mapping[str, str], config: Config, hypervisor_name: str
) -> list[dict[str, Any]]:
    """``snf network plan``: what ``up`` would make of an event; nothing is touched.

    One object per item and announcement: kind, object, attribute, value, setup. Raises as ``up``.
    """
    _, event = _event(Action.UP, argv, environ, config, hypervisor_name)
    with engine(config) as here:
        state = here.plan(event)
    told = [
        {
            "kind": "announcement",
            "object": one.interface,
            "attribute": str(one.address),
            "value": one.mac,
            "setup": "",
        }
        for one in state.announcements
    ]
    return state.to_json() + told


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
    action: Action,
    argv: Sequence[str],
    environ: Mapping[str, str],
    config: Config,
    hypervisor_name: str,
) -> tuple[Hypervisor, NicEvent]:
    hypervisor = extension.make(extension.HYPERVISOR, hypervisor_name, config)
    event = hypervisor.nic_event(argv, environ)
    if event.action is not action:
        raise InvalidValueError(
            f"{event.interface}: the {hypervisor_name} event is {event.action.value}, "
            f"the command {action.value}"
        )
    return hypervisor, event
