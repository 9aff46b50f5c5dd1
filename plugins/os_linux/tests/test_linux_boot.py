"""CheckBoot over file systems in dictionaries: each warning where it is due, and only there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from snf_os_linux import boot_menu
from snf_os_linux.boot import CheckBoot
from tests.fakes.guest import FakeGuest, Node, directory, fifo, link
from tests.fakes.task import run

if TYPE_CHECKING:
    from collections.abc import Mapping

RELEASE = "6.1.0-9-amd64"
MODULES = f"/lib/modules/{RELEASE}"
CONFIG = f"/boot/config-{RELEASE}"
GRUB = "/boot/grub/grub.cfg"
ENTRY = "menuentry 'Linux' {\n\tlinux /boot/vmlinuz root=UUID=0815 ro\n}\n"
DRIVERS = "kernel/drivers/block/xen-blkfront.ko: \nkernel/drivers/net/xen-netfront.ko.xz:\n"

DEBIAN: Mapping[str, str | Node] = {
    f"/boot/vmlinuz-{RELEASE}": "",
    f"/boot/initrd.img-{RELEASE}": "",
    CONFIG: "CONFIG_64BIT=y\nCONFIG_XEN=y\nCONFIG_XEN_PV=y\nCONFIG_XEN_PVH=y\n",
    GRUB: ENTRY,
    f"{MODULES}/modules.builtin": "kernel/drivers/char/mem.ko\n",
    f"{MODULES}/modules.dep": "kernel/fs/xfs/xfs.ko:\n",
    f"{MODULES}/kernel/drivers/block/xen-blkfront.ko": "",
    f"{MODULES}/kernel/drivers/block/virtio_blk.ko": "",
    f"{MODULES}/kernel/drivers/net/xen-netfront.ko": "",
    "/etc/initramfs-tools/initramfs.conf": "MODULES=most\nBUSYBOX=auto\n",
    "/etc/fstab": "UUID=0815 / ext4 errors=remount-ro 0 1\n/dev/sr0 /media/cdrom0 auto noauto\n",
}
PLACES = {
    "kvm": {"hypervisor": "kvm", "disk_name": "/dev/vda"},
    "kvm, emulated disks": {"hypervisor": "kvm", "disk_name": "/dev/sda"},
    "xen-pvm": {"hypervisor": "xen-pvm", "disk_name": "/dev/xvda"},
    "xen-hvm": {"hypervisor": "xen-hvm", "disk_name": "/dev/xvda"},
    "unknown": {},
}


def guest(changes: Mapping[str, str | Node | None] | None = None) -> FakeGuest:
    """A Debian that can boot anywhere, but for ``changes``; None for what is not there."""
    files = {**DEBIAN, **(changes or {})}
    return FakeGuest.mounted({path: what for path, what in files.items() if what is not None})


def check(place: str, changes: Mapping[str, str | Node | None] | None = None) -> list[str]:
    """The warnings about it."""
    facts: dict[str, Any] = dict(PLACES[place])
    return run(CheckBoot, guest(changes), **facts)


class TestNothingToSay:
    @pytest.mark.parametrize("place", PLACES)
    def test_of_a_guest_that_boots_anywhere(self, place: str) -> None:
        assert check(place) == []

    @pytest.mark.parametrize("place", PLACES)
    def test_of_a_guest_of_which_nothing_is_known(self, place: str) -> None:
        """Whatever its kernels may be, they are there, and that is all that can be seen."""
        bare: dict[str, str | Node | None] = dict.fromkeys(DEBIAN)
        files = bare | {"/boot/vmlinuz-linux": "", GRUB: ENTRY, f"{MODULES}/x": ""}
        assert check(place, files) == []

    @pytest.mark.parametrize("place", PLACES)
    def test_where_files_are_something_else(self, place: str) -> None:
        strange = {path: fifo() for path in (CONFIG, GRUB, f"{MODULES}/modules.builtin")}
        assert check(place, {**strange, "/etc/fstab": directory()}) == []

    def test_where_drivers_are_part_of_the_kernel(self) -> None:
        files = {
            f"{MODULES}/modules.builtin": DRIVERS.replace("front.ko: ", "front.ko"),
            f"{MODULES}/kernel/drivers/block/xen-blkfront.ko": None,
            f"{MODULES}/kernel/drivers/net/xen-netfront.ko": None,
            "/etc/initramfs-tools/initramfs.conf": "MODULES=dep\n",
        }
        assert check("xen-pvm", files) == []

    def test_where_modules_are_in_unusual_places(self) -> None:
        files = {
            f"{MODULES}/modules.dep": DRIVERS.replace("kernel/drivers", "updates"),
            f"{MODULES}/kernel/drivers/block/xen-blkfront.ko": None,
            f"{MODULES}/kernel/drivers/net/xen-netfront.ko": None,
        }
        assert check("xen-pvm", files) == []

    def test_where_one_of_several_kernels_can(self) -> None:
        other = "5.10.0-1-amd64"
        files = {
            f"/boot/vmlinuz-{other}": "",
            f"/boot/config-{other}": "CONFIG_64BIT=y\n# CONFIG_XEN is not set\n",
            f"/lib/modules/{other}/modules.builtin": "kernel/drivers/char/mem.ko\n",
            f"/lib/modules/{other}/modules.dep": "kernel/fs/xfs/xfs.ko:\n",
        }
        assert check("xen-pvm", files) == []

    @pytest.mark.parametrize("lost", ["modules.builtin", "modules.dep"])
    def test_where_a_list_of_drivers_is_lost(self, lost: str) -> None:
        files = {
            f"{MODULES}/{lost}": None,
            f"{MODULES}/kernel/drivers/block/xen-blkfront.ko": None,
        }
        assert check("xen-pvm", files) == []


class TestDrivers:
    @pytest.mark.parametrize(
        ("place", "driver", "effect"),
        [
            ("kvm", "virtio_blk", "will not find its disk /dev/vda"),
            ("xen-pvm", "xen-blkfront", "will not find its disk /dev/xvda"),
            ("xen-hvm", "xen-blkfront", "will be emulated, slow, and not called /dev/xvda"),
        ],
    )
    def test_no_driver_of_the_disk(self, place: str, driver: str, effect: str) -> None:
        [warning] = check(place, {f"{MODULES}/kernel/drivers/block/{driver}.ko": None})
        assert driver in warning
        assert RELEASE in warning
        assert effect in warning

    def test_kernels_that_are_gone_do_not_count(self) -> None:
        files = {
            f"{MODULES}/kernel/drivers/block/xen-blkfront.ko": None,
            "/lib/modules/5.10.0-1/kernel/drivers/block/xen-blkfront.ko": "",
        }
        [warning] = check("xen-pvm", files)
        assert f"({RELEASE})" in warning

    @pytest.mark.parametrize(
        ("place", "effect"), [("xen-pvm", "no NICs"), ("xen-hvm", "emulated, slow NICs only")]
    )
    def test_no_driver_of_the_nics(self, place: str, effect: str) -> None:
        gone = {f"{MODULES}/kernel/drivers/net/xen-netfront.ko": None}
        [warning] = check(place, gone)
        assert "xen-netfront" in warning
        assert effect in warning
        assert check("kvm", gone) == []


class TestParavirtual:
    @pytest.mark.parametrize(
        "config",
        [
            "CONFIG_XEN=y\n# CONFIG_XEN_PV is not set\nCONFIG_XEN_PVHVM=y\n",
            "CONFIG_64BIT=y\n# CONFIG_XEN is not set\n",
        ],
    )
    def test_kernel_that_cannot(self, config: str) -> None:
        [warning] = check("xen-pvm", {CONFIG: config})
        assert "CONFIG_XEN_PV" in warning
        assert RELEASE in warning
        assert check("xen-hvm", {CONFIG: config}) == []

    @pytest.mark.parametrize(
        "files",
        [
            {CONFIG: "CONFIG_XEN=y\nCONFIG_XEN_BLKDEV_FRONTEND=m\n"},  # before Linux 4.12
            {CONFIG: None},
            {CONFIG: None, f"{MODULES}/config": "CONFIG_XEN_PV=y\n"},
        ],
    )
    def test_kernel_that_can_or_might(self, files: Mapping[str, str | None]) -> None:
        assert check("xen-pvm", files) == []

    def test_no_kernel(self) -> None:
        gone = {f"/boot/vmlinuz-{RELEASE}": None}
        [warning] = check("xen-pvm", gone)
        assert "no kernel in the guest's /boot" in warning
        assert "unless the node provides a kernel" in warning
        assert check("xen-hvm", gone) == []
        assert check("kvm", gone) == []

    def test_no_menu(self) -> None:
        [warning] = check("xen-pvm", {GRUB: None})
        assert "no boot menu (/boot/grub/grub.cfg" in warning
        assert check("xen-hvm", {GRUB: None}) == []

    @pytest.mark.parametrize("menu", boot_menu.MENUS)
    def test_menus_that_are_found(self, menu: str) -> None:
        assert check("xen-pvm", {GRUB: None, menu: link("../elsewhere")}) == []

    def test_menu_elsewhere(self) -> None:
        menu = "/boot/grub2/grub.cfg"
        text = "insmod part_gpt\nblscfg\nif [ x ]; then\n  menuentry 'Firmware' {\n }\nfi\n"
        [warning] = check("xen-pvm", {GRUB: None, menu: text})
        assert "blscfg" in warning
        assert f"grub2-mkconfig -o {menu}" in warning
        assert check("xen-pvm", {GRUB: None, menu: text + ENTRY}) == []
        assert check("xen-hvm", {GRUB: None, menu: text}) == []


class TestInitialRamDisk:
    CONF = "/etc/initramfs-tools/conf.d/small"

    @pytest.mark.parametrize("modules", ["dep", "list"])
    def test_made_for_another_machine(self, modules: str) -> None:
        for place in ("xen-pvm", "xen-hvm"):
            [warning] = check(place, {self.CONF: f"MODULES={modules}\nCOMPRESS=zstd\n"})
            assert f"MODULES={modules}" in warning
            assert "add xen-blkfront to /etc/initramfs-tools/modules" in warning
        assert check("kvm", {self.CONF: f"MODULES={modules}\n"}) == []

    @pytest.mark.parametrize(
        ("path", "text"),
        [
            ("/etc/initramfs-tools/modules", "# what is needed\nxen_blkfront\n"),
            ("/usr/share/initramfs-tools/modules.d/xen", "virtio_blk\nxen-blkfront option=1\n"),
            ("/etc/initramfs-tools/conf.d/zz", 'MODULES="most"\n'),
        ],
    )
    def test_driver_is_asked_for(self, path: str, text: str) -> None:
        assert check("xen-pvm", {self.CONF: "MODULES=dep\n", path: text}) == []

    def test_no_such_disk(self) -> None:
        gone = {f"/boot/initrd.img-{RELEASE}": None}
        assert check("xen-pvm", {self.CONF: "MODULES=dep\n", **gone}) == []

    @pytest.mark.parametrize(
        ("files", "warned"),
        [
            ({"/usr/lib/dracut/dracut.conf.d/01-dist.conf": 'hostonly="yes"\n'}, True),
            ({"/etc/dracut.conf": "hostonly=yes\n"}, True),
            ({"/usr/lib/dracut/dracut.conf.d/02-generic.conf": 'hostonly="no"\n'}, False),
            ({}, False),
            (
                {
                    "/usr/lib/dracut/dracut.conf.d/01-dist.conf": 'hostonly="yes"\n',
                    "/usr/lib/dracut/dracut.conf.d/02-generic.conf": 'hostonly="no"\n',
                },
                False,
            ),
            (
                {
                    "/etc/dracut.conf": "hostonly=yes\nadd_drivers+=' nvme '\n",
                    "/etc/dracut.conf.d/xen.conf": 'add_drivers+=" xen-blkfront "\n',
                },
                False,
            ),
        ],
    )
    def test_dracut(self, files: Mapping[str, str], warned: bool) -> None:
        other = {
            "/etc/initramfs-tools/initramfs.conf": None,
            f"/boot/initrd.img-{RELEASE}": None,
            f"/boot/initramfs-{RELEASE}.img": "",
        }
        warnings = check("xen-pvm", {**other, **files})
        assert [("hostonly=yes" in warning) for warning in warnings] == [True] * warned


class TestNames:
    @pytest.mark.parametrize(
        ("place", "good", "bad"),
        [
            ("xen-pvm", "/dev/xvda1", "/dev/sda1"),
            ("xen-hvm", "/dev/xvda1", "/dev/hda1"),
            ("kvm", "/dev/vda1", "/dev/sda1"),
            ("kvm, emulated disks", "/dev/sda1", "/dev/vda1"),
        ],
    )
    def test_root_in_a_menu(self, place: str, good: str, bad: str) -> None:
        menu = "# root=/dev/sda1\nset root='hd0,gpt1'\n{}{}"
        entries = [ENTRY.replace("UUID=0815", name) for name in (bad, good)]
        assert check(place, {GRUB: menu.format(entries[1], entries[1])}) == []
        [warning] = check(place, {GRUB: menu.format(entries[1], entries[0])})
        assert f"{GRUB} line 7" in warning
        assert bad in warning
        assert PLACES[place]["disk_name"] in warning

    def test_root_in_an_entry(self) -> None:
        entry = "/boot/loader/entries/a.conf"
        [warning] = check("kvm", {entry: "title Linux\noptions ro root=/dev/sda1\n"})
        assert f"{entry} line 2" in warning

    def test_fstab(self) -> None:
        table = (
            "# /dev/sda9 / ext4\n/dev/sda1 / ext4 defaults 0 1\n\n/dev/sda2 none swap sw 0 0\n"
            "/dev/sda3 /data ext4 noauto 0 0\n"
        )
        warnings = check("xen-pvm", {"/etc/fstab": table})
        assert len(warnings) == 2
        assert "/etc/fstab line 2 in the guest names /dev/sda1" in warnings[0]
        assert "/etc/fstab line 4 in the guest names /dev/sda2" in warnings[1]
        assert check("kvm, emulated disks", {"/etc/fstab": table}) == []
        assert check("unknown", {"/etc/fstab": table}) == []
