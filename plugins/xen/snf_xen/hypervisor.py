"""Xen's two kinds of guests: their NICs are wired, but they cannot be customized yet."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from snf_core.contract import Hypervisor, NicScript
from snf_core.errors import InvalidValueError, SnfError, UnsupportedError
from snf_core.model import Action
from snf_xen.xenstore import Xenstore

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from snf_core.appliance import Appliance, Launcher
    from snf_core.ganeti.generation import Ganeti
    from snf_core.model import Disk, NicEvent

LOG = logging.getLogger(__name__)

_REASON = 1000
"""Characters of a reason that Xen is told, of the 4096 bytes that xenstore takes at once."""


class Xen(Hypervisor):
    """What paravirtual and hardware-assisted guests have in common."""

    api_version = "1.0"
    kind: ClassVar[str]
    """The hypervisor's name in Ganeti."""
    xenstore = Xenstore()
    """Where Xen is asked and answered."""
    _backend = ""
    """Where Xen waits for the answer to the event that was read last, in xenstore."""

    def nic_event(self, argv: Sequence[str], environ: Mapping[str, str]) -> NicEvent | None:
        """A NIC event as libxl delivers it to vif scripts; see ``snf_xen.nic``."""
        from snf_xen import nic

        self._backend = nic.backend(environ)
        try:
            return nic.nic_event(argv, environ, self.xenstore)
        except SnfError as error:
            if "offline" not in argv:
                self._tell(error.message)
            raise

    def acknowledge(self, event: NicEvent) -> None:
        """``hotplug-status`` is ``connected``: the guest's side may go on.

        Raises InvalidValueError where nobody said where Xen waits for it; CommandError.
        """
        if event.action is not Action.UP:
            return
        if not self._backend:
            raise InvalidValueError(
                "XENBUS_PATH: missing from the environment", remedy="libxl sets it for vif scripts"
            )
        self.xenstore.write({f"{self._backend}/hotplug-status": "connected"})

    def refuse(self, event: NicEvent, reason: str) -> None:
        """``hotplug-error`` is the reason, which ``xl create`` then prints."""
        if event.action is Action.UP:
            self._tell(reason)

    def _tell(self, reason: str) -> None:
        if not self._backend:
            return
        from snf_core.report import printable

        values = {
            f"{self._backend}/hotplug-error": f"snf: {printable(reason)[:_REASON]}",
            f"{self._backend}/hotplug-status": "error",
        }
        try:
            self.xenstore.write(values)
        except SnfError as error:
            LOG.warning("Xen is not told why: %s", error)

    def disk_name(self, disk: Disk) -> str:
        """``/dev/xvdX``: Linux names all of Xen's paravirtual disks so, ``sda`` included."""
        return f"/dev/xvd{chr(ord('a') + disk.index)}"

    def launcher(self, appliance: Appliance) -> Launcher:
        """Raises UnsupportedError."""
        raise UnsupportedError(
            f"hypervisor {self.kind}: guests cannot be customized with this version of snf-xen",
            remedy="set the image property EXCLUDE_ALL_TASKS to yes to copy the image as it is, or "
            "use the hypervisor kvm",
        )


class XenPvm(Xen):
    """Paravirtual guests."""

    kind = "xen-pvm"

    def nic_scripts(self, ganeti: Ganeti) -> Iterator[NicScript]:
        """What Ganeti's vif script calls, for guests of both kinds, where there is a Xen."""
        scripts = Path("/etc/xen/scripts")
        if ganeti.calls("vif-ganeti", "vif-custom") and ganeti.place(scripts).is_dir():
            words = ("event", "--hypervisor", self.kind)
            yield NicScript(scripts / "vif-custom", words)


class XenHvm(Xen):
    """Hardware-assisted guests."""

    kind = "xen-hvm"
