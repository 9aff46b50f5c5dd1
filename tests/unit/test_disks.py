"""What the appliance is asked for, and what not: each program that it runs is felt."""

from __future__ import annotations

import os
import re
import struct
from typing import Any

import pytest

from snf_core.errors import ApplianceError, GuestError
from snf_core.image import layout, ntfs
from snf_core.image.disks import Disks
from snf_core.image.guest import Guest
from tests.unit import test_ntfs
from tests.unit.test_ext import superblock
from tests.unit.test_partition_table import LOGICAL, RECOVERY, Disk, gpt, mbr

GIB = 1 << 30


class Handle:
    """guestfs, over disks in memory and ``contents`` of partitions."""

    def __init__(self, **disks: Disk) -> None:
        self.disks = {f"/dev/{name}": disk for name, disk in disks.items()}
        self.contents: dict[str, bytes] = {}
        self.calls: list[str] = []
        self.kind = "xfs"
        self.mount_flags = os.ST_NODEV
        self.probed = 0
        self.failing = ""
        self.dead = False

    def pread_device(self, device: str, count: int, offset: int) -> bytes:
        self._note("pread_device", device)
        if device in self.contents:
            return self.contents[device][offset : offset + count]
        return self.disks[device].read(offset, count)

    def pwrite_device(self, device: str, content: bytes, offset: int) -> int:
        self._note("pwrite_device", device)
        if device in self.contents:
            old = self.contents[device]
            self.contents[device] = old[:offset] + content + old[offset + len(content) :]
            return len(content)
        if self.failing == "half of a write":
            return len(content) // 2
        self.disks[device].write(offset, content)
        return len(content)

    def copy_device_to_device(
        self, source: str, target: str, *, srcoffset: int, destoffset: int, size: int
    ) -> None:
        self._note("copy_device_to_device", source, target)
        assert srcoffset + size <= destoffset, "it overwrites what is still to be read"
        self.disks[target].write(destoffset, self.disks[source].read(srcoffset, size))

    def ntfs_3g_probe(self, writable: bool, device: str) -> int:
        self._note("ntfs_3g_probe", writable, device)
        return self.probed

    def statvfs(self, path: str) -> dict[str, int]:
        self._note("statvfs", path)
        return {"flag": self.mount_flags}

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
        return self.kind

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


def volume(flags: int = 1) -> bytes:
    """An NTFS volume of 4 MiB, with a record of $Volume and a copy of it, and nothing else."""
    content = bytearray(4 << 20)
    content[:512] = content[-512:] = test_ntfs.boot_sector()
    for place in (test_ntfs.GEOMETRY.record, test_ntfs.GEOMETRY.mirror):
        content[place : place + 1024] = test_ntfs.record(flags)
    return bytes(content)


def with_recovery(content: bytes) -> Handle:
    """A disk of 1 GiB, with Windows and a recovery partition that holds that."""
    last = 4096 + len(content) // 512 - 1
    disk = gpt({1: (2048, 4095), 2: (4096, last)}, 1 << 20, types={2: RECOVERY})
    disk.write(4096 * 512, content)
    return Handle(sda=grown(disk))


