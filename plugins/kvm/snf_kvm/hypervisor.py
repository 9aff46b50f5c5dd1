"""The hypervisor ``kvm``."""

from __future__ import annotations

import grp
import os
import re
import stat
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from oslo_config import cfg

from snf_core.appliance import Launcher
from snf_core.contract import Finding, Hypervisor
from snf_core.errors import ApplianceError, SnfError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from snf_core.appliance import Appliance
    from snf_core.contract import HostNic, NicScript
    from snf_core.ganeti.generation import Ganeti
    from snf_core.model import Disk, NicEvent
    from snf_kvm.accelerator import Accelerator
    from snf_kvm.saved import Saved

OPTIONS = [
    cfg.StrOpt(
        "qemu",
        default="/usr/bin/qemu-system-x86_64",
        help="The QEMU that runs the appliance.",
    ),
    cfg.StrOpt(
        "accelerator",
        default="auto",
        choices=[
            ("auto", "KVM where it works on this node, else emulation"),
            ("kvm", "KVM, without trying it first"),
            ("tcg", "emulation"),
        ],
        help="What executes the appliance.",
    ),
    cfg.IntOpt(
        "probe_timeout",
        default=8,
        min=1,
        max=60,
        help="Seconds within which a kernel must come up with KVM for it to be used. Tried once "
        "per boot of the node.",
    ),
    cfg.BoolOpt(
        "resume",
        default=True,
        help="Resume the appliance from the state that was saved when it was built, instead of "
        "booting it for each deployment.",
    ),
    cfg.IntOpt(
        "resume_timeout",
        default=10,
        min=1,
        help="Seconds after which a resumed appliance that is not ready is booted instead. A "
        "state that does not fit or that QEMU refuses is noticed at once.",
    ),
]

_OVERHEAD = 4 << 30
"""Bytes of address space of QEMU beside the appliance's memory: code, translation cache, stacks."""

_LETTERS = {"paravirtual": "vd", "scsi-hd": "sd", "scsi-block": "sd", "scsi-generic": "sd",
            "scsi": "sd", "ide": "sd"}  # fmt: skip


def list_opts() -> list[tuple[str, Sequence[cfg.Opt]]]:
    """The plugin's options, for oslo-config-generator."""
    return [("hypervisor.kvm", OPTIONS), ("hypervisor.fake", OPTIONS)]


