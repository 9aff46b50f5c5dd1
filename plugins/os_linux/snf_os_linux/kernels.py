"""The kernels that lie in a guest, and what they were built with; none of them is run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from snf_os_linux import inspection

if TYPE_CHECKING:
    from snf_core.image.guest import Guest

MODULES = "/lib/modules"
"""Where each kernel has a directory, named by its release (modprobe(8))."""

_KERNEL = re.compile(r"(vmlinu[xz]|kernel|bzImage|linux)([-._].*)?")
_RELEASE = re.compile(r"[0-9][A-Za-z0-9_.+~-]{0,63}")
_PLACES = {
    "virtio_blk": "kernel/drivers/block",
    "xen-blkfront": "kernel/drivers/block",
    "xen-netfront": "kernel/drivers/net",
}
"""Where Linux keeps the drivers that are asked for: the usual answer, without a long list."""
_COMPRESSED = ("", ".gz", ".xz", ".zst")


@dataclass(frozen=True)
class Kernel:
    """A kernel of the guest's."""

    release: str

    def has(self, guest: Guest, driver: str) -> bool | None:
        """Whether a driver is part of it or one of its modules. None where that is not known."""
        if self.contains(guest, driver):
            return True
        path = f"{self._directory}/{_PLACES[driver]}/{driver}.ko"
        if inspection.present(guest, [path + ending for ending in _COMPRESSED]):
            return True
        listed = inspection.text(guest, f"{self._directory}/modules.dep")
        return _names(driver, listed) if listed and self._builtin(guest) else None

    def contains(self, guest: Guest, driver: str) -> bool:
        """Whether a driver is no module, but known to be part of the kernel itself."""
        return _names(driver, self._builtin(guest))

    def is_paravirtual(self, guest: Guest) -> bool | None:
        """Whether it can be a paravirtual guest of Xen. None where that is not known.

        Before Linux 4.12, where CONFIG_XEN_PV is first met, CONFIG_XEN meant just that.
        """
        for path in (f"/boot/config-{self.release}", f"{self._directory}/config"):
            lines = frozenset(inspection.text(guest, path).split("\n"))
            if {"CONFIG_XEN_PV=y", "# CONFIG_XEN_PV is not set"} & lines:
                return "CONFIG_XEN_PV=y" in lines
            if any(line.startswith("CONFIG_") for line in lines):
                return "CONFIG_XEN=y" in lines
        return None

    @property
    def _directory(self) -> str:
        return f"{MODULES}/{self.release}"

    def _builtin(self, guest: Guest) -> str:
        return inspection.text(guest, f"{self._directory}/modules.builtin")


def files(guest: Guest) -> list[str]:
    """The names of the kernels in /boot, whatever their release."""
    return [name for name in inspection.names(guest, "/boot") if _KERNEL.fullmatch(name)]


def installed(guest: Guest) -> list[Kernel]:
    """The kernels with modules, without those that are gone from /boot though others are there."""
    names = inspection.names(guest, MODULES)
    releases = [name for name in names if _RELEASE.fullmatch(name)][-inspection.MOST :]
    inside = inspection.present(guest, [f"{MODULES}/{release}/vmlinuz" for release in releases])
    startable = files(guest)
    present = [
        release
        for release in releases
        if f"{MODULES}/{release}/vmlinuz" in inside
        or any(name.endswith(f"-{release}") for name in startable)
    ]
    return [Kernel(release) for release in present or releases]


def _names(driver: str, listed: str) -> bool:
    """Whether a list of modules' files has a driver, whose name is told with - or with _."""
    pattern = re.sub("[-_]", "[-_]", driver)
    return re.search(rf"(^|/){pattern}\.ko", listed, re.MULTILINE) is not None
