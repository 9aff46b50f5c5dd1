"""What the appliance is asked for, and what not: each program that it runs is felt."""

from __future__ import annotations

import re
import struct
from typing import Any

import pytest

from snf_core.errors import ApplianceError, GuestError
from snf_core.image import layout
from snf_core.image.disks import Disks
from snf_core.image.guest import Guest
from tests.unit.test_ext import superblock
from tests.unit.test_partition_table import LOGICAL, Disk, gpt, mbr

GIB = 1 << 30


class Handle:
    """guestfs, over disks in memory and ``contents`` of partitions."""

    def __init__(self, **disks: Disk) -> None:
        self.disks = {f"/dev/{name}": disk for name, disk in disks.items()}
        self.contents: dict[str, bytes] = {}
        self.calls: list[str] = []
        self.failing = ""
        self.dead = False

    def pread_device(self, device: str, count: int, offset: int) -> bytes:
        self._note("pread_device", device)
        if device in self.contents:
            return self.contents[device][offset : offset + count]
        return self.disks[device].read(offset, count)

    def pwrite_device(self, device: str, content: bytes, offset: int) -> int:
        self._note("pwrite_device", device)
        if self.failing == "half of a write":
            return len(content) // 2
        self.disks[device].write(offset, content)
        return len(content)

    def blockdev_getsize64(self, device: str) -> int:
        self._note("blockdev_getsize64", device)
        return self.disks[device].size

    def list_devices(self) -> list[str]:
        self._note("list_devices")
        return sorted(self.disks)

    def ping_daemon(self) -> None:
        if self.dead:
            raise RuntimeError("gone")

    def vfs_type(self, device: str) -> str:
        self._note("vfs_type", device)
        return "xfs"

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments, **_: self._note(name, *arguments)

    def _note(self, name: str, *arguments: object) -> None:
        self.calls.append(" ".join([name, *map(str, arguments)]))
        if self.failing == name or self.dead:
            raise RuntimeError(f"{name}: it failed")


def grown(disk: Disk) -> Disk:
    disk.sectors = GIB // 512
    return disk


def test_a_table_is_read_once_and_grown_in_few_messages() -> None:
    handle = Handle(sda=grown(gpt({1: (34, 8000)})))
    disks = Disks(handle, {"/dev/sda": GIB})
    disks.reread("/dev/sda")
    table = disks.table("/dev/sda")
    assert disks.partitions("/dev/sda") == table.partitions
    disks.grow_table("/dev/sda", layout.grow(table))
    assert disks.partitions()[0].end == GIB - (1 << 20) - 1
    assert handle.calls == ["pread_device /dev/sda", *["pwrite_device /dev/sda"] * 3,
                            "pread_device /dev/sda"]  # fmt: skip
    handle.calls.clear()
    disks.check_ext("/dev/sda1")
    disks.check_ext("/dev/sda1")
    assert handle.calls == ["blockdev_rereadpt /dev/sda", *["e2fsck /dev/sda1"] * 2]


def test_nothing_is_written_where_nothing_grows() -> None:
    handle = Handle(sda=gpt({1: (34, 8000)}))
    disks = Disks(handle)
    disks.grow_table("/dev/sda", layout.grow(disks.table("/dev/sda")))
    disks.check_ext("/dev/sda1")
    assert handle.calls == ["blockdev_getsize64 /dev/sda", "pread_device /dev/sda",
                            "e2fsck /dev/sda1"]  # fmt: skip


def test_a_disk_without_a_table() -> None:
    disks = Disks(Handle(sda=Disk(9000)))
    with pytest.raises(GuestError, match="/dev/sda: the disk has no partition table, or a d") as e:
        disks.table("/dev/sda")
    assert "whole-disk image" in e.value.remedy


def test_a_size_that_is_not_the_disks() -> None:
    """A host that is wrong about a disk, or an appliance that lies, does no harm."""
    disks = Disks(Handle(sda=gpt({1: (34, 8000)})), {"/dev/sda": 100 << 10})
    with pytest.raises(GuestError, match="the disk has 200"):
        disks.table("/dev/sda")


def test_half_a_write() -> None:
    handle = Handle(sda=grown(gpt({1: (34, 8000)})))
    disks = Disks(handle)
    handle.failing = "half of a write"
    with pytest.raises(GuestError, match="/dev/sda: 8448 of 16896 bytes were written"):
        disks.grow_table("/dev/sda", ())


def test_a_dead_appliance_is_no_damaged_table() -> None:
    handle = Handle(sda=gpt({1: (34, 8000)}))
    handle.dead = True
    with pytest.raises(ApplianceError, match="the appliance died"):
        Disks(handle).table("/dev/sda")


