"""CheckDrivers: whether the guest has drivers for the disk and the NICs that it will have.

Windows finds its own disk only by a driver that the boot loader loads: a service with Start 0 (in
learn.microsoft.com, "CurrentControlSet\\Services Registry Tree"), its file, and an entry by which
the kernel tells that it drives the device: CriticalDeviceDatabase up to Windows 7 ("Creating an
entry in the CriticalDeviceDatabase"), DriverDatabase\\DeviceIds since Windows 8. Identifiers are
those of virtio-win's and the Xen Project's INF files: PCI vendor 1AF4 with the device numbers of
the virtio specification (1.2, 4.1.2), vendor 5853 with 0001 and 0002.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from snf_core.contract import Task
from snf_os_windows import inspection, paths

if TYPE_CHECKING:
    from collections.abc import Iterator

    from snf_core.image.customization import Customization
    from snf_core.image.guest import Guest
    from snf_core.image.registry import Hive
    from snf_os_windows.inspection import Facts

BOOT, DISABLED = 0, 4
"""Of Start in a service's key (winnt.h)."""

_DEVICE_DATABASE_SINCE = (6, 2)
"""Windows 8 and Server 2012."""

_IMAGE = re.compile(
    r"(?:\\SystemRoot\\|%SystemRoot%\\|(?:\\\?\?\\)?C:\\Windows\\|\\?)"
    r"(System32\\(?:[A-Za-z0-9_.() -]+\\)*[A-Za-z0-9_.() -]+\.sys)",
    re.IGNORECASE,
)
"""The forms of a driver's ImagePath; the last is relative to the system's root."""


@dataclass(frozen=True)
class Driver:
    """A driver as it must be installed for the guest to start from, or have, a device."""

    services: tuple[str, ...]
    """Names, all of which it takes; each one's file is ``NAME.sys`` where its key names none."""
    devices: tuple[str, ...] = ()
    """PCI identifiers of what it drives, as INF files spell them; empty for what Windows brings
    along, and has entries for."""

    @property
    def prefixes(self) -> tuple[str, ...]:
        """What all identifiers of its devices begin with: vendor and device, not subsystem."""
        return tuple(device.partition("&SUBSYS")[0] for device in self.devices)


def _virtio(service: str, transitional: str, modern: str, subsystem: str) -> Driver:
    return Driver(
        (service,),
        (
            f"VEN_1AF4&DEV_{transitional}&SUBSYS_{subsystem}1AF4&REV_00",
            f"VEN_1AF4&DEV_{modern}&SUBSYS_11001AF4&REV_01",
        ),
    )


_XEN_BUS = ("VEN_5853&DEV_0001", "VEN_5853&DEV_0002")

VIOSTOR = _virtio("viostor", "1001", "1042", "0002")
VIOSCSI = _virtio("vioscsi", "1004", "1048", "0008")
NETKVM = _virtio("netkvm", "1000", "1041", "0001")
XENVBD = Driver(("xenbus", "xenvbd"), _XEN_BUS)
XENNET = Driver(("xenbus", "xenvif", "xennet"), _XEN_BUS)
IN_BOX = tuple(Driver((service,)) for service in ("atapi", "msahci", "storahci"))
"""IDE in every version, AHCI in 7, AHCI since 8."""

_VIRTIO_WIN = "install virtio-win's drivers in the template"
_XEN_PV = "install the Xen Project's Windows PV drivers in the template"


@dataclass(frozen=True)
class Need:
    """What one kind of device takes."""

    drivers: tuple[Driver, ...]
    """Any of these will do; the first is the one to install."""
    device: str
    """In words."""
    remedy: str


DISKS = {
    ("kvm", "/dev/vd"): Need(
        (VIOSTOR,), "a virtio disk", f"{_VIRTIO_WIN}, or give the instance disk_type=ide"
    ),
    ("kvm", "/dev/sd"): Need(
        (VIOSCSI, *IN_BOX),
        "an emulated disk, or one on virtio's SCSI controller",
        f"{_VIRTIO_WIN}, with vioscsi and scsi_controller_type=virtio-scsi-pci for SCSI disks",
    ),
    ("xen-hvm", "/dev/xvd"): Need(
        (XENVBD, *IN_BOX), "a disk of Xen's, emulated as IDE for guests without its driver", _XEN_PV
    ),
}
"""By hypervisor and the beginning of the disk's name: what the guest's disk will be."""

NICS = {
    "kvm": Need(
        (NETKVM,), "virtio NICs", f"{_VIRTIO_WIN}, or give the instance an emulated nic_type"
    ),
    "xen-hvm": Need(
        (XENNET,), "Xen's NICs", f"{_XEN_PV}, or give the instance an emulated nic_type"
    ),
}


