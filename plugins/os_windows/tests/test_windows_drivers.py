"""CheckDrivers: a warning where a driver is missing that the guest will need, and only there."""

from __future__ import annotations

from typing import Any

import pytest

from snf_core.image.nics import NicPlan
from snf_core.image.registry import Value
from snf_os_windows import inspection, paths
from snf_os_windows.drivers import CheckDrivers
from snf_os_windows.inspection import Facts
from tests.fakes.guest import FakeGuest
from tests.fakes.task import run

NIC = NicPlan(0, "aa:00:00:5e:00:01", "dhcp")
DISK: dict[str, Any] = {"hypervisor": "kvm", "disk_name": "/dev/vda"}
VIRTIO = DISK | {"nics": (NIC,)}
EMULATED: dict[str, Any] = {"hypervisor": "kvm", "disk_name": "/dev/sda"}
XEN: dict[str, Any] = {"hypervisor": "xen-hvm", "disk_name": "/dev/xvda", "nics": (NIC,)}
WINDOWS_10, WINDOWS_7, XP = (10, 0), (6, 1), (5, 1)
PCI = "DriverDatabase\\DeviceIds\\PCI"
CRITICAL = "ControlSet001\\Control\\CriticalDeviceDatabase"
IDS = {
    "viostor": "VEN_1AF4&DEV_1042&SUBSYS_11001AF4&REV_01",
    "vioscsi": "VEN_1AF4&DEV_1048&SUBSYS_11001AF4&REV_01",
    "netkvm": "VEN_1AF4&DEV_1041&SUBSYS_11001AF4&REV_01",
    "xenbus": "VEN_5853&DEV_0001",
}
AT_BOOT = ("viostor", "vioscsi", "atapi", "xenbus", "xenvbd")

Keys = dict[str, dict[str, Value]]


def service(name: str, **values: Value) -> Keys:
    start = Value.dword(0 if name in AT_BOOT else 3)
    return {f"ControlSet001\\Services\\{name}": {"Start": start, **values}}


def keys(version: tuple[int, int], *names: str) -> Keys:
    """A SYSTEM hive in which these drivers are installed as they should be."""
    found: Keys = {}
    for name in names:
        found |= service(name)
        if name in IDS and version >= (6, 2):
            found[f"{PCI}\\{IDS[name]}"] = {}
        elif name in IDS and name in AT_BOOT:
            found[f"{CRITICAL}\\pci#{IDS[name].lower()}"] = {}
    return found


def warnings(
    hive: Keys, files: tuple[str, ...] = (), version: tuple[int, int] = WINDOWS_10, **request: Any
) -> list[str]:
    guest = FakeGuest.mounted(dict.fromkeys(files, "MZ"))
    guest.hives[paths.SYSTEM_HIVE] = hive
    inspection._facts[guest] = Facts(version, 1, "Windows", "", "amd64", "ControlSet001")
    return run(CheckDrivers, guest, **request)


def files(*names: str) -> tuple[str, ...]:
    return tuple(f"{paths.DRIVERS}/{name}.sys" for name in names)


@pytest.mark.parametrize("version", [WINDOWS_10, WINDOWS_7, XP])
@pytest.mark.parametrize(
    ("names", "request_"),
    [
        (("viostor", "netkvm"), VIRTIO),
        (("vioscsi",), EMULATED),
        (("atapi",), EMULATED),
        (("xenbus", "xenvbd", "xenvif", "xennet"), XEN),
    ],
)
def test_drivers_that_are_there_are_nothing_to_speak_of(
    version: tuple[int, int], names: tuple[str, ...], request_: dict[str, Any]
) -> None:
    assert warnings(keys(version, *names), files(*names), version, **request_) == []


@pytest.mark.parametrize("version", [WINDOWS_10, WINDOWS_7, XP])
def test_without_its_drivers_it_neither_starts_nor_has_a_network(version: tuple[int, int]) -> None:
    disk, nics = warnings(keys(version, "atapi"), files("atapi"), version, **VIRTIO)
    assert "INACCESSIBLE_BOOT_DEVICE (0x7B)" in disk
    assert "viostor is not installed" in disk
    assert "virtio-win" in disk
    assert "disk_type=ide" in disk
    assert "no network" in nics
    assert "netkvm is not installed" in nics
    assert "virtio-win" in nics


def test_a_guest_of_xen_can_do_without_on_an_emulated_disk() -> None:
    [nics] = warnings(keys(WINDOWS_10, "atapi"), files("atapi"), **XEN)
    assert "no network" in nics
    assert "xenbus is not installed" in nics


