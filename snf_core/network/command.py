"""What ``snf network`` does: the hypervisor's event in, the engine's work, its answer back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from snf_core import extension
from snf_core.errors import InvalidValueError
from snf_core.model import Action
from snf_core.network import engine
from snf_core.network.document import Documents
from snf_core.network.links import Links

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from snf_core.config import Config
    from snf_core.contract import Hypervisor, Setup
    from snf_core.model import NicEvent


def up(
    argv: Sequence[str], environ: Mapping[str, str], config: Config, hypervisor_name: str
) -> None:
    """``snf network up``: wire a NIC. ``argv`` is what follows ``snf network``.

    Raises InvalidValueError for an event that is not acceptable, before anything is touched;
    NetworkError where the NIC cannot be wired; ConfigError; PluginError.
    """
    hypervisor, event = _event(Action.UP, argv, environ, config, hypervisor_name)
    try:
        setups: dict[str, Setup] = {
            name: extension.make(extension.NETWORK_SETUP, name, config)
            for name in config.network.setups
        }
        with Links() as links:
            engine.up(event, setups, links, _documents(config))
    except Exception as error:
        hypervisor.refuse(event, str(error))
        raise
    hypervisor.acknowledge(event)


def down(
    argv: Sequence[str], environ: Mapping[str, str], config: Config, hypervisor_name: str
) -> None:
    """``snf network down``: take back what ``up`` did. Raises the same."""
    hypervisor, event = _event(Action.DOWN, argv, environ, config, hypervisor_name)
    try:
        with Links() as links:
            engine.down(event, links, _documents(config))
    except Exception as error:
        hypervisor.refuse(event, str(error))
        raise
    hypervisor.acknowledge(event)


def status(config: Config, interface: str | None = None) -> list[str]:
    """``snf network status``: lines that show wanted against actual, for one NIC or for all."""
    with Links() as links:
        found = engine.status(links, _documents(config), interface or "")
    if not found:
        return [f"{interface} is not wired by us" if interface else "no NIC is wired by us"]
    return [line for one in found for line in _lines(one)]


def _lines(status: Mapping[str, Any]) -> Iterator[str]:
    if "error" in status:
        yield f"{status['interface']}: {status['error']}"
        return
    state = "as wanted" if status["agrees"] else "NOT as wanted"
    yield f"{status['interface']} of {status['event']['instance']}: {status['phase']}, {state}"
    for item in status["items"]:
        actual = "" if item["actual"] == item["wanted"] else f", but is {item['actual']}"
        what = f"{item['kind']} {item['object']} {item['attribute']} {item['wanted']}"
        yield f"  {what} ({item['setup']}){actual}"


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


def _documents(config: Config) -> Documents:
    return Documents(config.runtime() / "network")