def test_what_moves_is_there_before_the_table_is_written() -> None:
    handle = with_recovery(volume())
    before = handle.disks["/dev/sda"].read(4096 * 512, 4 << 20)
    disks = Disks(handle, {"/dev/sda": GIB})
    changes = layout.grow(disks.table("/dev/sda"))
    handle.calls.clear()
    disks.grow_table("/dev/sda", changes)
    place = handle.calls.index("sync")
    assert handle.calls[0] == "copy_device_to_device /dev/sda /dev/sda"
    assert handle.calls[place + 1 :] == ["pwrite_device /dev/sda"] * 3
    moved = disks.partitions()[1]
    now = handle.disks["/dev/sda"].read(moved.start, moved.size)
    assert now[512:-512] == before[512:-512]
    assert now[:512] == now[-512:] == ntfs.relocated(before[:512], moved.start // 512)
    assert ntfs.geometry(now[:512]).hidden_sectors == moved.start // 512


@pytest.mark.parametrize(
    "content", [b"-FVE-FS-".rjust(11).ljust(4096), bytes(8192), b"\xff" * 4096, volume()[:-512]]
)
def test_what_moves_is_not_changed_where_it_is_not_plainly_ntfs(content: bytes) -> None:
    """Nor is what lies where NTFS has the copy of its boot sector, unless it is one."""
    handle = with_recovery(content)
    disks = Disks(handle, {"/dev/sda": GIB})
    disks.grow_table("/dev/sda", layout.grow(disks.table("/dev/sda")))
    moved = disks.partitions()[1]
    now = handle.disks["/dev/sda"].read(moved.start, moved.size)
    assert now[512:] == content[512:]
    assert now[:0x1C] + now[0x20:512] == content[:0x1C] + content[0x20:512]


def test_the_table_stays_where_the_copy_fails() -> None:
    handle = with_recovery(volume())
    disks = Disks(handle, {"/dev/sda": GIB})
    before = disks.table("/dev/sda")
    handle.failing = "copy_device_to_device"
    with pytest.raises(GuestError, match="copy device to device /dev/sda"):
        disks.grow_table("/dev/sda", layout.grow(before))
    assert "pwrite_device /dev/sda" not in handle.calls
    disks.reread("/dev/sda")
    assert disks.table("/dev/sda") == before


def test_a_partition_is_added_and_formatted() -> None:
    disk = gpt({1: (2048, 6143)}, 8192)
    handle = Handle(sda=disk)
    disks = Disks(handle, {"/dev/sda": disk.size})
    number = disks.add_partition("/dev/sda", sectors=1792, type=RECOVERY_TYPE, name="cidata")
    assert number == 2
    assert disks.partitions()[1].start == 6144 * 512
    disks.format_fat("/dev/sda2", "cidata")
    assert handle.calls[-2:] == ["blockdev_rereadpt /dev/sda", "mkfs vfat /dev/sda2"]


RECOVERY_TYPE = "de94bba4-06d1-4d40-a16a-bfd50179d6ac"


@pytest.mark.parametrize("flags", [0, 1, 0x8001])
def test_a_check_is_called_off_in_both_places(flags: int) -> None:
    handle = Handle()
    handle.contents["/dev/sda2"] = before = volume(flags)
    disks = Disks(handle)
    assert disks.ntfs("/dev/sda2").dirty == bool(flags & 1)
    disks.mark_ntfs("/dev/sda2", dirty=False)
    assert not disks.ntfs("/dev/sda2").dirty
    after = handle.contents["/dev/sda2"]
    found = test_ntfs.GEOMETRY
    one, other = (after[place : place + 1024] for place in (found.record, found.mirror))
    assert one == other == ntfs.marked(found, test_ntfs.record(flags), dirty=False)
    assert len(after) == len(before)
    changed = {index // 1024 for index in range(len(after)) if after[index] != before[index]}
    assert changed <= {found.record // 1024, found.mirror // 1024}


@pytest.mark.parametrize("place", ["record", "mirror"])
def test_damage_is_not_written_over(place: str) -> None:
    handle = Handle()
    content = bytearray(volume())
    content[getattr(test_ntfs.GEOMETRY, place)] = 0
    handle.contents["/dev/sda2"] = bytes(content)
    with pytest.raises(GuestError, match="NTFS file system is damaged"):
        Disks(handle).mark_ntfs("/dev/sda2", dirty=False)
    assert handle.contents["/dev/sda2"] == content


@pytest.mark.parametrize(
    ("probed", "kind", "state"),
    [
        (0, "ntfs", "clean"),
        (14, "ntfs", "hibernated"),
        (15, "ntfs", "unclean"),
        *((status, "ntfs", "damaged") for status in (1, 11, 12, 13, 16, 21, 255)),
        (12, "BitLocker", "encrypted"),
        (12, "", "damaged"),
    ],
)
def test_states_of_ntfs(probed: int, kind: str, state: str) -> None:
    handle = Handle()
    handle.contents["/dev/sda2"] = bytes(4096)
    handle.probed, handle.kind = probed, kind
    assert Disks(handle).ntfs_state("/dev/sda2") == state


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "rw,nodev,nosuid,ignore_case,windows_names,norecover"),
        ({"recover": True}, "rw,nodev,nosuid,ignore_case,windows_names,recover"),
        ({"read_only": True}, "ro,nodev,nosuid,ignore_case,windows_names,norecover"),
    ],
)
def test_windows_is_mounted_in_one_way(options: dict[str, bool], words: str) -> None:
    handle = Handle()
    Guest(handle).mount_windows("/dev/sda2", **options)
    mounted = f"mount_vfs {words} lowntfs-3g /dev/sda2 /"
    assert handle.calls == [mounted, *([] if "read_only" in options else ["statvfs /"])]


@pytest.mark.parametrize("recover", [False, True])
def test_windows_that_is_mounted_read_only_for_its_state_is_refused(recover: bool) -> None:
    handle = Handle()
    handle.mount_flags = os.ST_RDONLY
    with pytest.raises(GuestError, match="/dev/sda2 cannot be written to") as caught:
        Guest(handle).mount_windows("/dev/sda2", recover=recover)
    assert "shut the template down fully" in caught.value.remedy
    assert handle.calls[-1] == "umount_all"
