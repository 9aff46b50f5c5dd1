"""What the hives of a Windows hold, as far as deployment reads it: by version and by option."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from snf_core.image.registry import BINARY, Value

if TYPE_CHECKING:
    from tests.images.hive import Keys
    from tests.images.windows import Image, Version

CURRENT_VERSION = "Microsoft\\Windows NT\\CurrentVersion"
STATE = "Microsoft\\Windows\\CurrentVersion\\Setup\\State"

GENERALISED = "IMAGE_STATE_GENERALIZE_RESEAL_TO_OOBE"
COMPLETE = "IMAGE_STATE_COMPLETE"

_DISK_CLASS = "{4D36E97B-E325-11CE-BFC1-08002BE10318}"
_NETWORK_CLASS = "{4D36E972-E325-11CE-BFC1-08002BE10318}"
_SYSTEM_CLASS = "{4D36E97D-E325-11CE-BFC1-08002BE10318}"


def _virtio(transitional: str, modern: str, subsystem: str) -> tuple[str, str]:
    return (
        f"VEN_1AF4&DEV_{transitional}&SUBSYS_{subsystem}1AF4&REV_00",
        f"VEN_1AF4&DEV_{modern}&SUBSYS_11001AF4&REV_01",
    )


_DRIVERS = {
    # service -> when it starts (0: at boot), its class, the hardware it drives
    "viostor": (0, _DISK_CLASS, _virtio("1001", "1042", "0002")),
    "vioscsi": (0, _DISK_CLASS, _virtio("1004", "1048", "0008")),
    "netkvm": (3, _NETWORK_CLASS, _virtio("1000", "1041", "0001")),
    "xenbus": (0, _SYSTEM_CLASS, ("VEN_5853&DEV_0001", "VEN_5853&DEV_0002")),
    "xenvbd": (0, _DISK_CLASS, ()),
    "xenvif": (3, _SYSTEM_CLASS, ()),
    "xennet": (3, _NETWORK_CLASS, ()),
    "xendisk": (0, _DISK_CLASS, ()),
    # stock drivers
    "atapi": (0, "", ()),
    "intelide": (0, "", ("VEN_8086&DEV_7010",)),
    "disk": (0, "", ()),
    "volsnap": (0, "", ()),
    "E1G60": (3, "", ()),
}
_STOCK = ("atapi", "intelide", "disk", "volsnap", "E1G60")


def software(version: Version, image: Image) -> Keys:
    """The SOFTWARE hive."""
    sz, dword = Value.string, Value.dword
    root = "C:\\WINDOWS" if version.legacy else "C:\\Windows"
    major, minor = version.nt
    current = {
        "CurrentVersion": sz("6.3" if major >= 10 else f"{major}.{minor}"),
        "CurrentBuild": sz("1.511.1 () (Obsolete data)" if version.legacy else str(version.build)),
        "CurrentBuildNumber": sz(str(version.build)),
        "ProductName": sz(version.product),
        "RegisteredOwner": sz("Template"),
        "SystemRoot": sz(root),
        "PathName": sz(root),
        "DigitalProductId": Value(BINARY, bytes(range(164))),
    }
    if version.edition:
        current["EditionID"] = sz(version.edition)
    if version.installation and version.nt >= (6, 1):
        current["InstallationType"] = sz(version.installation)
    if major >= 10:
        current["CurrentMajorVersionNumber"] = dword(major)
        current["CurrentMinorVersionNumber"] = dword(minor)
        current["UBR"] = dword(1)
    keys = {
        CURRENT_VERSION: current,
        f"{CURRENT_VERSION}\\ProfileList": {
            "ProfilesDirectory": Value.expandable("%SystemDrive%\\Users")
        },
        f"{CURRENT_VERSION}\\Winlogon": {"Shell": sz("explorer.exe")},
        "Microsoft\\Windows\\CurrentVersion": {"ProgramFilesDir": sz("C:\\Program Files")},
        "Microsoft\\Windows\\CurrentVersion\\Run": {},
        "Microsoft\\Windows\\CurrentVersion\\RunOnce": {},
    }
    for zone in ("GMT Standard Time", "GTB Standard Time", "Pacific Standard Time"):
        keys[f"{CURRENT_VERSION}\\Time Zones\\{zone}"] = {"Std": sz(zone)}
    if not version.legacy:
        keys[f"{CURRENT_VERSION}\\Time Zones\\UTC"] = {"Std": sz("Coordinated Universal Time")}
        state = image.image_state or (GENERALISED if image.generalised else COMPLETE)
        keys[STATE] = {"ImageState": sz(state)}
        keys["Microsoft\\Windows\\CurrentVersion\\Setup\\OOBE"] = {}
    return keys


def system(version: Version, image: Image) -> Keys:
    """The SYSTEM hive. Of its control sets, the one that is not used next says other things."""
    number = image.control_set
    other = 1 if number == 2 else 2
    keys: dict[str, dict[str, Value]] = {
        "Select": {
            "Current": Value.dword(number),
            "Default": Value.dword(number),
            "Failed": Value.dword(0),
            "LastKnownGood": Value.dword(number if version.nt >= (6, 2) else other),
        },
        "MountedDevices": {},
        "Setup": _setup(version, image),
        f"ControlSet{number:03}": {},
    }
    keys |= _control(f"ControlSet{number:03}", version, image)
    if version.nt < (6, 2) or number != 1:
        keys[f"ControlSet{other:03}\\Control\\Terminal Server"] = {
            "fDenyTSConnections": Value.dword(5)
        }
        keys[f"ControlSet{other:03}\\Control\\Session Manager\\Environment"] = {
            "PROCESSOR_ARCHITECTURE": Value.string("MIPS")
        }
    return keys


def sam(version: Version, image: Image) -> Keys:
    """The SAM hive: accounts by RID, and their names, whose default values' types are the RIDs."""
    accounts = {0x1F4: image.administrator, 0x1F5: "Guest"}
    if version.nt >= (10, 0):
        accounts |= {0x1F7: "DefaultAccount", 0x1F8: "WDAGUtilityAccount"}
    accounts |= {1001 + index: name for index, name in enumerate(image.users)}
    users = "SAM\\Domains\\Account\\Users"
    keys: dict[str, dict[str, Value]] = {
        "SAM\\Domains\\Account": {"F": Value(BINARY, bytes(240))},
        "SAM\\Domains\\Builtin\\Aliases\\00000220": {"C": Value(BINARY, bytes(48))},
        f"{users}\\Names": {"": Value(0, b"")},
    }
    for rid, name in accounts.items():
        keys[f"{users}\\{rid:08X}"] = {"F": Value(BINARY, bytes(80)), "V": _account(name)}
        keys[f"{users}\\Names\\{name}"] = {"": Value(rid, b"")}
    return keys


