"""The Linux family and its tasks over real file systems: layouts, attributes, whole runs."""

from __future__ import annotations

import dataclasses
import ipaddress
import time
from typing import TYPE_CHECKING

import pytest

from snf_core.errors import GuestError
from snf_core.image.customization import Customization
from snf_core.image.nics import NicPlan
from snf_core.image.properties import Properties
from snf_os_linux.boot import CheckBoot
from snf_os_linux.console import EnableConsole
from snf_os_linux.family import Linux
from snf_os_linux.identity import AssignHostname, ChangeMachineId
from snf_os_linux.mount import MountImage
from snf_os_linux.network import ConfigureNetwork
from snf_os_linux.ssh import UNIT, DeleteSSHKeys
from snf_os_linux.users import ChangePassword

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.guest.conftest import Laboratory

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFxVbW9ja2VkIGtleSBmb3IgdGVzdHMgb25seQAA me"
HASH = "$y$j9T$saltsaltsaltsaltsaltsa$hashhashhashhashhashhashhashhashhashhashhas"
LABEL = "system_u:object_r:shadow_t:s0"

TEMPLATE = {
    "/etc/os-release": "ID=debian\nVERSION_ID=12\n",
    "/etc/hostname": "template\n",
    "/etc/hosts": "127.0.0.1 localhost\n127.0.1.1 template\n",
    "/etc/machine-id": "0123456789abcdef0123456789abcdef\n",
    "/var/lib/dbus/machine-id": "0123456789abcdef0123456789abcdef\n",
    "/etc/passwd": "root:x:0:0:root:/root:/bin/bash\nuser:x:1000:1001::/home/user:/bin/bash\n",
    "/etc/shadow": "root:!:19000:0:99999:7:::\nuser:*:19000:0:99999:7:::\n\udcff:x\n",
    "/etc/ssh/sshd_config": "Include /etc/ssh/sshd_config.d/*.conf\n",
    "/etc/ssh/ssh_host_rsa_key": "secret",
    "/etc/ssh/ssh_host_ed25519_key.pub": "public",
    "/usr/bin/ssh-keygen": "",
    "/usr/lib/systemd/systemd": "",
    "/etc/systemd/system/multi-user.target.wants/systemd-networkd.service": "",
    "/etc/systemd/network/05-snf-aa0000000009.network": "[Match]\n",
    "/root/.bashrc": "",
}


def _request(root: str) -> Customization:
    return Customization(
        hostname="vm1.example.org",
        properties=Properties(),
        nics=(
            NicPlan(
                0,
                "aa:00:00:00:00:01",
                ipv4="static",
                address=ipaddress.IPv4Interface("192.0.2.2/24"),
                gateway=ipaddress.IPv4Address("192.0.2.1"),
            ),
        ),
        password_hash=HASH,
        authorized_keys=(KEY,),
        users=("user",),
        facts={"family": "linux", "root": root},
    )


@pytest.fixture
def lab(laboratory: Laboratory) -> Iterator[Laboratory]:
    """The laboratory, with nothing mounted afterwards."""
    yield laboratory
    laboratory.guest.unmount_all()


def _mounts(lab: Laboratory) -> list[str]:
    return sorted(point for point in lab.handle.mountpoints().values())


