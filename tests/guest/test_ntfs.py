"""NTFS of Windows disks, over real volumes: what state they are in, growth, moves, additions."""

from __future__ import annotations

import os
import struct
import subprocess
from typing import TYPE_CHECKING

import pytest

from snf_core.errors import GuestError
from snf_core.image import layout, ntfs
from snf_core.image.customization import Customization
from snf_core.image.disk_tasks import FixPartitionTable
from snf_core.image.properties import Properties
from snf_os_windows.filesystem import FilesystemResizeAfterUmount

if TYPE_CHECKING:
    from pathlib import Path

    from snf_core.image.layout import Partition
    from tests.guest.conftest import Laboratory

MIB = 1 << 20
SECTOR = 512
BASIC = "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7"
RECOVERY = "DE94BBA4-06D1-4D40-A16A-BFD50179D6AC"
RESERVED = "E3C9E316-0B5C-4DB8-817D-F92DF00215AE"
REQUEST = Customization("web1", properties=Properties())


@pytest.fixture(scope="module")
def volume(laboratory: Laboratory) -> str:
    """A partition of 64 MiB that tests make a volume on."""
    [device] = laboratory.partition("/dev/sdb", "gpt", [64])
    return device


@pytest.fixture
def device(laboratory: Laboratory, volume: str) -> str:
    """A clean volume with a file, on 48 of its partition's 64 MiB."""
    laboratory.guest.unmount_all()
    laboratory.guest.reread("/dev/sdb")
    laboratory.handle.mkfs("ntfs", volume)
    laboratory.guest.mount_windows(volume)
    laboratory.handle.mkdir("/Windows")
    laboratory.handle.write("/Windows/File.txt", b"content")
    laboratory.guest.unmount_all()
    laboratory.handle.ntfsresize(volume, size=48 * MIB)
    laboratory.guest.mark_ntfs(volume, dirty=False)
    return volume


class TestStates:
    def test_clean(self, laboratory: Laboratory, device: str) -> None:
        guest = laboratory.guest
        assert guest.ntfs_state(device) == "clean"
        found = guest.ntfs(device)
        assert (found.version, found.dirty, found.cluster_size) == ((3, 1), False, 4096)
        assert 48 * MIB - 4096 <= found.size <= 48 * MIB
        assert found.hidden_sectors == 2048
        assert not found.fills(64 * MIB)

    def test_an_unclean_journal(self, laboratory: Laboratory, device: str) -> None:
        guest = laboratory.guest
        break_journal(laboratory, device)
        assert guest.ntfs_state(device) == "unclean"
        with pytest.raises(GuestError, match="was not shut down"):
            guest.mount_windows(device)
        assert laboratory.handle.mounts() == []
        guest.mount_windows(device, read_only=True)
        guest.unmount_all()
        assert guest.ntfs_state(device) == "unclean"
        guest.mount_windows(device, recover=True)
        assert guest.read("/windows/FILE.TXT") == "content"
        guest.unmount_all()
        assert guest.ntfs_state(device) == "clean"

    def test_hibernated(self, laboratory: Laboratory, device: str) -> None:
        """Fast Startup leaves the same behind."""
        guest = laboratory.guest
        guest.mount_windows(device)
        laboratory.handle.write("/hiberfil.sys", b"hibr" + bytes(8188))
        guest.unmount_all()
        assert guest.ntfs_state(device) == "hibernated"
        for recover in (False, True):
            with pytest.raises(GuestError, match="hibernated"):
                guest.mount_windows(device, recover=recover)
        guest.mount_windows(device, read_only=True)
        assert guest.read("/Windows/File.txt") == "content"
        guest.unmount_all()

    def test_one_that_was_resumed(self, laboratory: Laboratory, device: str) -> None:
        guest = laboratory.guest
        guest.mount_windows(device)
        laboratory.handle.write("/hiberfil.sys", b"RSTR" + bytes(8188))
        guest.unmount_all()
        assert guest.ntfs_state(device) == "clean"

    def test_damaged(self, laboratory: Laboratory, device: str) -> None:
        guest, handle = laboratory.guest, laboratory.handle
        place = ntfs.geometry(handle.pread_device(device, SECTOR, 0)).record
        handle.pwrite_device(device, b"BAAD", place)
        with pytest.raises(GuestError, match="no record of the file"):
            guest.ntfs(device)
        assert guest.ntfs_state(device) == "damaged"
        handle.pwrite_device(device, bytes(SECTOR), 0)
        guest.reread("/dev/sdb")
        assert guest.ntfs_state(device) == "damaged"
        with pytest.raises(GuestError, match="no boot sector"):
            guest.ntfs(device)

    def test_encrypted(self, laboratory: Laboratory, device: str) -> None:
        """As BitLocker leaves it: the signature, its identifier, and where its metadata lie."""
        guest = laboratory.guest
        encrypt(laboratory, device)
        guest.reread("/dev/sdb")
        assert guest.filesystem(device) == "BitLocker"
        assert guest.ntfs_state(device) == "encrypted"
        with pytest.raises(GuestError):
            guest.ntfs(device)

    def test_mounted_as_windows_has_it(self, laboratory: Laboratory, device: str) -> None:
        guest = laboratory.guest
        guest.mount_windows(device)
        assert guest.read("/WINDOWS/file.txt") == "content"
        with pytest.raises(RuntimeError, match="Invalid argument"):
            laboratory.handle.write("/Windows/a:b", b"x")
        guest.unmount_all()
        guest.mount_windows(device, read_only=True)
        with pytest.raises(GuestError, match="Read-only"):
            laboratory.guest.write("/Windows/New.txt", "x")
        guest.unmount_all()


