"""The hypervisor "acme", which announces NICs in environment variables of its own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from oslo_config import cfg

from snf_core import model
from snf_core.appliance import Appliance, Launcher
from snf_core.contract import Finding, Hypervisor
from snf_core.errors import ApplianceError, InvalidValueError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

OPTIONS = (cfg.StrOpt("qemu", default="/usr/bin/qemu-system-x86_64", help="QEMU to run."),)


class Acme(Hypervisor):
    """Guests of Acme's hypervisor."""

    api_version = "1.0"
    options = OPTIONS

    def nic_event(self, argv: Sequence[str], environ: Mapping[str, str]) -> model.NicEvent:
        """ACME_ACTION (up or down), ACME_TAP, ACME_GUEST, ACME_MAC and ACME_BRIDGE."""
        missing = {"ACME_ACTION", "ACME_TAP", "ACME_GUEST"} - environ.keys()
        if missing:
            raise InvalidValueError(f"not in the environment: {', '.join(sorted(missing))}")
        nic = None
        if environ["ACME_ACTION"] == "up":
            bridge = environ.get("ACME_BRIDGE", "")
            nic = model.Nic(0, environ.get("ACME_MAC", ""), model.Mode.BRIDGED, bridge)
        return model.NicEvent(
            model.Action.UP if nic else model.Action.DOWN,
            environ["ACME_TAP"],
            environ["ACME_GUEST"],
            nic,
        )

    def disk_name(self, disk: model.Disk) -> str:
        """Acme's guests have paravirtual disks only."""
        return f"/dev/vd{chr(ord('a') + disk.index)}"

    def launcher(self, appliance: Appliance) -> Launcher:
        """The appliance in an emulated machine."""
        if not os.access(self.conf.qemu, os.X_OK):
            raise ApplianceError(
                f"{self.conf.qemu} cannot be run", remedy="set [hypervisor.acme] qemu"
            )
        program = Path(__file__).with_name("launcher.py").read_text()
        program = program.replace("/usr/bin/qemu-system-x86_64", self.conf.qemu)
        return Launcher(program, appliance.memory, settings=("force_tcg",))

    def check(self, appliance: Appliance | None) -> Iterator[Finding]:
        """Whether there is a QEMU."""
        well = os.access(self.conf.qemu, os.X_OK)
        statement = f"QEMU is {'' if well else 'not '}at {self.conf.qemu}"
        yield Finding(well, statement, "install QEMU")
