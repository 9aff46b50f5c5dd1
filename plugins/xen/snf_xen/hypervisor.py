"""Xen's two kinds of guests, which are not served yet: every request is refused clearly."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from snf_core.contract import Hypervisor
from snf_core.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from snf_core.appliance import Appliance, Launcher
    from snf_core.model import Disk, NicEvent


class Xen(Hypervisor):
    """What paravirtual and hardware-assisted guests have in common."""

    api_version = "1.0"
    kind: ClassVar[str]
    """The hypervisor's name in Ganeti."""

    def nic_event(self, argv: Sequence[str], environ: Mapping[str, str]) -> NicEvent:
        """Raises UnsupportedError."""
        raise self._unsupported("NICs cannot be wired")

    def disk_name(self, disk: Disk) -> str:
        """Raises UnsupportedError."""
        raise self._unsupported("disks cannot be named")

    def launcher(self, appliance: Appliance) -> Launcher:
        """Raises UnsupportedError."""
        raise self._unsupported("guests cannot be customized")

    def _unsupported(self, what: str) -> UnsupportedError:
        return UnsupportedError(
            f"hypervisor {self.kind}: {what} with this version of snf-xen",
            remedy="use the hypervisor kvm",
        )


class XenPvm(Xen):
    """Paravirtual guests."""

    kind = "xen-pvm"


class XenHvm(Xen):
    """Hardware-assisted guests."""

    kind = "xen-hvm"