class TestGrowth:
    def test_it_fills_its_partition_and_has_windows_check_it(
        self, laboratory: Laboratory, device: str
    ) -> None:
        guest = laboratory.guest
        guest.grow_ntfs(device)
        grown = guest.ntfs(device)
        assert grown.fills(64 * MIB)
        assert grown.dirty
        assert guest.ntfs_state(device) == "clean"
        with pytest.raises(GuestError, match="scheduled for check"):
            guest.grow_ntfs(device)

    def test_without_a_check(self, laboratory: Laboratory, device: str) -> None:
        guest, handle = laboratory.guest, laboratory.handle
        guest.grow_ntfs(device)
        found = ntfs.geometry(handle.pread_device(device, SECTOR, 0))
        before = handle.pread_device(device, found.record_size, found.record)
        guest.mark_ntfs(device, dirty=False)
        assert not guest.ntfs(device).dirty
        after = [
            handle.pread_device(device, found.record_size, place)
            for place in (found.record, found.mirror)
        ]
        assert after[0] == after[1]
        differing = sum(one != other for one, other in zip(before, after[0], strict=True))
        assert 0 < differing <= 2 + 2 * (found.record_size // SECTOR) + 2, "more than it needs"
        guest.grow_ntfs(device)  # which refuses a volume that is to be checked, or damaged
        guest.mount_windows(device)
        assert guest.read("/Windows/File.txt") == "content"
        guest.unmount_all()

    @pytest.mark.parametrize("check", [True, False])
    def test_by_the_task(self, laboratory: Laboratory, check: bool) -> None:
        """Twice: the second time, the volume is to be checked first, or grows again."""
        guest = laboratory.guest
        [device] = laboratory.partition("/dev/sda", "mbr", [40])
        laboratory.handle.mkfs("ntfs", device)
        guest.reread("/dev/sda")
        wishes = {"OFFLINE_NTFSRESIZE_NOCHECK": "no" if check else "yes"}
        request = Customization(
            "web1", properties=Properties(wishes), facts={"family": "windows-legacy"}
        )

        def grow(mebibytes: int) -> list[str]:
            end = (mebibytes + 1) * MIB // SECTOR - 1
            guest.grow_table("/dev/sda", [layout.Resize(1, end)])
            return list(FilesystemResizeAfterUmount(None).run(guest, request))

        [warning] = grow(60)
        assert ("does not check" in warning) is not check
        assert guest.ntfs(device).fills(60 * MIB)
        assert guest.ntfs(device).dirty is check
        assert grow(60) == []
        if check:
            with pytest.raises(GuestError, match="is to be checked by Windows before"):
                grow(80)
            assert guest.ntfs(device).fills(60 * MIB)
        else:
            assert len(grow(80)) == 1
            assert guest.ntfs(device).fills(80 * MIB)
        assert guest.ntfs_state(device) == "clean"
        guest.mount_windows(device)
        guest.unmount_all()


class TestWindowsDisk:
    """A disk as the installer lays it out, a recovery partition at its end."""

    @pytest.mark.parametrize("label", ["gpt", "mbr"])
    def test_what_is_behind_windows_moves(self, laboratory: Laboratory, label: str) -> None:
        guest = laboratory.guest
        windows, recovery = lay_out(laboratory, label)
        before = content(laboratory, recovery)
        old = dump(laboratory)
        warnings = list(FixPartitionTable(None).run(guest, REQUEST))

        assert len(warnings) == 3
        now = {partition.number: partition for partition in guest.partitions()}
        assert now[recovery.number].end == 2047 * MIB - 1
        assert now[recovery.number].size == recovery.size
        assert now[windows.number].start == windows.start
        assert now[windows.number].end == now[recovery.number].start - 1
        first = now[recovery.number].start // SECTOR
        after = content(laboratory, now[recovery.number])
        assert after[SECTOR:-SECTOR] == before[SECTOR:-SECTOR], "its content"
        wanted = before[:0x1C] + struct.pack("<L", first) + before[0x20:SECTOR]
        assert after[:SECTOR] == after[-SECTOR:] == wanted, "its boot sectors"
        new = dump(laboratory)
        for line, moved in zip(old, new, strict=True):
            assert unplaced(line) == unplaced(moved), "type, GUID, name, attributes"
        sound(laboratory.disks["/dev/sda"], label)

        device = f"/dev/sda{recovery.number}"
        assert guest.ntfs_state(device) == "clean"
        assert guest.ntfs(device).hidden_sectors == first
        guest.mount_windows(device)
        assert guest.read("/Recovery/WindowsRE/Winre.wim") == "recover " * 1000
        guest.unmount_all()
        device = f"/dev/sda{windows.number}"
        guest.grow_ntfs(device)
        assert guest.ntfs(device).fills(now[windows.number].size)
        assert list(FixPartitionTable(None).run(guest, REQUEST)) == []
        assert guest.partitions() == tuple(now[p.number] for p in guest.partitions())

    @pytest.mark.parametrize("label", ["gpt", "mbr"])
    def test_a_partition_is_added_behind(self, laboratory: Laboratory, label: str) -> None:
        """While nothing is mounted, though Windows was just before."""
        guest = laboratory.guest
        windows, recovery = lay_out(laboratory, label)
        list(FixPartitionTable(None).run(guest, REQUEST))
        guest.mount_windows(f"/dev/sda{windows.number}")
        assert guest.list("/") is not None
        guest.unmount_all()
        kind = BASIC.lower() if label == "gpt" else "01"
        number = guest.add_partition("/dev/sda", sectors=1792, type=kind, name=layout.SEED_NAME)
        device = f"/dev/sda{number}"
        guest.format_fat(device, "cidata")
        assert guest.filesystem(device) == "vfat"
        assert guest.find_filesystem("LABEL", "cidata") == device
        guest.mount(device, "/")
        guest.write("/meta-data", "instance-id: x\n")
        guest.make_directory("/openstack/latest")
        guest.write("/openstack/latest/user_data", "u" * 800_000)
        guest.unmount_all()
        guest.mount(device, "/", read_only=True)
        assert guest.read("/meta-data") == "instance-id: x\n"
        assert guest.read("/openstack/latest/user_data") == "u" * 800_000
        guest.unmount_all()
        assert laboratory.handle.blkid(device)["VERSION"] == "FAT12"
        assert layout.last_data_partition(guest.table("/dev/sda")).number == windows.number
        guest.mount_windows(f"/dev/sda{recovery.number}", read_only=True)
        guest.unmount_all()
        sound(laboratory.disks["/dev/sda"], label)


def lay_out(laboratory: Laboratory, label: str) -> tuple[Partition, Partition]:
    """Windows's partition and, 50 MiB and last, its recovery partition, on /dev/sda."""
    laboratory.blank("/dev/sda")
    if label == "gpt":
        script = (
            'label: gpt\nsize=32MiB, type=U, name="EFI system partition"\n'
            f'size=16MiB, type={RESERVED}, name="Microsoft reserved partition"\n'
            f'size=300MiB, type={BASIC}, name="Basic data partition"\n'
            f'size=50MiB, type={RECOVERY}, attrs="RequiredPartition GUID:63", name="R"\n'
        )
        numbers = (3, 4)
    else:
        script = "label: dos\nsize=50MiB, type=7, bootable\nsize=300MiB, type=7\n"
        script += "size=50MiB, type=27\n"
        numbers = (2, 3)
    run("sfdisk", "--quiet", laboratory.disks["/dev/sda"], script=script)
    guest = laboratory.guest
    guest.reread("/dev/sda")
    partitions = {partition.number: partition for partition in guest.partitions()}
    guest.filesystem("/dev/sda1")  # the appliance's kernel learns of them
    for number in numbers:
        laboratory.handle.mkfs("ntfs", f"/dev/sda{number}")
    guest.mount_windows(f"/dev/sda{numbers[1]}")
    guest.make_directory("/Recovery/WindowsRE")
    guest.write("/Recovery/WindowsRE/Winre.wim", "recover " * 1000)
    guest.unmount_all()
    return partitions[numbers[0]], partitions[numbers[1]]


def content(laboratory: Laboratory, partition: Partition) -> bytes:
    """What a partition holds, as the disk behind the appliance has it."""
    laboratory.guest.flush()
    with laboratory.disks["/dev/sda"].open("rb") as file:
        return os.pread(file.fileno(), partition.size, partition.start)


def dump(laboratory: Laboratory) -> list[str]:
    """The partitions, as sfdisk reads them."""
    laboratory.guest.flush()
    return run("sfdisk", "--dump", laboratory.disks["/dev/sda"]).split("\n\n")[1].splitlines()


def unplaced(line: str) -> list[str]:
    """What is said of a partition beside its place."""
    return [word for word in line.split(", ") if "start=" not in word and "size=" not in word]


def run(*command: str | Path, script: str | None = None) -> str:
    """What a program prints. Fails with what it complains about."""
    done = subprocess.run(
        command, input=script, text=True, capture_output=True, check=False, timeout=60
    )
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout


def sound(disk: Path, label: str) -> None:
    """All tools are content with a disk's table."""
    run("sfdisk", "--verify", "--quiet", disk)
    run("parted", "--script", disk, "print")
    if label == "gpt":
        assert "No problems found" in run("sgdisk", "--verify", disk)


def break_journal(laboratory: Laboratory, device: str) -> None:
    """Have $LogFile say that Windows holds the volume: in use by one client, and not clean."""
    handle = laboratory.handle
    found = ntfs.geometry(handle.pread_device(device, SECTOR, 0))
    place, size = log_file(handle.pread_device(device, found.record_size, found.record - 1024))
    page = bytearray(4096)
    # The restart page and its update sequence of nine words, at 0x1E; the restart area at 0x30.
    struct.pack_into("<4sHHQLLHhh", page, 0, b"RSTR", 0x1E, 9, 0, 4096, 4096, 0x30, 1, 1)
    bits = 67 - size.bit_length()
    area = (4096 << 3 | 1, 1, 0xFFFF, 0, 0, bits, 0x30 + 160, 0x30, size, 0, 0x30, 0x40, 1, 0)
    struct.pack_into("<QHHHHLHHqLHHLL", page, 0x30, *area)
    client = (0, 4096 << 3 | 1, 0xFFFF, 0xFFFF, 0, 8, "NTFS".encode("utf-16-le"))
    struct.pack_into("<QQHHH6xL128s", page, 0x60, *client)
    for index in range(9):
        if index:
            end = index * SECTOR
            page[0x1E + 2 * index : 0x20 + 2 * index] = page[end - 2 : end]
            page[end - 2 : end] = b"\x01\0"
        else:
            page[0x1E:0x20] = b"\x01\0"
    handle.pwrite_device(device, bytes(page) * 2, place * found.cluster_size)
    handle.sync()


def log_file(record: bytes) -> tuple[int, int]:
    """The first cluster and the bytes of the file that a record describes, in one piece."""
    assert record[:4] == b"FILE"
    (offset,) = struct.unpack_from("<H", record, 0x14)
    while struct.unpack_from("<L", record, offset)[0] != 0x80:
        offset += struct.unpack_from("<L", record, offset + 4)[0]
    (runs,) = struct.unpack_from("<H", record, offset + 0x20)
    (size,) = struct.unpack_from("<Q", record, offset + 0x30)
    lengths = record[offset + runs]
    begin = offset + runs + 1 + (lengths & 15)
    return int.from_bytes(record[begin : begin + (lengths >> 4)], "little"), size


def encrypt(laboratory: Laboratory, device: str) -> None:
    """What blkid(8) knows BitLocker by."""
    identifier = bytes.fromhex("3bd66749292ed84a8399f6a339e3d001")
    boot = bytearray(laboratory.handle.pread_device(device, SECTOR, 0))
    boot[:11] = b"\xeb\x58\x90-FVE-FS-"
    boot[0xA0:0xB0] = identifier
    struct.pack_into("<Q", boot, 0xB0, 0x10000)
    laboratory.handle.pwrite_device(device, bytes(boot), 0)
    header = b"-FVE-FS-" + struct.pack("<HH", 64, 2)
    laboratory.handle.pwrite_device(device, header.ljust(112, b"\0"), 0x10000)
    laboratory.handle.sync()
