"""The administrator's own program, run after a NIC is wired and before it is unwired.

``[network] extra_up`` and ``extra_down`` name it. It gets no arguments, and what is known of the
NIC in its environment, under the names of Ganeti's NIC scripts: INTERFACE, INSTANCE, TAGS, MAC, IP,
MODE, LINK, VLAN, INTERFACE_INDEX, INTERFACE_NAME, INTERFACE_UUID, NETWORK_*, and MIGRATION_PHASE.
What is not known is not set: before a NIC is unwired, whatever its state document does not say.
Every value has been validated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from snf_core.run import run

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from snf_core.model import NicEvent

TIMEOUT = 60.0
"""Seconds that it may take."""

_NAMES = {
    **{name: name.upper() for name in ("instance", "tags", "mac", "ip", "mode", "link", "vlan")},
    **{name: f"INTERFACE_{name.upper()}" for name in ("index", "name", "uuid")},
    "network": "NETWORK_NAME",
    **{
        f"network_{name}": f"NETWORK_{name.upper()}"
        for name in ("uuid", "subnet", "gateway", "subnet6", "gateway6", "mac_prefix", "tags")
    },
}
"""What a state document's facts are called in the environment."""


def call(program: str, event: NicEvent, known: Mapping[str, Any]) -> None:
    """Run ``program``, if it names one, with what is ``known`` of the NIC (``document.facts``).

    Raises CommandError, DeadlineError where it fails.
    """
    if program:
        run(
            [program],
            environ=environment(event, known),
            timeout=TIMEOUT,
            remedy="it is named in [network] of the configuration",
        )


def environment(event: NicEvent, known: Mapping[str, Any]) -> dict[str, str]:
    """What such a program is told of the NIC."""
    told = {
        "INTERFACE": event.final_name,
        "MIGRATION_PHASE": event.migration.value if event.migration else "",
    }
    for fact, name in _NAMES.items():
        value = known.get(fact, "")
        told[name] = " ".join(value) if isinstance(value, list) else str(value)
    return {name: value for name, value in told.items() if value}