def _setup(version: Version, image: Image) -> dict[str, Value]:
    ready = image.generalised
    values = {
        "SetupType": Value.dword(2 if ready else 0),
        "SystemSetupInProgress": Value.dword(int(ready)),
        "CmdLine": Value.string(""),
    }
    if version.legacy:
        values["MiniSetupInProgress"] = Value.dword(int(ready))
        if ready:
            values["CmdLine"] = Value.string("setup -newsetup -mini")
    else:
        values["OOBEInProgress"] = Value.dword(int(ready))
        if ready:
            values["CmdLine"] = Value.string("oobe\\windeploy.exe")
    return values


def _control(control_set: str, version: Version, image: Image) -> dict[str, dict[str, Value]]:
    sz, dword = Value.string, Value.dword
    control, services = f"{control_set}\\Control", f"{control_set}\\Services"
    architecture = {"amd64": "AMD64", "arm64": "ARM64"}.get(
        version.architecture, version.architecture
    )
    terminal = {"TSEnabled": dword(1), "TSUserEnabled": dword(0)}
    if image.remote_desktop is not None:
        terminal["fDenyTSConnections"] = dword(image.remote_desktop)
    keys = {
        f"{control}\\ComputerName\\ComputerName": {"ComputerName": sz("TEMPLATE")},
        f"{control}\\Terminal Server": terminal,
        f"{control}\\Terminal Server\\WinStations\\RDP-Tcp": {"PortNumber": dword(3389)},
        f"{control}\\Session Manager\\Environment": {
            "PROCESSOR_ARCHITECTURE": sz(architecture),
            "OS": sz("Windows_NT"),
            "ComSpec": Value.expandable("%SystemRoot%\\system32\\cmd.exe"),
        },
        f"{control}\\Session Manager\\Power": {"HiberbootEnabled": dword(1)},
        f"{control}\\Session Manager": {"BootExecute": Value.strings(["autocheck autochk *"])},
        f"{control}\\TimeZoneInformation": {
            "StandardName": sz("GMT Standard Time"),
            "Bias": dword(0),
        },
        f"{services}\\Tcpip\\Parameters": {"Hostname": sz("TEMPLATE"), "Domain": sz("")},
        f"{services}\\TermService": {"Start": dword(3)},
    }
    if version.nt >= (6, 0):
        keys[f"{control}\\TimeZoneInformation"]["TimeZoneKeyName"] = sz("GMT Standard Time")
        keys[f"{control}\\MUI\\UILanguages\\en-US"] = {"LCID": dword(0x409)}
    for driver in (*_STOCK, *image.drivers):
        keys |= _driver(control_set, driver, version)
    if image.cloudbase:
        keys[f"{services}\\cloudbase-init"] = {"Start": dword(2), "Type": dword(16)}
    return keys


def _driver(control_set: str, name: str, version: Version) -> dict[str, dict[str, Value]]:
    start, of_class, hardware = _DRIVERS[name]
    values = {
        "Start": Value.dword(start),
        "Type": Value.dword(1),
        "ErrorControl": Value.dword(1),
        "ImagePath": Value.expandable(f"System32\\drivers\\{name}.sys"),
    }
    keys = {f"{control_set}\\Services\\{name}": values}
    for device in hardware:
        if version.nt >= (6, 2):
            found = {f"{name}.inf": Value(BINARY, b"\1\xff\0\0")}
            keys[f"DriverDatabase\\DeviceIds\\PCI\\{device}"] = found
        elif start == 0:
            # Setup writes these in lower case.
            keys[f"{control_set}\\Control\\CriticalDeviceDatabase\\pci#{device.lower()}"] = {
                "Service": Value.string(name),
                "ClassGUID": Value.string(of_class),
            }
    return keys


def _account(name: str) -> Value:
    """The V value: a table of 17 offsets, lengths and unknowns; the name's is the second."""
    encoded = name.encode("utf-16-le")
    table = bytearray(17 * 12)
    struct.pack_into("<II", table, 12, 0, len(encoded))
    return Value(BINARY, bytes(table) + encoded)