class TestDetection:
    def test_root_is_found_beside_boot_and_home(self, lab: Laboratory) -> None:
        esp, boot, root, home = lab.partition("/dev/sda", "gpt", [64, 64, 128, 64])
        lab.handle.mkfs("vfat", esp)
        for device in (boot, root, home):
            lab.handle.mkfs("ext4", device)
        lab.write_tree(boot, {"/grub/grub.cfg": ""})
        lab.write_tree(root, {"/usr/lib/os-release": "ID=debian\n", "/etc/fstab": ""})
        lab.write_tree(home, {"/user/etc/os-release": ""})
        family = Linux(None)
        assert family.detect(lab.guest, None) == 2
        assert family.root(lab.guest) == root
        assert family.detect(lab.guest, root) == 2
        assert family.detect(lab.guest, boot) == 0
        assert family.detect(lab.guest, esp) == 0
        assert _mounts(lab) == []

    def test_two_roots_are_ambiguous(self, lab: Laboratory) -> None:
        devices = lab.partition("/dev/sda", "mbr", [64, 64])
        for device in devices:
            lab.handle.mkfs("ext4", device)
            lab.write_tree(device, {"/etc/os-release": "ID=debian\n"})
        with pytest.raises(GuestError, match=r"ambiguous: /dev/sda1, /dev/sda2") as caught:
            Linux(None).root(lab.guest)
        assert "ROOT_PARTITION" in caught.value.remedy
        assert _mounts(lab) == []

    def test_encrypted_and_lvm_are_refused_clearly(self, lab: Laboratory) -> None:
        luks, lvm = lab.partition("/dev/sda", "gpt", [64, 64])
        lab.handle.luks_format(luks, "secret", 0)
        lab.handle.pvcreate(lvm)
        assert Linux(None).detect(lab.guest, None) == 1
        with pytest.raises(GuestError) as caught:
            Linux(None).root(lab.guest)
        assert f"{luks} is encrypted (LUKS)" in caught.value.message
        assert f"{lvm} is a physical volume of LVM" in caught.value.message

    def test_nothing_to_be_found(self, lab: Laboratory) -> None:
        lab.partition("/dev/sda", "gpt", [16])
        assert Linux(None).detect(lab.guest, None) == 0
        with pytest.raises(GuestError, match="no Linux root file system was found"):
            Linux(None).root(lab.guest)


