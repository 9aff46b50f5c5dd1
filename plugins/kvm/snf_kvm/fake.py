"""Ganeti's hypervisor ``fake``, which runs nothing: for clusters that somebody tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from snf_kvm.hypervisor import Kvm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from snf_core.appliance import Appliance
    from snf_core.contract import Finding, HostNic, NicScript
    from snf_core.ganeti.generation import Ganeti


class Fake(Kvm):
    """Guests that never run are customized as KVM's are. They have no NICs on the host."""

    packages = ()

    def host_nics(self) -> Iterator[HostNic]:
        """None."""
        yield from ()

    def nic_scripts(self, ganeti: Ganeti) -> Iterator[NicScript]:
        """None."""
        yield from ()

    def prepare(self, appliance: Appliance) -> Iterator[Finding]:
        """Nothing: what is prepared for KVM serves."""
        yield from ()

    def check(self, appliance: Appliance | None) -> Iterator[Finding]:
        """Nothing: see KVM."""
        yield from ()
