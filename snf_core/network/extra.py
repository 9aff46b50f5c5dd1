"""The administrator's own program, run after a NIC is wired and before it is unwired.

``[network] extra_up`` and ``extra_down`` name it. It gets no arguments, and what is known of the
NIC in its environment, under the names of Ganeti's NIC scripts: INTERFACE, INSTANCE, TAGS, and
where the NIC is known, MAC, IP, MODE, LINK, VLAN, INTERFACE_INDEX, INTERFACE_NAME, INTERFACE_UUID
and NETWORK_*. What is not known is not set. Every value has been validated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from snf_core.run import run

if TYPE_CHECKING:
    from snf_core.model import NicEvent

TIMEOUT = 60.0
"""Seconds that it may take."""


def call(program: str, event: NicEvent) -> None:
    """Run ``program``, if it names one. Raises CommandError, DeadlineError where it fails."""
    if program:
        run(
            [program],
            environ=environment(event),
            timeout=TIMEOUT,
            remedy="it is named in [network] of the configuration",
        )


def environment(event: NicEvent) -> dict[str, str]:
    """What such a program is told of the NIC of ``event``."""
    known: dict[str, object] = {
        "INTERFACE": event.interface,
        "INSTANCE": event.instance,
        "TAGS": " ".join(sorted(event.instance_tags)),
    }
    nic = event.nic
    if nic is not None:
        known |= {
            "MAC": nic.mac,
            "IP": nic.ip,
            "MODE": nic.mode.value,
            "LINK": nic.link,
            "VLAN": nic.vlan,
            "INTERFACE_INDEX": nic.index,
            "INTERFACE_NAME": nic.name,
            "INTERFACE_UUID": nic.uuid,
        }
        if nic.network is not None:
            known |= {
                "NETWORK_NAME": nic.network.name,
                "NETWORK_UUID": nic.network.uuid,
                "NETWORK_SUBNET": nic.network.subnet,
                "NETWORK_GATEWAY": nic.network.gateway,
                "NETWORK_SUBNET6": nic.network.subnet6,
                "NETWORK_GATEWAY6": nic.network.gateway6,
                "NETWORK_MAC_PREFIX": nic.network.mac_prefix,
                "NETWORK_TAGS": " ".join(sorted(nic.network.tags)),
            }
    return {name: str(value) for name, value in known.items() if value not in {None, ""}}
