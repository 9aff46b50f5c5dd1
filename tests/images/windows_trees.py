"""What lies on the volumes of a Windows: the directories of each version, and stand-ins for files.

A tree is path -> content, None for a directory. Directories on the way are made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.images.windows import Image, Version

Tree = dict[str, bytes | None]

PROGRAM = b"MZ" + bytes(58) + b"@\0\0\0PE\0\0"
"""What stands for a program or driver."""

_CLOUDBASE = "/Program Files/Cloudbase Solutions/Cloudbase-Init"

_LEGACY_DIRECTORIES = (
    "/Documents and Settings/All Users",
    "/Documents and Settings/Default User",
    "/Program Files",
    "/System Volume Information",
    "/RECYCLER",
    "/WINDOWS/Temp",
    "/WINDOWS/inf",
    "/WINDOWS/repair",
    "/WINDOWS/system32/config/systemprofile",
    "/WINDOWS/system32/drivers/etc",
)
_LEGACY_FILES = (
    "/WINDOWS/explorer.exe",
    "/WINDOWS/system32/cmd.exe",
    "/WINDOWS/system32/ntoskrnl.exe",
    "/sysprep/sysprep.exe",
    "/sysprep/setupcl.exe",
)
_DIRECTORIES = (
    "/$Recycle.Bin",
    "/PerfLogs",
    "/Program Files/Common Files",
    "/ProgramData/Microsoft",
    "/Recovery",
    "/System Volume Information",
    "/Users/Default/AppData",
    "/Users/Public",
    "/Windows/Fonts",
    "/Windows/INF",
    "/Windows/Logs/CBS",
    "/Windows/Panther/UnattendGC",
    "/Windows/System32/Sysprep/Panther",
    "/Windows/System32/config/RegBack",
    "/Windows/System32/config/systemprofile",
    "/Windows/System32/drivers/etc",
    "/Windows/System32/oobe",
    "/Windows/Temp",
    "/Windows/WinSxS",
)
_FILES = (
    "/Windows/explorer.exe",
    "/Windows/System32/cmd.exe",
    "/Windows/System32/icacls.exe",
    "/Windows/System32/netsh.exe",
    "/Windows/System32/ntoskrnl.exe",
    "/Windows/System32/winload.exe",
    "/Windows/System32/Sysprep/sysprep.exe",
    "/Windows/System32/oobe/windeploy.exe",
)


def windows(version: Version, image: Image) -> Tree:
    """The system volume, without its hives."""
    tree: Tree = dict.fromkeys(_LEGACY_DIRECTORIES if version.legacy else _DIRECTORIES)
    tree |= dict.fromkeys(_LEGACY_FILES if version.legacy else _FILES, PROGRAM)
    system32 = "/WINDOWS/system32" if version.legacy else "/Windows/System32"
    for driver in (*image.drivers, "disk", "atapi"):
        tree[f"{system32}/drivers/{driver}.sys"] = PROGRAM
    tree["/pagefile.sys"] = bytes(4096)
    if version.powershell if image.powershell is None else image.powershell:
        tree[f"{system32}/WindowsPowerShell/v1.0/powershell.exe"] = PROGRAM
    if not version.legacy:
        tree["/Windows/Panther/setupact.log"] = b"\xff\xfeS\0"
        tree["/Windows/Setup/State/State.ini"] = b"[State]\r\nImageState=\r\n"
        tree["/Windows/System32/config/BCD-Template"] = b"regf"
        if version.architecture != "x86":
            tree["/Program Files (x86)"] = None
            tree["/Windows/SysWOW64"] = None
    if image.cloudbase:
        tree |= _cloudbase()
    return tree


def beside(role: str) -> Tree:
    """Another volume, or what the system volume holds of it where it is the only one."""
    if role == "esp":
        boot = "/EFI/Microsoft/Boot"
        return {
            f"{boot}/bootmgfw.efi": PROGRAM,
            f"{boot}/BCD": b"regf",
            "/EFI/Boot/bootx64.efi": PROGRAM,
        }
    if role == "recovery":
        return {
            "/Recovery/WindowsRE/Winre.wim": b"MSWIM\0\0\0",
            "/Recovery/WindowsRE/ReAgent.xml": b"",
            "/System Volume Information": None,
        }
    if role == "ntldr":
        return {
            "/ntldr": PROGRAM,
            "/NTDETECT.COM": PROGRAM,
            "/boot.ini": b"[boot loader]\r\n[operating systems]\r\n",
        }
    assert role == "reserved"
    return {"/bootmgr": PROGRAM, "/Boot/BCD": b"regf", "/Boot/memtest.exe": PROGRAM}


def _cloudbase() -> Tree:
    """What cloudbase-init's installer leaves, with the options of its own that deployment reads."""
    configuration = f"{_CLOUDBASE}/conf"
    shared = {
        "username": "Admin",
        "groups": "Administrators",
        "inject_user_password": "true",
        "config_drive_raw_hhd": "true",
        "config_drive_cdrom": "true",
        "config_drive_vfat": "true",
        "bsdtar_path": _spelled(f"{_CLOUDBASE}/bin/bsdtar.exe"),
        "mtools_path": _spelled(f"{_CLOUDBASE}/bin/"),
        "verbose": "true",
        "debug": "true",
        "log_dir": _spelled(f"{_CLOUDBASE}/log/"),
        "local_scripts_path": _spelled(f"{_CLOUDBASE}/LocalScripts/"),
    }
    specialize = {"plugins": "cloudbaseinit.plugins.common.mtu.MTUPlugin", "allow_reboot": "false"}
    return {
        f"{_CLOUDBASE}/LocalScripts": None,
        f"{_CLOUDBASE}/Python/Lib/site-packages/cloudbaseinit/__init__.py": b"",
        f"{_CLOUDBASE}/Python/Scripts/cloudbase-init.exe": PROGRAM,
        f"{_CLOUDBASE}/bin/OpenStackService.exe": PROGRAM,
        f"{_CLOUDBASE}/log": None,
        f"{configuration}/Unattend.xml": b'<unattend xmlns="urn:schemas-microsoft-com:unattend"/>',
        f"{configuration}/cloudbase-init.conf": _ini(shared),
        f"{configuration}/cloudbase-init-unattend.conf": _ini(shared | specialize),
    }


def _spelled(path: str) -> str:
    return "C:" + path.replace("/", "\\")


def _ini(options: dict[str, str]) -> bytes:
    lines = ["[DEFAULT]", *(f"{name}={value}" for name, value in options.items()), ""]
    return "\r\n".join(lines).encode()