class TestMounting:
    @pytest.mark.parametrize(
        ("label", "kind"), [("gpt", "ext4"), ("mbr", "ext4"), ("gpt", "xfs"), ("gpt", "btrfs")]
    )
    def test_file_systems_of_fstab(self, lab: Laboratory, label: str, kind: str) -> None:
        root, boot, home = lab.partition("/dev/sda", label, [400, 64, 64])
        lab.handle.mkfs(kind, root)
        lab.handle.mkfs("ext4", boot, label="boot fs")
        lab.handle.mkfs("ext4", home)
        [data] = lab.partition("/dev/sdb", "gpt", [64])
        lab.handle.mkfs("ext4", data)
        partuuid = lab.handle.blkid(home)["PART_ENTRY_UUID"]
        fstab = (
            f"UUID={lab.handle.vfs_uuid(root)} / {kind} errors=remount-ro 0 1\n"
            "LABEL=boot\\040fs /boot auto defaults 0 2\n"
            f'PARTUUID="{partuuid.upper()}" /home ext4 noatime 0 2\n'
            f"/dev/disk/by-uuid/{lab.handle.vfs_uuid(data)} /home/user/data ext4 rw 0 2\n"
            "UUID=dead-beef /backup ext4 nofail 0 0\n"
            "UUID=dead-beef /other ext4 noauto 0 0\n"
            "/dev/sr0 /media/cdrom0 udf,iso9660 user,noauto 0 0\n"
            "tmpfs /tmp tmpfs nosuid 0 0\nproc /proc proc defaults 0 0\n"
        )
        lab.write_tree(root, {**TEMPLATE, "/etc/fstab": fstab})
        warnings = list(MountImage(None).run(lab.guest, _request(root)))
        assert _mounts(lab) == ["/", "/boot", "/home", "/home/user/data"]
        assert len(warnings) == 1
        assert "/etc/fstab line 5" in warnings[0]
        lab.guest.write("/home/user/data/file", "x")
        lab.guest.unmount_all()
        lab.guest.mount(data, "/", read_only=True)
        assert lab.guest.read("/file") == "x"

    def test_btrfs_subvolumes(self, lab: Laboratory) -> None:
        [root] = lab.partition("/dev/sda", "gpt", [400])
        lab.handle.mkfs("btrfs", root)
        uuid = lab.handle.vfs_uuid(root)
        lab.handle.mount(root, "/")
        lab.handle.btrfs_subvolume_create("/@")
        lab.handle.btrfs_subvolume_create("/@home")
        for path in ("/@/etc", "/@/home"):
            lab.handle.mkdir(path)
        lab.handle.write("/@/etc/os-release", b"ID=fedora\n")
        fstab = (
            f"UUID={uuid} / btrfs subvol=@\nUUID={uuid} /home btrfs compress=zstd,subvol=@home\n"
        )
        lab.handle.write("/@/etc/fstab", fstab.encode())
        listed = lab.handle.btrfs_subvolume_list("/")
        [number] = [s["btrfssubvolume_id"] for s in listed if s["btrfssubvolume_path"] == "@"]
        lab.handle.btrfs_subvolume_set_default(number, "/")
        lab.guest.unmount_all()
        assert Linux(None).root(lab.guest) == root
        assert list(MountImage(None).run(lab.guest, _request(root))) == []
        lab.guest.write("/home/file", "x")
        lab.guest.unmount_all()
        lab.guest.mount(root, "/", "subvol=@home", read_only=True)
        assert lab.guest.read("/file") == "x"

    def test_linked_mount_point_is_not_followed(self, lab: Laboratory) -> None:
        root, home = lab.partition("/dev/sda", "gpt", [64, 64])
        lab.handle.mkfs("ext4", root)
        lab.handle.mkfs("ext4", home, label="home")
        lab.write_tree(root, {"/etc/fstab": "LABEL=home /home ext4 defaults 0 0\n"})
        lab.handle.mount(root, "/")
        lab.handle.ln_s("/usr/bin", "/home")
        lab.guest.unmount_all()
        with pytest.raises(GuestError, match=r"/etc/fstab line 1 .* is not a directory"):
            list(MountImage(None).run(lab.guest, _request(root)))
        assert _mounts(lab) == ["/"]

    def test_no_root(self, lab: Laboratory) -> None:
        [root] = lab.partition("/dev/sda", "gpt", [64])
        lab.handle.mkfs("ext4", root)
        with pytest.raises(GuestError, match="holds no /etc") as caught:
            list(MountImage(None).run(lab.guest, _request(root)))
        assert "ROOT_PARTITION" in caught.value.remedy


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_all_tasks(lab: Laboratory, kind: str) -> None:
    """A whole customisation, with attributes kept and only what must change changed."""
    [root] = lab.partition("/dev/sda", "gpt", [400])
    handle, guest = lab.handle, lab.guest
    handle.mkfs(kind, root)
    lab.write_tree(root, {**TEMPLATE, "/etc/fstab": f"UUID={handle.vfs_uuid(root)} / {kind}\n"})
    handle.mount(root, "/")
    handle.chmod(0o640, "/etc/shadow")
    handle.chown(0, 42, "/etc/shadow")
    handle.chmod(0o444, "/etc/machine-id")
    handle.lsetxattr("security.selinux", LABEL, len(LABEL), "/etc/shadow")
    handle.ln_s("/usr/lib/systemd/system/ssh.service", "/etc/systemd/system/sshd.service")
    before = set(handle.find("/"))
    guest.unmount_all()

    request = _request(root)
    day = int(time.time()) // 86400
    for task in (
        *(MountImage, AssignHostname, ChangeMachineId, ChangePassword),
        *(ConfigureNetwork, DeleteSSHKeys),
    ):
        assert list(task(None).run(guest, request)) == [], task.__name__
    guest.unmount_all()

    handle.mount_ro(root, "/")
    assert guest.read("/etc/hostname") == "vm1.example.org\n"
    assert guest.read("/etc/hosts") == ("127.0.0.1 localhost\n127.0.1.1\tvm1.example.org vm1\n")
    assert guest.read("/etc/machine-id") == ""
    assert guest.link_target("/var/lib/dbus/machine-id") == "/etc/machine-id"
    shadow = handle.lstatns("/etc/shadow")
    assert (shadow["st_mode"] & 0o7777, shadow["st_uid"], shadow["st_gid"]) == (0o640, 0, 42)
    assert handle.lgetxattr("/etc/shadow", "security.selinux") == LABEL.encode()
    lines = handle.read_file("/etc/shadow").split(b"\n")
    assert lines[0] == b"root:!:19000:0:99999:7:::"
    assert lines[1].decode() in {f"user:{HASH}:{today}:0:99999:7:::" for today in (day, day + 1)}
    assert lines[2:] == [b"\xff:x", b""]
    keys, home = guest.status("/home/user/.ssh/authorized_keys"), guest.status("/home/user/.ssh")
    assert keys is not None
    assert home is not None
    assert (keys.mode & 0o7777, keys.uid, keys.gid) == (0o600, 1000, 1001)
    assert (home.mode & 0o7777, home.uid, home.gid) == (0o700, 1000, 1001)
    assert guest.read("/home/user/.ssh/authorized_keys") == f"{KEY}\n"
    after = set(handle.find("/"))
    assert before - after == {
        "etc/ssh/ssh_host_rsa_key",
        "etc/ssh/ssh_host_ed25519_key.pub",
        "etc/systemd/network/05-snf-aa0000000009.network",
    }
    assert after - before == {
        *("home", "home/user", "home/user/.ssh", "home/user/.ssh/authorized_keys"),
        "etc/systemd/network/05-snf-aa0000000001.network",
        f"etc/systemd/system/{UNIT}",
        f"etc/systemd/system/multi-user.target.wants/{UNIT}",
    }


