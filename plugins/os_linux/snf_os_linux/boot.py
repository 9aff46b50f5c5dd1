"""CheckBoot: what will keep a guest from booting, or from its disk and NICs, where it is to run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from snf_core.contract import Task
from snf_os_linux import boot_menu, initramfs, kernels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from snf_core.image.customization import Customization
    from snf_core.image.guest import Guest
    from snf_os_linux.kernels import Kernel

DISK_DRIVERS = {"/dev/vd": "virtio_blk", "/dev/xvd": "xen-blkfront"}
"""What a kernel needs to have disks of such names."""

XEN_NIC_DRIVER = "xen-netfront"
PARAVIRTUAL, XEN = "xen-pvm", ("xen-pvm", "xen-hvm")
"""Hypervisors whose guests need more than drivers of disks."""

_SHOWN = 3


class CheckBoot(Task):
    """Look at the guest's kernels and at what starts them; change nothing, fail nothing.

    Only what is there is judged: what cannot be read, or is not known, is no reason to warn.
    """

    api_version = "1.0"

    def run(self, guest: Guest, request: Customization) -> Iterator[str]:
        """Warn of what is missing on ``request.hypervisor``, and how to mend it."""
        if request.hypervisor == PARAVIRTUAL:
            yield from _menu(guest)
        driver = _disk_driver(request.disk_name)
        found = kernels.installed(guest)
        if driver and _lacking(found, lambda kernel: kernel.has(guest, driver)):
            yield _no_disk_driver(found, driver, request)
            return  # and no name of the disk's can be told
        if request.hypervisor in XEN:
            yield from _xen(guest, found, driver, request.hypervisor)
        for place, name in boot_menu.foreign(guest, request.disk_name):
            yield (
                f"{place} in the guest names {name}, but its disk will be {request.disk_name}: "
                "use the file system's UUID there"
            )


def _menu(guest: Guest) -> Iterator[str]:
    """What pygrub and pvgrub need, which read the guest's menu and load its kernel."""
    by_node = "unless the node provides a kernel, "
    menus = boot_menu.existing(guest)
    if not kernels.files(guest):
        yield f"there is no kernel in the guest's /boot: {by_node}the guest will not start"
    elif not menus:
        yield (
            f"the guest has no boot menu ({', '.join(boot_menu.MENUS[:3])}...): {by_node}the "
            "guest will not start"
        )
    elif boot_menu.is_elsewhere(guest, menus[0]):
        yield (
            f"{menus[0]} in the guest leaves its entries to blscfg, which pygrub and pvgrub do "
            f"not know: {by_node}the guest will not start; set GRUB_ENABLE_BLSCFG=false in the "
            f"image's /etc/default/grub and run grub2-mkconfig -o {menus[0]}"
        )


def _xen(guest: Guest, found: Sequence[Kernel], driver: str, hypervisor: str) -> Iterator[str]:
    """What its kernels lack to be a guest of Xen with paravirtual devices."""
    if hypervisor == PARAVIRTUAL and _lacking(found, lambda kernel: kernel.is_paravirtual(guest)):
        yield (
            f"no kernel of the guest ({_releases(found)}) can run paravirtual (CONFIG_XEN_PV): "
            "unless the node provides a kernel, the guest will not start; use the hypervisor "
            "xen-hvm, or an image with another kernel"
        )
    if _lacking(found, lambda kernel: kernel.has(guest, XEN_NIC_DRIVER)):
        effect = "no NICs" if hypervisor == PARAVIRTUAL else "emulated, slow NICs only"
        yield (
            f"no kernel of the guest ({_releases(found)}) has the driver {XEN_NIC_DRIVER}: the "
            f"guest will have {effect}"
        )
    lack = initramfs.lack(guest, driver)
    if driver and lack and not any(kernel.contains(guest, driver) for kernel in found):
        yield f"the guest may not find its disk: its initial RAM disk {lack}"


def _no_disk_driver(found: Sequence[Kernel], driver: str, request: Customization) -> str:
    effect = f"the guest will not find its disk {request.disk_name}"
    if request.hypervisor == "xen-hvm":
        effect = f"the guest's disk will be emulated, slow, and not called {request.disk_name}"
    return f"no kernel of the guest ({_releases(found)}) has the driver {driver}: {effect}"


def _disk_driver(disk_name: str) -> str:
    return next((d for start, d in DISK_DRIVERS.items() if disk_name.startswith(start)), "")


def _lacking(found: Sequence[Kernel], has: Callable[[Kernel], bool | None]) -> bool:
    """Whether there are kernels and each of them is known to lack it."""
    return bool(found) and all(has(kernel) is False for kernel in found)


def _releases(found: Sequence[Kernel]) -> str:
    shown = [kernel.release for kernel in found[:_SHOWN]]
    return ", ".join([*shown, "..."] if len(found) > _SHOWN else shown)
