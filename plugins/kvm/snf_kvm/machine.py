"""The machine whose state is saved: the very same one saves and resumes.

A state fits a machine of the same type, processor, memory and devices only (QEMU's documentation
of migration, "Compatibility"). Disks are not part of it: they are added when it is resumed.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from snf_core.errors import ApplianceError
from snf_core.run import run

if TYPE_CHECKING:
    from pathlib import Path

CHANNEL = "channel0"
"""The character device between guestfsd and libguestfs, as libguestfs calls it."""

PROCESSORS = {"kvm": "host", "tcg": "max,la57=off"}
"""Models by accelerator. With five levels of page tables emulated processors are slower."""

COMMAND_LINE = (
    "panic=1 console=ttyS0 edd=off udevtimeout=6000 udev.event-timeout=6000 no_timer_check "
    "printk.time=1 cgroup_disable=memory usbcore.nousb cryptomgr.notests tsc=reliable "
    "8250.nr_uarts=1 root={root} selinux=0 quiet TERM=dumb guestfs_rescue=1"
)
"""What libguestfs tells the appliance's kernel, and that there shall be a shell."""


def arguments(machine: str, accelerator: str, memory: int) -> list[str]:
    """QEMU's arguments, without what its character devices and its drive ``root`` are.

    The root is no SCSI disk, so that the first one to be added is /dev/sda.
    """
    return [
        "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
        "-machine", f"{machine},accel={accelerator},usb=off,vmport=off,hpet=off,graphics=off",
        "-cpu", PROCESSORS[accelerator],
        "-m", str(memory),
        "-rtc", "driftfix=slew",
        "-object", "rng-random,filename=/dev/urandom,id=random",
        "-device", "virtio-rng-pci,rng=random",
        "-device", "virtio-scsi-pci,id=scsi",
        "-device", "virtio-blk-pci,drive=root",
        "-device", "virtio-serial-pci",
        "-device", f"virtserialport,chardev={CHANNEL},name=org.libguestfs.channel.0",
        "-device", "virtserialport,chardev=resume,name=org.snf.resume",
    ]  # fmt: skip


def newest_type(qemu: Path) -> str:
    """The machine type that ``pc`` stands for in this QEMU, for example ``pc-i440fx-7.2``.

    Raises ApplianceError where this QEMU has none.
    """
    listed = run([qemu, "-machine", "help"]).stdout.decode(errors="replace")
    found = re.search(r"^pc\s.*\(alias of ([A-Za-z0-9._-]+)\)", listed, re.MULTILINE)
    if not found:
        raise ApplianceError(f"{qemu} has no machine type pc", remedy="install qemu-system-x86")
    return found[1]