def test_an_ext_file_system_is_recognised_without_a_program() -> None:
    handle = Handle()
    disks = Disks(handle)
    handle.contents["/dev/sda1"] = bytes(1024) + superblock()
    assert disks.filesystem("/dev/sda1") == "ext4"
    assert handle.calls == ["pread_device /dev/sda1"]
    assert disks.ext_superblock("/dev/sda1").kind == "ext4"


@pytest.mark.parametrize(
    "content",
    [b"XFSB".ljust(1024, b"\0") + superblock(), bytes(2048), bytes(1024), superblock(group=0)],
)
def test_blkid_tells_what_is_not_plainly_ext(content: bytes) -> None:
    handle = Handle()
    handle.contents["/dev/sda1"] = content
    assert Disks(handle).filesystem("/dev/sda1") == "xfs"


def test_a_damaged_superblock() -> None:
    handle = Handle()
    handle.contents["/dev/sda1"] = bytes(1024) + superblock(group=0)
    with pytest.raises(GuestError, match="superblock of the file system on /dev/sda1 is damaged"):
        Disks(handle).ext_superblock("/dev/sda1")


GROWN = ["mount_options rw,nodev,nosuid /dev/sda2 /", "resize2fs /dev/sda2"]


def test_what_was_mounted_to_grow_stays_mounted_for_good() -> None:
    handle = Handle()
    handle.contents["/dev/sda2"] = bytes(1024) + superblock()
    guest = Guest(handle)
    guest.grow_ext_mounted("/dev/sda2")
    assert guest.ext_superblock("/dev/sda2").kind == "ext4"
    guest.mount("/dev/sda2", "/")
    assert handle.calls == [*GROWN, "pread_device /dev/sda2"]
    guest.unmount_all()
    assert handle.calls[3:] == ["umount_all"]


@pytest.mark.parametrize(
    ("device", "options", "read_only"),
    [("/dev/sda1", "", False), ("/dev/sda2", "subvol=x", False), ("/dev/sda2", "", True)],
)
def test_what_was_mounted_to_grow_is_unmounted_for_another_mount(
    device: str, options: str, read_only: bool
) -> None:
    handle = Handle()
    guest = Guest(handle)
    guest.grow_ext_mounted("/dev/sda2")
    guest.mount(device, "/", options, read_only=read_only)
    assert [call.split()[0] for call in handle.calls[2:]] == ["umount_all", "mount_options"]
    assert handle.calls[:2] == GROWN


def test_what_was_mounted_to_grow_is_unmounted_before_all_else() -> None:
    handle = Handle()
    handle.failing = "resize2fs"
    disks = Disks(handle)
    with pytest.raises(GuestError, match=re.escape("resize2fs /dev/sda2: it failed")):
        disks.grow_ext_mounted("/dev/sda2")
    disks.check_ext("/dev/sda2")
    assert handle.calls == [*GROWN, "umount_all", "e2fsck /dev/sda2"]


def test_a_partition_is_recognised_before_the_kernel_knows_it() -> None:
    disk = gpt({1: (2048, 8000)})
    disk.write(2048 * 512, bytes(1024) + superblock())
    handle = Handle(sda=disk)
    disks = Disks(handle, {"/dev/sda": disk.size})
    disks.reread("/dev/sda")
    assert disks.partitions()[0].start == 2048 * 512
    assert disks.filesystem("/dev/sda1") == "ext4"
    assert handle.calls == ["pread_device /dev/sda"] * 2


def test_partitions_are_found_by_their_names_without_a_program() -> None:
    blank, damaged = Disk(9000), gpt({1: (34, 8000)})
    damaged.write(512, b"damaged!")
    handle = Handle(sda=blank, sdb=damaged, sdc=gpt({7: (34, 8000)}), sdd=mbr(LOGICAL))
    disks = Disks(handle)
    for attribute, value, device in [
        ("PARTUUID", "07070707-0707-0707-0707-070707070707", "/dev/sdc7"),
        ("PARTUUID", "DEADBEEF-06", "/dev/sdd6"),
        ("PARTUUID", "deadbeef-03", None),
        ("PARTUUID", "", None),
        ("PARTLABEL", "part 7", "/dev/sdc7"),
        ("PARTLABEL", "PART 7", None),
        ("PARTLABEL", "\0", None),
    ]:
        assert disks.find_filesystem(attribute, value) == device
    assert not [call for call in handle.calls if "blkid" in call]


def test_a_label_that_no_partition_has() -> None:
    """An MBR names no partition, so an empty name finds none."""
    assert Disks(Handle(sda=mbr(LOGICAL))).find_filesystem("PARTLABEL", "") is None


def test_identifiers_of_an_mbr_keep_their_zeros() -> None:
    disk = mbr(LOGICAL)
    disk.write(440, struct.pack("<L", 0x12))
    assert Disks(Handle(sda=disk)).find_filesystem("PARTUUID", "00000012-05") == "/dev/sda5"