class Kvm(Hypervisor):
    """Instances on KVM, as Ganeti's ``kvm`` hypervisor runs them."""

    api_version = "1.0"
    options = OPTIONS
    packages: ClassVar[Sequence[str]] = ("python3-minimal",)

    def nic_event(self, argv: Sequence[str], environ: Mapping[str, str]) -> NicEvent | None:
        """A NIC event as Ganeti's KVM network scripts get it; see ``snf_kvm.nic``."""
        from snf_kvm import nic

        return nic.nic_event(argv, environ)

    def host_nics(self) -> Iterator[HostNic]:
        """Those that Ganeti keeps a list of; see ``snf_kvm.host_nics``."""
        from snf_kvm import host_nics

        return host_nics.listed()

    def nic_scripts(self, ganeti: Ganeti) -> Iterator[NicScript]:
        """Those that the installed versions of Ganeti call; see ``snf_kvm.scripts``."""
        from snf_kvm import scripts

        return scripts.nic_scripts(ganeti)

    def disk_name(self, disk: Disk) -> str:
        """``/dev/vdX`` for paravirtual disks, ``/dev/sdX`` for the emulated kinds."""
        return f"/dev/{_LETTERS.get(disk.frontend, 'vd')}{chr(ord('a') + disk.index)}"

    def launcher(self, appliance: Appliance) -> Launcher:
        """The appliance in QEMU, with KVM or emulated. Raises ApplianceError without QEMU."""
        qemu = Path(self.conf.qemu)
        if not os.access(qemu, os.X_OK):
            raise ApplianceError(
                f"{qemu} cannot be run",
                remedy="install qemu-system-x86, or set [hypervisor.kvm] qemu",
            )
        accelerator = self._accelerator(appliance)
        booting = Launcher(
            program=self._program(appliance),
            memory=appliance.memory,
            settings=("force_tcg",) if accelerator.emulated else ("force_kvm",),
            groups=() if accelerator.emulated else _kvm_groups(),
        )
        if not self.conf.resume:
            return booting
        from snf_kvm import saved

        try:
            fit = saved.find(qemu, accelerator.name, appliance)
        except ApplianceError as error:
            warning = f"the appliance is booted, which takes seconds: {error}"
            return replace(booting, warning=warning)
        booting = replace(booting, feature_cache=fit.features)  # it is of the same QEMU
        return replace(
            booting,
            program=self._program(appliance, fit, accelerator.name),
            patience=self.conf.resume_timeout,
            fallback=booting,
        )

    def prepare(self, appliance: Appliance) -> Iterator[Finding]:
        """Save a state of the appliance for each accelerator that works here, and prove it."""
        qemu = Path(self.conf.qemu)
        if not self.conf.resume or not os.access(qemu, os.X_OK):
            return
        from snf_kvm import save

        names = [self._accelerator(appliance).name]
        if self.conf.accelerator == "auto" and "tcg" not in names:
            names.append("tcg")  # for when KVM stops working
        for name in names:
            try:
                save.save(qemu, name, appliance)
                yield self._proof(appliance, name)
            except SnfError as error:
                save.discard(appliance, name)
                statement = f"the appliance will be booted with {name}, which takes seconds: "
                yield Finding(False, statement + error.message, error.remedy, fatal=False)

    def check(self, appliance: Appliance | None) -> Iterator[Finding]:
        """QEMU, and what executes the appliance."""
        qemu = Path(self.conf.qemu)
        well = os.access(qemu, os.X_OK)
        statement = f"{qemu} {'is there' if well else 'is missing'}"
        yield Finding(well, statement, "install qemu-system-x86")
        if not well or appliance is None:
            return
        accelerator = self._accelerator(appliance)
        remedy = "enable virtualization in the firmware or for this nested machine"
        if accelerator.emulated:
            slow = f"the appliance is emulated, which is slow: {accelerator.reason}"
            yield Finding(False, slow, remedy, fatal=False)
        else:
            yield Finding(True, "the appliance runs with KVM")
        if self.conf.resume:
            try:
                yield self._proof(appliance, accelerator.name)
            except SnfError as error:
                statement = f"the appliance is booted, which takes seconds: {error.message}"
                yield Finding(False, statement, error.remedy, fatal=False)

    def _accelerator(self, appliance: Appliance) -> Accelerator:
        from snf_kvm import accelerator

        if self.conf.accelerator == "auto":
            return accelerator.find(Path(self.conf.qemu), appliance, self.conf.probe_timeout)
        return accelerator.Accelerator(self.conf.accelerator, "so it is configured")

    def _proof(self, appliance: Appliance, accelerator: str) -> Finding:
        """Resume the saved state once. Raises ApplianceError if that cannot be done."""
        from snf_kvm import prove, saved

        fit = saved.find(Path(self.conf.qemu), accelerator, appliance)
        seconds = prove.prove(self._program(appliance, fit, accelerator))
        return Finding(
            True, f"the appliance saved on {fit.date} is ready {seconds:.2f} s after its start "
            f"with {accelerator}",
        )  # fmt: skip

    def _program(
        self, appliance: Appliance, fit: Saved | None = None, accelerator: str = ""
    ) -> str:
        """The launcher's text with its settings filled in: to boot, or to resume what fits.

        Run by Debian's Python, without site packages.
        """
        from snf_kvm import launcher, machine

        settings: dict[str, object] = {
            "QEMU": self.conf.qemu,
            "ADDRESS_SPACE": (appliance.memory << 20) + _OVERHEAD,
        }
        if fit:
            settings["MACHINE"] = machine.arguments(fit.machine, accelerator, appliance.memory)
            settings["STATE"] = str(fit.state)
            settings["ROOT"] = str(fit.root)
        lines = Path(launcher.__file__).read_text().splitlines(keepends=True)
        for name, value in settings.items():
            places = [n for n, line in enumerate(lines) if re.match(rf"{name}(:.*)? = ", line)]
            assert len(places) == 1
            lines[places[0]] = f"{name} = {value!r}\n"
        return "#!/usr/bin/python3 -IS\n" + "".join(lines)


def _kvm_groups() -> tuple[str, ...]:
    """The group through which an unprivileged user may open /dev/kvm."""
    from snf_kvm.accelerator import DEVICE

    try:
        status = DEVICE.stat()
        if not status.st_mode & stat.S_IWGRP:
            return ()
        return (grp.getgrgid(status.st_gid).gr_name,)
    except (OSError, KeyError) as error:
        raise ApplianceError(
            f"{DEVICE} cannot be used: there is no such device, or its group has no name",
            remedy="load the kvm module, or set [hypervisor.kvm] accelerator = auto",
        ) from error
