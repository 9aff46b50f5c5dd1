"""Xen's two kinds of guests: how their NICs are wired, and where they are customized."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from oslo_config import cfg

from snf_core.contract import Hypervisor, NicScript
from snf_core.errors import InvalidValueError, SnfError
from snf_core.model import Action, Twin
from snf_xen.options import APPLIANCE
from snf_xen.xenstore import Xenstore

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from snf_core.appliance import Appliance, Launcher
    from snf_core.contract import Finding, HostNic
    from snf_core.ganeti.generation import Ganeti
    from snf_core.model import Disk, Nic, NicEvent

LOG = logging.getLogger(__name__)

OPTIONS = [
    cfg.StrOpt(
        "nics",
        default="/etc/snf/nics",
        help="Directory that describes NICs of domains that are not Ganeti's: DOMAIN/DEVICE, in "
        "the format of Ganeti's NIC files. What is not there is bridged, as xl's keys say.",
    ),
    *APPLIANCE,
]

SCRIPTS = Path("/etc/xen/scripts")
"""Where libxl looks for scripts."""

_REASON = 1000
"""Bytes of a reason that Xen is told, of the 4096 that xenstore takes at once."""


def list_opts() -> list[tuple[str, Sequence[cfg.Opt]]]:
    """The plugin's options, for oslo-config-generator."""
    return [("hypervisor.xen-pvm", OPTIONS), ("hypervisor.xen-hvm", OPTIONS)]


class Xen(Hypervisor):
    """What paravirtual and hardware-assisted guests have in common."""

    api_version = "1.0"
    options = OPTIONS
    fallback = "kvm"
    nic_timeout: ClassVar[float] = 20
    """libxl kills a vif script after 40 s. The rest is for taking back, on a node that is slow."""
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
            return nic.nic_event(argv, environ, self.xenstore, Path(self.conf.nics))
        except SnfError as error:
            if not {"offline", "remove"} & set(argv):
                self._tell(error.message)
            raise

    def acknowledge(self, event: NicEvent) -> None:
        """``hotplug-status`` is ``connected``: the guest's side may go on, and knows its MTU.

        For the tap of an emulated NIC nobody waits but for the script's exit status. Raises
        InvalidValueError where nobody said where Xen waits for it; CommandError.
        """
        if event.action is not Action.UP or event.twin is Twin.EMULATED:
            return
        if not self._backend:
            raise InvalidValueError(
                "XENBUS_PATH: missing from the environment", remedy="libxl sets it for vif scripts"
            )
        values = {f"{self._backend}/hotplug-status": "connected"}
        try:
            mtu = Path("/sys/class/net", event.final_name, "mtu").read_text().strip()
        except OSError:
            LOG.warning("%s has gone", event.final_name)
        else:
            frontend = "/local/domain/{}/device/vif/{}".format(*self._backend.split("/")[-2:])
            values = {f"{frontend}/mtu": mtu, **values}
        self.xenstore.write(values)

    def refuse(self, event: NicEvent, reason: str) -> None:
        """``hotplug-error`` is the reason, which ``xl create`` then prints."""
        if event.action is Action.UP:
            self._tell(reason)

    def _tell(self, reason: str) -> None:
        if not self._backend:
            return
        from snf_core.report import printable

        said = printable(reason).encode("ascii", "backslashreplace")[:_REASON].decode()
        values = {
            f"{self._backend}/hotplug-error": f"snf: {said}",
            f"{self._backend}/hotplug-status": "error",
        }
        try:
            self.xenstore.write(values)
        except SnfError as error:
            LOG.warning("Xen is not told why: %s", error)

    def host_nics(self) -> Iterator[HostNic]:
        """Those whose vif script is ours; see ``snf_xen.host_nics``."""
        from snf_xen import host_nics

        return host_nics.listed(self.xenstore, hvm=self.kind == "xen-hvm")

    def expect(self, instance: str, nics: Sequence[Nic], tags: frozenset[str]) -> None:
        """Write the files that Ganeti writes only where it starts an instance."""
        from snf_xen import nic_files

        nic_files.write(instance, nics, tags)

    def disk_name(self, disk: Disk) -> str:
        """``/dev/xvdX``: Linux names all of Xen's paravirtual disks so, ``sda`` included."""
        return f"/dev/xvd{chr(ord('a') + disk.index)}"

    def launcher(self, appliance: Appliance) -> Launcher:
        """The appliance in a paravirtual domain of its own; see ``snf_xen.helper``.

        Raises ApplianceError where that cannot be had here.
        """
        from snf_xen import helper

        return helper.launcher(appliance, self.conf)

    def prepare(self, appliance: Appliance) -> Iterator[Finding]:
        """Make what that domain boots."""
        from snf_xen import helper

        return helper.prepare(appliance)


class XenPvm(Xen):
    """Paravirtual guests."""

    kind = "xen-pvm"

    def nic_scripts(self, ganeti: Ganeti) -> Iterator[NicScript]:
        """For guests of both kinds, where there is a Xen: what Ganeti's vif script calls, and what
        ``script=vif-snf`` in the configuration of other domains names.
        """
        from snf_xen import nic

        if ganeti.place(SCRIPTS).is_dir():
            words = ("event", "--hypervisor", self.kind)
            yield NicScript(SCRIPTS / "vif-snf", (*words, nic.XL))
            if ganeti.calls("vif-ganeti", "vif-custom"):
                yield NicScript(SCRIPTS / "vif-custom", words)

    def tidy(self, runtime: Path) -> Iterator[Finding]:
        """Destroy helper domains that nobody looks after, for guests of both kinds."""
        from snf_xen import helper

        return helper.tidy(runtime)

    def check(self, appliance: Appliance | None) -> Iterator[Finding]:
        """Whether guests of both kinds can be opened in that domain, and what their NICs need."""
        from snf_xen import helper, node

        yield from helper.check(appliance, self.conf)
        yield from node.findings(self.xenstore)


class XenHvm(Xen):
    """Hardware-assisted guests."""

    kind = "xen-hvm"
