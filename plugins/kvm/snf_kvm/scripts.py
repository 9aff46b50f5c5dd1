"""The scripts that Ganeti runs for NICs of KVM instances, by what its own scripts call.

============================== ======================================= =========================
Ganeti's script                it runs                                 for
============================== ======================================= =========================
``kvm-ifup``                   ``kvm-vif-bridge``                      up
``kvm-ifup``, ``kvm-ifdown``   ``kvm-ifup-custom``,                    up, down
                               ``kvm-ifdown-custom``
``kvm-nic-setup``              ``network/MODE/up``,                    up, down; modes as in
                               ``network/MODE/down``                   gnt-instance(8)
============================== ======================================= =========================

All are looked for in Ganeti's configuration directory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from snf_core.contract import NicScript
from snf_core.model import Mode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from snf_core.ganeti.generation import Ganeti

_HYPERVISOR = ("--hypervisor", "kvm")
_SINGLE = (
    ("kvm-ifup", "kvm-vif-bridge", "up"),
    ("kvm-ifup", "kvm-ifup-custom", "up"),
    ("kvm-ifdown", "kvm-ifdown-custom", "down"),
)


def nic_scripts(ganeti: Ganeti) -> Iterator[NicScript]:
    """Those that any installed version of Ganeti calls."""
    for caller, name, action in _SINGLE:
        if ganeti.calls(caller, name):
            yield NicScript(ganeti.configuration / name, (action, *_HYPERVISOR))
    if ganeti.calls("kvm-nic-setup", "/network/"):
        for mode in Mode:
            for action in ("up", "down"):
                path = ganeti.configuration / "network" / mode.value / action
                yield NicScript(path, (action, *_HYPERVISOR))
