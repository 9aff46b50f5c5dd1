"""What goes into a guest's initial RAM disk, by the configuration of what makes it.

The RAM disk itself is not opened: it is large, and compressed in one of many ways.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from snf_os_linux import inspection

if TYPE_CHECKING:
    from snf_core.image.guest import Guest

_IMAGE = re.compile(r"init(rd|ramfs)([-._].*)?")

_DEBIAN = "/etc/initramfs-tools"
_DEBIAN_SHARED = "/usr/share/initramfs-tools"
_DRACUT = ("/usr/lib/dracut/dracut.conf.d", "/etc/dracut.conf.d")


def lack(guest: Guest, driver: str) -> str:
    """Why the RAM disk lacks a driver that is a module, or may lack it; empty where it does not.

    It says what to change.
    """
    if not any(_IMAGE.fullmatch(name) for name in inspection.names(guest, "/boot")):
        return ""
    if inspection.present(guest, [f"{_DEBIAN}/initramfs.conf"]):
        return _initramfs_tools(guest, driver)
    return _dracut(guest, driver)


def _initramfs_tools(guest: Guest, driver: str) -> str:
    """By initramfs.conf(5): ``MODULES=most`` takes every driver of disks."""
    files = [
        f"{_DEBIAN}/initramfs.conf",
        *inspection.dropins(guest, [f"{_DEBIAN_SHARED}/conf.d"]),
        *inspection.dropins(guest, [f"{_DEBIAN}/conf.d"]),
    ]
    modules = inspection.assignments(guest, files).get("MODULES", "most")
    lists = [
        f"{_DEBIAN}/modules",
        f"{_DEBIAN_SHARED}/modules",
        *inspection.dropins(guest, [f"{_DEBIAN_SHARED}/modules.d"]),
    ]
    listed = {
        line.split()[0].replace("_", "-")
        for path in lists
        for line in inspection.text(guest, path).split("\n")
        if line.strip()
    }
    if modules not in {"dep", "list"} or driver.replace("_", "-") in listed:
        return ""
    held = "the listed drivers" if modules == "list" else "the drivers of where it was made"
    return (
        f"holds {held} only (MODULES={modules} in {_DEBIAN}): add {driver} to "
        f"{_DEBIAN}/modules in the image and run update-initramfs -u"
    )


def _dracut(guest: Guest, driver: str) -> str:
    """By dracut.conf(5): ``hostonly=yes`` takes what is in use where it is made."""
    files = ["/etc/dracut.conf", *inspection.dropins(guest, _DRACUT, ".conf")]
    values = inspection.assignments(guest, files)
    added = f"{values.get('add_drivers', '')} {values.get('force_drivers', '')}"
    if values.get("hostonly") != "yes" or driver in added.replace("_", "-").split():
        return ""
    return (
        "holds the drivers of where it was made only (hostonly=yes in dracut's configuration): "
        f'put add_drivers+=" {driver} " into /etc/dracut.conf.d/xen.conf in the image and run '
        "dracut --force --regenerate-all"
    )
