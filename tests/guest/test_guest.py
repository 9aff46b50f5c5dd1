"""The Guest facade over real file systems and partition tables."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest

from snf_core.errors import ApplianceError, GuestError
from snf_core.image import layout
from snf_core.image.customization import Customization
from snf_core.image.disk_tasks import FilesystemResizeUnmounted
from snf_core.image.properties import Properties
from tests.guest.conftest import DISK_BYTES, LINUX_TYPE, started

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from snf_core.appliance import Appliance, Launcher
    from snf_core.image.guest import Guest
    from tests.guest.conftest import Laboratory

SECTOR = 512
MIB = 1 << 20
NAME = "my 'part' \\x20 $a"
LABEL = "system_u:object_r:shadow_t:s0"


@pytest.fixture(scope="module")
def root(laboratory: Laboratory) -> Laboratory:
    """An ext4 file system with a few directories; tests use a directory of their own in it."""
    [device] = laboratory.partition("/dev/sdb", "gpt", [256])
    laboratory.handle.mkfs("ext4", device)
    return laboratory


@pytest.fixture
def guest(root: Laboratory) -> Iterator[Guest]:
    """The file system mounted, with an empty directory /t."""
    root.guest.unmount_all()
    root.guest.mount("/dev/sdb1", "/")
    root.handle.rm_rf("/t")
    root.handle.mkdir("/t")
    yield root.guest
    root.guest.unmount_all()


class TestFiles:
    def test_content_survives_byte_by_byte(self, guest: Guest, root: Laboratory) -> None:
        content = bytes(range(256)) * 1000
        root.handle.write("/t/bytes", content)
        text = guest.read("/t/bytes")
        assert text is not None
        guest.write("/t/copy", text)
        assert root.handle.read_file("/t/copy") == content

    def test_replacing_keeps_owner_mode_and_label(self, guest: Guest, root: Laboratory) -> None:
        root.handle.write("/t/shadow", b"old")
        root.handle.chown(7, 42, "/t/shadow")
        root.handle.chmod(0o640, "/t/shadow")
        root.handle.lsetxattr("security.selinux", LABEL, len(LABEL), "/t/shadow")
        inode = root.handle.lstatns("/t/shadow")["st_ino"]

        guest.write("/t/shadow", "new")

        found = root.handle.lstatns("/t/shadow")
        assert (found["st_mode"] & 0o7777, found["st_uid"], found["st_gid"]) == (0o640, 7, 42)
        assert root.handle.lgetxattr("/t/shadow", "security.selinux") == LABEL.encode()
        assert root.handle.read_file("/t/shadow") == b"new"
        assert found["st_ino"] != inode, "written in place: a crash would leave half a file"
        assert root.handle.ls("/t") == ["shadow"], "a temporary file is left"

    def test_new_file_takes_the_label_of_its_directory(
        self, guest: Guest, root: Laboratory
    ) -> None:
        root.handle.lsetxattr("security.selinux", LABEL, len(LABEL), "/t")
        guest.write("/t/new", "x", mode=0o600, owner=(1000, 1001))
        guest.make_directory("/t/directory")
        guest.symlink("new", "/t/link")
        for name in ("new", "directory", "link"):
            assert root.handle.lgetxattr(f"/t/{name}", "security.selinux") == LABEL.encode()
        status = guest.status("/t/new")
        assert status is not None
        assert (status.mode & 0o7777, status.uid, status.gid) == (0o600, 1000, 1001)

    def test_nothing_is_written_through_a_linked_directory(
        self, guest: Guest, root: Laboratory
    ) -> None:
        root.handle.mkdir("/t/real")
        root.handle.ln_s("/t/real", "/t/link")
        refused = pytest.raises(GuestError, match="/t/link in the guest is a symbolic link")
        with refused:
            guest.write("/t/link/file", "x")
        with refused:
            guest.make_directory("/t/link/directory")
        with refused:
            guest.symlink("x", "/t/link/symlink")
        with refused:
            guest.mount("/dev/sdb1", "/t/link")
        root.handle.write("/t/real/victim", b"x")
        with pytest.raises(GuestError, match="symbolic link"):
            guest.remove("/t/link/victim")
        assert root.handle.ls("/t/real") == ["victim"]

    def test_link_is_replaced_and_not_followed(self, guest: Guest, root: Laboratory) -> None:
        root.handle.write("/t/victim", b"untouched")
        root.handle.ln_s("/t/victim", "/t/link")
        guest.write("/t/link", "mine")
        assert guest.is_file("/t/link")
        assert guest.read("/t/link") == "mine"
        assert guest.read("/t/victim") == "untouched"

    def test_symlink_replaces_a_link_to_a_directory(self, guest: Guest, root: Laboratory) -> None:
        root.handle.mkdir("/t/real")
        root.handle.ln_s("/t/real", "/t/link")
        guest.symlink("/somewhere", "/t/link")
        assert guest.link_target("/t/link") == "/somewhere"
        assert root.handle.ls("/t/real") == []

    @pytest.mark.parametrize("kind", ["fifo", "device", "directory", "huge"])
    def test_reading_what_is_no_file_of_reasonable_size_is_refused(
        self, guest: Guest, root: Laboratory, kind: str
    ) -> None:
        if kind == "fifo":
            root.handle.mkfifo(0o644, "/t/x")
        elif kind == "device":
            root.handle.mknod_c(0o644, 1, 5, "/t/x")
        elif kind == "directory":
            root.handle.mkdir("/t/x")
        else:
            root.handle.touch("/t/x")
            root.handle.truncate_size("/t/x", 1 << 30)
        with pytest.raises(GuestError, match="/t/x in the guest is"):
            guest.read("/t/x")

    def test_reading_follows_links_inside_the_guest_only(
        self, guest: Guest, root: Laboratory
    ) -> None:
        root.handle.write("/t/real", b"of the guest")
        root.handle.ln_s("/t/real", "/t/absolute")
        root.handle.ln_s("../../../../../../init", "/t/outside")
        root.handle.ln_s("loop", "/t/loop")
        assert guest.read("/t/absolute") == "of the guest"
        assert guest.read("/t/outside") is None
        assert guest.read("/t/loop") is None
        assert guest.read("/t/none/at/all") is None

    @pytest.mark.parametrize("path", ["relative", "/t/../etc/passwd", "/t/\0", "/t/\udcff", ""])
    def test_unusable_paths(self, guest: Guest, path: str) -> None:
        for use in (guest.read, guest.status, guest.remove, guest.list):
            with pytest.raises(GuestError, match="not a plain absolute path"):
                use(path)

    def test_name_that_is_not_text(self, guest: Guest, root: Laboratory) -> None:
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            tar.addfile(tarfile.TarInfo("t/\udcff"))
        (root.disks["/dev/sda"].parent / "name.tar").write_bytes(archive.getvalue())
        root.handle.tar_in(str(root.disks["/dev/sda"].parent / "name.tar"), "/")
        with pytest.raises(GuestError, match="unusable name"):
            guest.list("/t")

    def test_missing_parent_and_directory_in_the_way(self, guest: Guest) -> None:
        with pytest.raises(GuestError, match="/t/missing in the guest is not a directory"):
            guest.write("/t/missing/file", "x")
        guest.make_directory("/t/directory")
        with pytest.raises(GuestError, match="is a directory"):
            guest.write("/t/directory", "x")
        with pytest.raises(GuestError, match="directory"):
            guest.symlink("x", "/t/directory")
        assert guest.list("/t") == ["directory"]

    def test_full_file_system(self, guest: Guest, root: Laboratory) -> None:
        guest.write("/t/file", "old")
        sizes = [size for size in (1 << power for power in range(28, 15, -1)) if _fits(root, size)]
        content = "x" * (1 << 20)
        with pytest.raises(GuestError, match="No space left"):
            guest.write("/t/file", content)
        assert guest.read("/t/file") == "old"
        assert guest.list("/t") == sorted(["file", *(f"ballast{size}" for size in sizes)])

    def test_directories(self, guest: Guest) -> None:
        guest.make_directory("/t/a/b", mode=0o700, owner=(5, 6))
        status, parent = guest.status("/t/a/b"), guest.status("/t/a")
        assert status is not None
        assert parent is not None
        assert (status.mode & 0o7777, status.uid, status.gid) == (0o700, 5, 6)
        assert (parent.mode & 0o7777, parent.uid, parent.gid) == (0o755, 0, 0)
        guest.make_directory("/t/a/b", mode=0o755)
        assert guest.status("/t/a/b") == status, "an existing directory was changed"
        assert guest.list("/t/a") == ["b"]
        assert guest.list("/t/none") == []


def _fits(laboratory: Laboratory, size: int) -> bool:
    """Take up so many bytes of the mounted file system, if there are as many."""
    try:
        laboratory.handle.fallocate64(f"/t/ballast{size}", size)
    except RuntimeError:
        laboratory.handle.rm_f(f"/t/ballast{size}")
        return False
    return True


class TestLookups:
    def test_gpt(self, laboratory: Laboratory) -> None:
        one, two = laboratory.partition("/dev/sda", "gpt", [32, 32])
        handle, guest = laboratory.handle, laboratory.guest
        handle.mkfs("ext4", one, label="a label")
        handle.mkfs("ext4", two)
        subprocess.run(
            ["sfdisk", "--part-label", laboratory.disks["/dev/sda"], "2", NAME],
            check=True,
            capture_output=True,
        )
        guest.reread("/dev/sda")
        uuid = handle.vfs_uuid(two)
        guid = handle.part_get_gpt_guid("/dev/sda", 2)
        assert guest.find_filesystem("LABEL", "a label") == one
        assert guest.find_filesystem("UUID", uuid) == two
        assert guest.find_filesystem("PARTLABEL", NAME) == two
        assert guest.find_filesystem("PARTUUID", guid.lower()) == two
        assert guest.find_filesystem("PARTUUID", guid.upper()) == two
        for attribute in ("LABEL", "UUID", "PARTLABEL", "PARTUUID"):
            for value in ("nothing", "a\0b\udcff"):
                assert guest.find_filesystem(attribute, value) is None
        assert guest.filesystem(one) == "ext4"

    def test_mbr(self, laboratory: Laboratory) -> None:
        [one] = laboratory.partition("/dev/sda", "mbr", [32])
        laboratory.handle.pwrite_device("/dev/sda", bytes.fromhex("78563412"), 440)
        laboratory.guest.reread("/dev/sda")
        assert laboratory.guest.find_filesystem("PARTUUID", "12345678-01") == one
        assert laboratory.guest.filesystem(one) == ""


def _sfdisk(path: Path, size: int, script: str) -> None:
    with path.open("wb") as file:
        file.truncate(size)
    subprocess.run(
        ["sfdisk", "--quiet", path], input=script, text=True, check=True, capture_output=True
    )


def _dump(path: Path) -> str:
    done = subprocess.run(["sfdisk", "--dump", path], text=True, check=True, capture_output=True)
    return done.stdout


def _put(laboratory: Laboratory, small: Path) -> None:
    """Let the larger disk begin with what a smaller one holds, as after a deployment."""
    laboratory.blank("/dev/sda")
    size = small.stat().st_size
    with small.open("rb") as file:
        for offset in (0, size - MIB):
            file.seek(offset)
            laboratory.handle.pwrite_device("/dev/sda", file.read(MIB), offset)
    laboratory.guest.reread("/dev/sda")


def _grow(guest: Guest) -> None:
    guest.grow_table("/dev/sda", layout.grow(guest.table("/dev/sda")))


LAST_SECTOR = DISK_BYTES // SECTOR - layout.RESERVED - 1


class TestGrowth:
    def test_gpt(self, laboratory: Laboratory, tmp_path: Path) -> None:
        # Numbers have a gap and do not follow the disk's order.
        _sfdisk(
            tmp_path / "small",
            256 * MIB,
            "label: gpt\nunit: sectors\n"
            "5 : start=2048, size=8192, name=esp, type=U\n"
            f'2 : start=10240, size=262144, name="my root", type={LINUX_TYPE}, '
            "attrs=LegacyBIOSBootable\n",
        )
        before = _dump(tmp_path / "small")
        _put(laboratory, tmp_path / "small")
        table = laboratory.guest.table("/dev/sda")
        assert [(p.number, p.start // SECTOR, p.size // SECTOR) for p in table.partitions] == [
            (5, 2048, 8192),
            (2, 10240, 262144),
        ]
        assert (table.label, table.size) == ("gpt", DISK_BYTES)
        assert table.partitions[1].type == LINUX_TYPE

        _grow(laboratory.guest)

        grown = laboratory.guest.table("/dev/sda")
        assert grown.partitions[0] == table.partitions[0]
        assert grown.partitions[1].start == table.partitions[1].start
        assert grown.partitions[1].end == (LAST_SECTOR + 1) * SECTOR - 1
        laboratory.handle.sync()
        after = _dump(laboratory.disks["/dev/sda"])
        for word in ('name="my root"', 'name="esp"', 'attrs="LegacyBIOSBootable"'):
            assert word in before
            assert word in after
        for line in ("label-id", "uuid=", "type="):
            assert _values(before, line) == _values(after, line)
        with laboratory.disks["/dev/sda"].open("rb") as disk:
            disk.seek(DISK_BYTES - SECTOR)
            assert disk.read(8) == b"EFI PART", "no backup header at the end"
        assert layout.grow(grown) == ()
        laboratory.guest.unmount_all()
        for partition in grown.partitions:
            device = f"/dev/sda{partition.number}"
            assert laboratory.handle.blockdev_getsize64(device) == partition.size

    @pytest.mark.parametrize("logical", [False, True])
    def test_mbr(self, laboratory: Laboratory, tmp_path: Path, logical: bool) -> None:
        script = "label: dos\nunit: sectors\n1 : start=2048, size=8192, type=83, bootable\n"
        if logical:
            script += (
                "2 : start=10240, size=200000, type=f\n5 : start=12288, size=190000, type=8e\n"
            )
        else:
            script += "2 : start=10240, size=200000, type=8e\n"
        _sfdisk(tmp_path / "small", 128 * MIB, script)
        before = _dump(tmp_path / "small")
        _put(laboratory, tmp_path / "small")
        if logical:  # its own table lies in the middle of the disk
            with (tmp_path / "small").open("rb") as file:
                file.seek(10240 * SECTOR)
                laboratory.handle.pwrite_device("/dev/sda", file.read(SECTOR), 10240 * SECTOR)
            laboratory.guest.reread("/dev/sda")
        table = laboratory.guest.table("/dev/sda")
        assert table.label == "msdos"

        _grow(laboratory.guest)

        grown = laboratory.guest.table("/dev/sda")
        assert [(p.number, p.start, p.type) for p in grown.partitions] == [
            (p.number, p.start, p.type) for p in table.partitions
        ]
        ends = [(p.end + 1) // SECTOR - 1 for p in grown.partitions]
        assert ends == [10239, *([LAST_SECTOR] * (2 if logical else 1))]
        laboratory.handle.sync()
        after = _dump(laboratory.disks["/dev/sda"])
        assert "bootable" in after
        assert _values(before, "label-id") == _values(after, "label-id")

    @pytest.mark.parametrize(
        ("kind", "options", "mounted"),
        [
            ("ext2", (), True),
            ("ext3", (), True),
            ("ext4", (), True),
            ("ext4", ("-b", "1024"), True),
            ("ext4", ("-O", "^64bit,^metadata_csum,uninit_bg"), True),
            ("ext4", ("-O", "^has_journal"), True),
            ("ext2", ("-O", "^resize_inode"), False),
            ("ext4", ("-O", "meta_bg,^resize_inode"), False),
            ("ext4", ("-O", "inline_data,quota"), False),
        ],
    )
    def test_file_system_follows(
        self,
        laboratory: Laboratory,
        tmp_path: Path,
        kind: str,
        options: tuple[str, ...],
        mounted: bool,
    ) -> None:
        _sfdisk(tmp_path / "small", 128 * MIB, "label: gpt\n1 : start=2048, size=100000\n")
        _put(laboratory, tmp_path / "small")
        _make_ext(laboratory, tmp_path / "fs", kind, options)
        guest, handle = laboratory.guest, laboratory.handle
        guest.reread("/dev/sda")
        guest.mount("/dev/sda1", "/")
        handle.write("/precious", b"data")
        guest.unmount_all()
        _grow(guest)
        device, size = "/dev/sda1", guest.partitions()[0].size
        assert guest.filesystem(device) == handle.vfs_type(device) == kind
        assert (guest.ext_superblock(device).grows_to >= size) == mounted
        assert not guest.ext_superblock(device).fills(size)
        features = handle.tune2fs_l(device)["Filesystem features"]

        task = FilesystemResizeUnmounted(None)
        assert list(task.run(guest, Customization("web1", properties=Properties()))) == []
        guest.unmount_all()

        state = handle.tune2fs_l(device)
        superblock = guest.ext_superblock(device)
        assert superblock.fills(size)
        assert superblock.size == int(state["Block count"]) * int(state["Block size"])
        assert state["Filesystem state"] == superblock.state == "clean"
        assert state["Filesystem features"] == features
        image = f"{laboratory.disks['/dev/sda']}?offset={2048 * SECTOR}"
        subprocess.run(["e2fsck", "-f", "-n", image], check=True, capture_output=True)
        guest.mount(device, "/", read_only=True)
        assert guest.read("/precious") == "data"
        with pytest.raises(GuestError, match="Read-only"):
            guest.write("/new", "x")
        guest.unmount_all()


def _make_ext(laboratory: Laboratory, file: Path, kind: str, options: tuple[str, ...]) -> None:
    """A file system in the first partition, made outside, as that in an image is."""
    with file.open("wb") as new:
        new.truncate(100000 * SECTOR)
    subprocess.run([f"mkfs.{kind}", "-q", *options, file], check=True, capture_output=True)
    with laboratory.disks["/dev/sda"].open("r+b") as disk:
        disk.seek(2048 * SECTOR)
        disk.write(file.read_bytes())


class TestChangeFromOutside:
    """The host copies an image onto the disk after the appliance has seen it, as its udev does."""

    @pytest.mark.parametrize("turn", range(3))
    def test_all_of_it_is_seen(self, laboratory: Laboratory, tmp_path: Path, turn: int) -> None:
        guest, handle = laboratory.guest, laboratory.handle
        [device] = laboratory.partition("/dev/sda", "gpt", [64])
        handle.mkfs("ext4", device)
        guest.reread("/dev/sda")
        assert guest.filesystem(device) == "ext4"
        places = [*range(0, 16 * MIB, 2 * MIB), DISK_BYTES - MIB]
        for place in places:  # now cached, if anything is
            handle.pread_device("/dev/sda", 64 << 10, place)
            handle.pread_device(device, 64 << 10, place % (32 * MIB))

        start = 4096 * (turn + 1) * SECTOR
        _sfdisk(
            tmp_path / "new", 64 * MIB, f"label: dos\n1 : start={start // SECTOR}, size=65536\n"
        )
        content = (tmp_path / "new").read_bytes()[:MIB] + os.urandom(31 * MIB)
        with laboratory.disks["/dev/sda"].open("r+b") as file:
            file.write(content)
            file.seek(DISK_BYTES - MIB)
            file.write(content[-MIB:])

        guest.reread("/dev/sda")
        assert [(p.start, p.size) for p in guest.partitions()] == [(start, 65536 * SECTOR)]
        assert guest.filesystem(device) == ""
        guest.unmount_all()  # before which the kernel reads the table
        assert handle.blockdev_getsize64(device) == 65536 * SECTOR
        for place in places[:-1]:
            for read, offset in (("/dev/sda", place), (device, start + place)):
                found = handle.pread_device(read, 64 << 10, place)
                assert found == content[offset : offset + (64 << 10)], (read, place)
        assert handle.pread_device("/dev/sda", MIB, DISK_BYTES - MIB) == content[-MIB:]


def _values(dump: str, word: str) -> list[str]:
    """What follows a word in a dump of sfdisk, each time it occurs."""
    return [part.replace(":", " ").split()[0].strip(",") for part in dump.split(word)[1:]]


class TestDamage:
    def test_no_table(self, laboratory: Laboratory) -> None:
        laboratory.blank("/dev/sda")
        with pytest.raises(GuestError, match="/dev/sda: the disk has no partition table") as caught:
            laboratory.guest.table("/dev/sda")
        assert "whole-disk image" in caught.value.remedy

    def test_file_system_without_table(self, laboratory: Laboratory) -> None:
        laboratory.blank("/dev/sda")
        laboratory.handle.mkfs("ext4", "/dev/sda")
        laboratory.guest.reread("/dev/sda")
        with pytest.raises(GuestError):
            layout.grow(laboratory.guest.table("/dev/sda"))

    def test_damaged_gpt(self, laboratory: Laboratory) -> None:
        laboratory.partition("/dev/sda", "gpt", [32])
        laboratory.handle.pwrite_device("/dev/sda", b"\xff" * 64, SECTOR)
        laboratory.handle.pwrite_device("/dev/sda", b"\xff" * 64, DISK_BYTES - SECTOR)
        laboratory.guest.reread("/dev/sda")
        with pytest.raises(GuestError, match="/dev/sda: the disk has no partition table, or a dam"):
            laboratory.guest.table("/dev/sda")

    def test_empty_table(self, laboratory: Laboratory) -> None:
        laboratory.partition("/dev/sda", "gpt", [])
        with pytest.raises(GuestError, match="without a partition to grow"):
            layout.grow(laboratory.guest.table("/dev/sda"))

    def test_no_such_device(self, laboratory: Laboratory) -> None:
        with pytest.raises(GuestError, match="/dev/sda99"):
            laboratory.guest.filesystem("/dev/sda99")


def test_dead_appliance(appliance: Appliance, launcher: Launcher, tmp_path: Path) -> None:
    with started(appliance, launcher, tmp_path, 1) as laboratory:
        # The process that libguestfs started is the program itself, which became QEMU.
        os.kill(laboratory.handle.get_pid(), signal.SIGKILL)
        with pytest.raises(ApplianceError, match="the appliance died"):
            laboratory.guest.table("/dev/sda")
        with pytest.raises(ApplianceError, match="the appliance died"):
            laboratory.guest.status("/etc")