def test_guest_of_xen(lab: Laboratory) -> None:
    """Where the guest keeps what is looked at behind links, and where it lacks something."""
    [root] = lab.partition("/dev/sda", "gpt", [64])
    lab.handle.mkfs("ext4", root)
    modules = "/usr/lib/modules/6.1.0-9-amd64"
    lab.write_tree(
        root,
        {
            "/etc/inittab": "1:2345:respawn:/sbin/getty 38400 tty1\n",
            "/etc/securetty": "tty1\n",
            "/usr/sbin/getty": "",
            "/boot/vmlinuz-6.1.0-9-amd64": "",
            "/boot/config-6.1.0-9-amd64": "CONFIG_XEN=y\nCONFIG_XEN_PV=y\n",
            "/boot/grub/grub.cfg": "menuentry 'x' {\n linux /boot/vmlinuz root=/dev/vda1\n}\n",
            f"{modules}/modules.builtin": "kernel/drivers/char/mem.ko\n",
            f"{modules}/modules.dep": "kernel/fs/xfs/xfs.ko.xz:\n",
            f"{modules}/kernel/drivers/block/xen-blkfront.ko.xz": "",
        },
    )
    lab.handle.mount(root, "/")
    lab.handle.ln_s("usr/lib", "/lib")
    lab.handle.chmod(0o600, "/etc/securetty")
    request = dataclasses.replace(_request(root), hypervisor="xen-pvm", disk_name="/dev/xvda")
    drivers, names = CheckBoot(None).run(lab.guest, request)
    assert "xen-netfront" in drivers
    assert "/boot/grub/grub.cfg line 2 in the guest names /dev/vda1" in names
    assert list(EnableConsole(None).run(lab.guest, request)) == []
    table = lab.guest.read("/etc/inittab") or ""
    assert table.splitlines()[1] == "hvc0:2345:respawn:/usr/sbin/getty -L 115200 hvc0 vt100"
    assert lab.guest.read("/etc/securetty") == "tty1\nhvc0\n"
    assert lab.handle.lstatns("/etc/securetty")["st_mode"] & 0o7777 == 0o600