class CheckDrivers(Task):
    """Look at the guest's drivers; change nothing, fail nothing.

    Nothing can be told of a hypervisor or a kind of disk that is not known here.
    """

    api_version = "1.0"

    def run(self, guest: Guest, request: Customization) -> Iterator[str]:
        """Warn of what is missing on ``request.hypervisor``, and how to mend it."""
        if request.hypervisor == "xen-pvm":
            yield "Windows does not start as xen-pvm guest; give the instance hypervisor xen-hvm"
            return
        disk = DISKS.get((request.hypervisor, request.disk_name[:-1]))
        nics = NICS.get(request.hypervisor) if request.nics else None
        if not disk and not nics:
            return
        facts = inspection.facts(guest)
        with guest.registry(paths.SYSTEM_HIVE) as hive:
            looking = _Looking(guest, hive, facts)
            if disk:
                yield from _disk(looking, disk)
            if nics:
                yield from _nics(looking, nics)


@dataclass(frozen=True)
class _Looking:
    """Where drivers are looked for."""

    guest: Guest
    hive: Hive
    facts: Facts

    def problem(self, driver: Driver, *, boot: bool) -> str:
        """What keeps a driver from being used, at boot or later; empty where nothing does."""
        for service in driver.services:
            key = f"{self.facts.control_set}\\Services\\{service}"
            if not self.hive.has(key):
                return f"{service} is not installed"
            start = self._start(key)
            if start is None or start > (BOOT if boot else DISABLED - 1):
                wanted = "at boot (Start 0)" if boot else "at all"
                return f"{service} is not started {wanted}"
            file = self._file(key, service)
            if file and not self.guest.is_file(file):
                return f"{service}'s file {paths.windows_path(file)} is missing"
        # Up to Windows 7, the registry has such a table for what is needed at boot only.
        listed = boot or self.facts.version >= _DEVICE_DATABASE_SINCE
        if driver.devices and listed and not self._is_known(driver):
            return f"{driver.services[0]} is installed, and not for {driver.prefixes[-1]}"
        return ""

    def _start(self, key: str) -> int | None:
        """Windows 8 and later note what a machine did not start from beside what was installed."""
        override = self.hive.value(f"{key}\\StartOverride", "0")
        found = override or self.hive.value(key, "Start")
        return found.number if found else None

    def _file(self, key: str, service: str) -> str:
        """The driver's file as the guest facade spells paths; empty where that cannot be told."""
        image = self.hive.value(key, "ImagePath")
        if image is None or not image.text:
            return f"{paths.DRIVERS}/{service}.sys"
        found = _IMAGE.fullmatch(image.text)
        steps = found[1].split("\\") if found else []
        return "/".join([paths.WINDOWS, *steps]) if steps and ".." not in steps else ""

    def _is_known(self, driver: Driver) -> bool:
        """Whether the kernel knows one of the devices that it drives."""
        table, prefix = "DriverDatabase\\DeviceIds\\PCI", ""
        if self.facts.version < _DEVICE_DATABASE_SINCE:
            table, prefix = f"{self.facts.control_set}\\Control\\CriticalDeviceDatabase", "PCI#"
        if any(self.hive.has(f"{table}\\{prefix}{device}") for device in driver.devices):
            return True
        # Thousands of names, of which each takes a round trip.
        names = (name.upper().removeprefix(prefix) for name in self.hive.keys(table))
        return any(name.startswith(driver.prefixes) for name in names)

    def is_staged(self, driver: Driver) -> bool:
        """Whether Windows would install it by itself when it first sees its device."""
        store = self.guest.list(f"{paths.SYSTEM32}/DriverStore/FileRepository")
        packages = tuple(f"{service}.inf_" for service in driver.services)
        return all(any(name.lower().startswith(package) for name in store) for package in packages)


def _disk(looking: _Looking, need: Need) -> Iterator[str]:
    problems = [looking.problem(driver, boot=True) for driver in need.drivers]
    if all(problems):
        yield (
            "the guest will stop with INACCESSIBLE_BOOT_DEVICE (0x7B): its disk will be "
            f"{need.device}, and {problems[0]}; {need.remedy}"
        )


def _nics(looking: _Looking, need: Need) -> Iterator[str]:
    [driver] = need.drivers
    problem = looking.problem(driver, boot=False)
    if problem and not looking.is_staged(driver):
        yield (
            f"the guest will have no network where its NICs are {need.device}: {problem}; "
            f"{need.remedy}"
        )
