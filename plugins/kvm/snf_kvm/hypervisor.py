"""The hypervisor ``kvm``."""

from __future__ import annotations

import grp
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from oslo_config import cfg

from snf_core.appliance import Launcher
from snf_core.contract import Finding, Hypervisor
from snf_core.errors import ApplianceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from snf_core.appliance import Appliance
    from snf_core.model import Disk, NicEvent
    from snf_kvm.accelerator import Accelerator

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
]

_OVERHEAD = 4 << 30
"""Bytes of address space of QEMU beside the appliance's memory: code, translation cache, stacks."""

_LETTERS = {"paravirtual": "vd", "scsi-hd": "sd", "scsi-block": "sd", "scsi-generic": "sd",
            "scsi": "sd", "ide": "sd"}  # fmt: skip


def list_opts() -> list[tuple[str, Sequence[cfg.Opt]]]:
    """The plugin's options, for oslo-config-generator."""
    return [("hypervisor.kvm", OPTIONS)]


class Kvm(Hypervisor):
    """Instances on KVM, as Ganeti's ``kvm`` hypervisor runs them."""

    api_version = "1.0"
    options = OPTIONS

    def nic_event(self, argv: Sequence[str], environ: Mapping[str, str]) -> NicEvent:
        """A NIC event as Ganeti's KVM network scripts get it; see ``snf_kvm.nic``."""
        from snf_kvm import nic

        return nic.nic_event(argv, environ)

    def disk_name(self, disk: Disk) -> str:
        """``/dev/vdX`` for paravirtual disks, ``/dev/sdX`` for the emulated kinds."""
        return f"/dev/{_LETTERS.get(disk.frontend, 'vd')}{chr(ord('a') + disk.index)}"

    def launcher(self, appliance: Appliance, memory: int) -> Launcher:
        """The appliance in QEMU, with KVM or emulated. Raises ApplianceError without QEMU."""
        qemu = Path(self.conf.qemu)
        if not os.access(qemu, os.X_OK):
            raise ApplianceError(
                f"{qemu} cannot be run",
                remedy="install qemu-system-x86, or set [hypervisor.kvm] qemu",
            )
        accelerator = self._accelerator(appliance)
        limit = (memory << 20) + _OVERHEAD
        return Launcher(
            program=_program(qemu, limit),
            memory=memory,
            settings=("force_tcg",) if accelerator.emulated else ("force_kvm",),
            groups=() if accelerator.emulated else _kvm_groups(),
        )

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

    def _accelerator(self, appliance: Appliance) -> Accelerator:
        from snf_kvm import accelerator

        if self.conf.accelerator == "auto":
            return accelerator.find(Path(self.conf.qemu), appliance, self.conf.probe_timeout)
        return accelerator.Accelerator(self.conf.accelerator, "so it is configured")


def _program(qemu: Path, address_space: int) -> str:
    """The launcher's text with its settings filled in. Debian's Python, without site packages."""
    from snf_kvm import launcher

    text = Path(launcher.__file__).read_text()
    settings = (
        ('QEMU = "/usr/bin/qemu-system-x86_64"', f"QEMU = {str(qemu)!r}"),
        ("ADDRESS_SPACE = 0", f"ADDRESS_SPACE = {address_space}"),
    )
    for default, value in settings:
        assert default in text
        text = text.replace(default, value)
    return f"#!/usr/bin/python3 -IS\n{text}"


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