def test_a_guest_of_xen_with_no_driver_at_all() -> None:
    disk, _ = warnings({}, **XEN)
    assert "0x7B" in disk
    assert "PV drivers" in disk


@pytest.mark.parametrize("start", [1, 3, 4])
def test_a_disk_driver_that_is_not_started_at_boot(start: int) -> None:
    hive = keys(WINDOWS_10, "viostor", "netkvm") | service("viostor", Start=Value.dword(start))
    [warning] = warnings(hive, files("viostor", "netkvm"), **VIRTIO)
    assert "viostor is not started at boot" in warning


def test_a_driver_that_windows_put_off_because_it_started_without() -> None:
    override = {"ControlSet001\\Services\\atapi\\StartOverride": {"0": Value.dword(3)}}
    [warning] = warnings(keys(WINDOWS_10, "atapi") | override, files("atapi"), **EMULATED)
    assert "0x7B" in warning


def test_a_nic_driver_that_is_disabled() -> None:
    hive = keys(WINDOWS_10, "viostor", "netkvm") | service("netkvm", Start=Value.dword(4))
    [warning] = warnings(hive, files("viostor", "netkvm"), **VIRTIO)
    assert "netkvm is not started at all" in warning


@pytest.mark.parametrize(
    ("image", "place"),
    [
        ("System32\\drivers\\viostor.sys", "/Windows/System32/drivers/viostor.sys"),
        ("\\SystemRoot\\System32\\drivers\\a.sys", "/Windows/System32/drivers/a.sys"),
        ("%SystemRoot%\\system32\\DRIVERS\\a.sys", "/Windows/system32/DRIVERS/a.sys"),
        ("\\??\\C:\\Windows\\System32\\a.sys", "/Windows/System32/a.sys"),
        (
            "\\SystemRoot\\System32\\DriverStore\\FileRepository\\viostor.inf_amd64_1\\viostor.sys",
            "/Windows/System32/DriverStore/FileRepository/viostor.inf_amd64_1/viostor.sys",
        ),
    ],
)
def test_the_file_of_a_driver_is_looked_for_where_windows_does(image: str, place: str) -> None:
    hive = keys(WINDOWS_10, "viostor") | service("viostor", ImagePath=Value.expandable(image))
    assert warnings(hive, (place,), **DISK) == []
    [warning] = warnings(hive, (), **DISK)
    assert f"file C:{place.replace('/', chr(92))} is missing" in warning


@pytest.mark.parametrize(
    "image", ["..\\..\\secret.sys", "\\??\\D:\\a.sys", "System32\\..\\a.sys\0", "a" * 70000]
)
def test_an_image_path_that_is_not_understood_is_not_judged(image: str) -> None:
    hive = keys(WINDOWS_10, "viostor") | service("viostor", ImagePath=Value.string(image))
    assert warnings(hive, (), **DISK) == []


@pytest.mark.parametrize("version", [WINDOWS_10, WINDOWS_7])
def test_a_driver_that_is_not_for_the_device(version: tuple[int, int]) -> None:
    hive = keys(version, "netkvm") | service("viostor")
    [warning] = warnings(hive, files("viostor", "netkvm"), version, **VIRTIO)
    assert "viostor is installed, and not for VEN_1AF4&DEV_1042" in warning


@pytest.mark.parametrize("subsystem", ["", "&SUBSYS_00000000", "&SUBSYS_12345678&REV_09"])
def test_a_driver_for_the_device_by_another_name(subsystem: str) -> None:
    hive = keys(WINDOWS_10, "netkvm") | service("viostor")
    hive[f"{PCI}\\ven_1af4&dev_1001{subsystem}"] = {}
    assert warnings(hive, files("viostor", "netkvm"), **VIRTIO) == []


def test_a_nic_driver_that_windows_has_in_store() -> None:
    stored = f"{paths.SYSTEM32}/DriverStore/FileRepository/netkvm.inf_amd64_0815/netkvm.sys"
    hive = keys(WINDOWS_10, "viostor")
    assert warnings(hive, (*files("viostor"), stored), **VIRTIO) == []


def test_nothing_runs_as_xen_pvm() -> None:
    [warning] = warnings({}, hypervisor="xen-pvm", disk_name="/dev/xvda")
    assert "xen-hvm" in warning


@pytest.mark.parametrize(
    "request_",
    [{}, {"hypervisor": "fake", "disk_name": "/dev/vda", "nics": (NIC,)}, {"hypervisor": "kvm"}],
)
def test_what_is_not_known_is_not_judged(request_: dict[str, Any]) -> None:
    assert warnings({}, **request_) == []
