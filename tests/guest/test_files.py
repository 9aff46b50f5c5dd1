"""Many of a guest's files at once, over real file systems, some of which mean harm."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from snf_core.errors import GuestError
from snf_core.image.customization import File
from snf_core.image.files import ARCHIVED
from tests.guest.conftest import started

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from snf_core.appliance import Appliance, Launcher
    from snf_core.image.guest import Guest
    from tests.guest.conftest import Laboratory

LABEL = "system_u:object_r:shadow_t:s0"
OTHER_LABEL = "system_u:object_r:etc_t:s0"
COUNTS = (3, ARCHIVED + 3)
"""Files sent one by one, and as an archive."""

several = pytest.mark.parametrize("count", COUNTS)


@pytest.fixture(scope="module")
def root(laboratory: Laboratory) -> Laboratory:
    """An ext4 file system; tests use a directory of their own in it."""
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


def _files(count: int, directory: str = "/t") -> list[File]:
    return [File(f"{directory}/file{index}", f"{index}\n") for index in range(count)]


def _attributes(laboratory: Laboratory, path: str) -> tuple[int, int, int, int]:
    found = laboratory.handle.lstatns(path)
    return found["st_mode"], found["st_uid"], found["st_gid"], found["st_size"]


def _label(laboratory: Laboratory, path: str) -> str:
    for attribute in laboratory.handle.lgetxattrs(path):
        if attribute["attrname"] == "security.selinux":
            return str(attribute["attrval"].rstrip(b"\0").decode())
    return ""


def _assert_nothing_left(laboratory: Laboratory, names: Sequence[str]) -> None:
    assert laboratory.handle.find("/t/") == sorted(names)


def _fits(laboratory: Laboratory, size: int) -> bool:
    """Take up so many bytes of the mounted file system, if there are as many."""
    try:
        laboratory.handle.fallocate64(f"/t/ballast{size}", size)
    except RuntimeError:
        laboratory.handle.rm_f(f"/t/ballast{size}")
        return False
    return True


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_five_hundred_files(laboratory: Laboratory, kind: str) -> None:
    """New and replaced ones, in two directories, on two file systems, with all their attributes."""
    first, second = laboratory.partition("/dev/sda", "gpt", [400, 400])
    handle, guest = laboratory.handle, laboratory.guest
    for device in (first, second):
        handle.mkfs(kind, device)
    guest.mount(first, "/")
    for path in ("/many", "/few", "/other"):
        handle.mkdir(path)
    guest.mount(second, "/other")
    handle.lsetxattr("security.selinux", OTHER_LABEL, len(OTHER_LABEL), "/many")
    for path in ("/many/file7", "/few/kept"):
        handle.write(path, b"old")
        handle.chmod(0o640, path)
        handle.chown(7, 42, path)
        handle.lsetxattr("security.selinux", LABEL, len(LABEL), path)
    content = "\udcff\0" * 1000
    try:
        guest.write_files(
            [
                *_files(500, "/many"),
                File("/many/a\n'b\" $(c)", content, 0o4750, (1 << 31, 1001)),
                File("/few/kept", "new"),
                *_files(ARCHIVED, "/other"),
            ]
        )
        assert len(handle.ls("/many")) == 501
        assert handle.ls("/few") == ["kept"]
        assert len(set(handle.ls("/other")) - {"lost+found"}) == ARCHIVED
        for index in range(0, 500, 99):
            path = f"/many/file{index}"
            assert handle.read_file(path) == f"{index}\n".encode()
            size = len(f"{index}\n")
            assert _attributes(laboratory, path) == (0o100644, 0, 0, size)
            assert _label(laboratory, path) == OTHER_LABEL
        odd = "/many/a\n'b\" $(c)"
        assert handle.read_file(odd) == content.encode(errors="surrogateescape")
        assert _attributes(laboratory, odd) == (0o104750, 1 << 31, 1001, 2000)
        for path in ("/many/file7", "/few/kept"):
            assert _attributes(laboratory, path)[:3] == (0o100640, 7, 42)
            assert _label(laboratory, path) == LABEL
        assert _label(laboratory, "/other/file1") == ""
    finally:
        guest.unmount_all()


class TestHostileTrees:
    @several
    def test_linked_directory(self, guest: Guest, root: Laboratory, count: int) -> None:
        root.handle.mkdir("/t/real")
        root.handle.ln_s("/t/real", "/t/link")
        with pytest.raises(GuestError, match="/t/link in the guest is a symbolic link"):
            guest.write_files([*_files(count), *_files(count, "/t/link")])
        _assert_nothing_left(root, ["link", "real"])

    @several
    def test_directory_in_the_way_of_one(self, guest: Guest, root: Laboratory, count: int) -> None:
        root.handle.mkdir("/t/file1")
        with pytest.raises(GuestError, match="/t/file1 in the guest is a directory"):
            guest.write_files(_files(count))
        _assert_nothing_left(root, ["file1"])

    @several
    def test_what_is_no_file_is_replaced_and_not_opened(
        self, guest: Guest, root: Laboratory, count: int
    ) -> None:
        root.handle.mkfifo(0o600, "/t/file0")
        root.handle.mknod_c(0o600, 1, 5, "/t/file1")
        root.handle.write("/t/victim", b"untouched")
        root.handle.ln_s("/t/victim", "/t/file2")
        guest.write_files(_files(count))
        for index in range(3):
            assert _attributes(root, f"/t/file{index}") == (0o100644, 0, 0, 2)
        assert guest.read("/t/victim") == "untouched"

    @several
    def test_immutable_directory(self, guest: Guest, root: Laboratory, count: int) -> None:
        root.handle.mkdir("/t/stone")
        root.handle.set_e2attrs("/t/stone", "i")
        try:
            with pytest.raises(GuestError, match="Operation not permitted"):
                guest.write_files([*_files(count), *_files(count, "/t/stone")])
            _assert_nothing_left(root, ["stone"])
        finally:
            root.handle.set_e2attrs("/t/stone", "i", clear=True)

    @several
    def test_immutable_file(self, guest: Guest, root: Laboratory, count: int) -> None:
        """What is renamed already stays; of the rest nothing does."""
        root.handle.write("/t/file1", b"stone")
        root.handle.set_e2attrs("/t/file1", "i")
        try:
            with pytest.raises(GuestError, match=r"rename .* Operation not permitted"):
                guest.write_files(_files(count))
            _assert_nothing_left(root, ["file0", "file1"])
            assert guest.read("/t/file1") == "stone"
        finally:
            root.handle.set_e2attrs("/t/file1", "i", clear=True)

    @several
    def test_directory_that_hands_attributes_down(
        self, guest: Guest, root: Laboratory, count: int
    ) -> None:
        root.handle.chown(0, 42, "/t")
        root.handle.chmod(0o2775, "/t")
        root.guest.unmount_all()
        guest.mount("/dev/sdb1", "/", "acl")
        root.handle.acl_set_file("/t", "default", "u::rwx,g::rwx,o::rwx")
        guest.write_files([*_files(count), File("/t/setuid", "x", 0o4711, (5, 6))])
        assert _attributes(root, "/t/file0") == (0o100644, 0, 0, 2)
        assert _attributes(root, "/t/setuid") == (0o104711, 5, 6, 1)

    @several
    def test_full_file_system(self, guest: Guest, root: Laboratory, count: int) -> None:
        guest.write("/t/file0", "old")
        sizes = [1 << power for power in range(27, 16, -1) if _fits(root, 1 << power)]
        with pytest.raises(GuestError, match="No space left"):
            guest.write_files(File(file.path, "x" * (1 << 17)) for file in _files(count))
        assert guest.read("/t/file0") == "old"
        _assert_nothing_left(root, ["file0", *(f"ballast{size}" for size in sizes)])

    def test_nested_subvolume(self, laboratory: Laboratory) -> None:
        """A file cannot be renamed into it from without."""
        [device] = laboratory.partition("/dev/sda", "gpt", [400])
        laboratory.handle.mkfs("btrfs", device)
        laboratory.guest.mount(device, "/")
        try:
            laboratory.handle.btrfs_subvolume_create("/nested")
            laboratory.guest.write_files(_files(ARCHIVED, "/nested"))
            assert len(laboratory.handle.ls("/nested")) == ARCHIVED
        finally:
            laboratory.guest.unmount_all()


class TestLists:
    def test_statuses(self, guest: Guest, root: Laboratory) -> None:
        guest.write_files([File("/t/one", "1"), File("/t/a\nb", "two")])
        root.handle.mkdir("/t/real")
        root.handle.write("/t/real/inside", b"x")
        root.handle.ln_s("/t/real", "/t/link")
        root.handle.ln_s("../../../../../init", "/t/outside")
        root.handle.ln_s("../../../../../usr", "/t/up")
        root.handle.mkfifo(0o600, "/t/pipe")
        paths = ["/t/one", "/t//a\nb", "/t/link", "/t/link/inside", "/t/outside", "/"]
        absent = ["/t/none", "/none/at/all", "/t/one/inside", "/t/pipe/inside", "/t/up/bin"]
        found = guest.statuses([*paths, *absent])
        assert list(found) == sorted(paths, key=[*found].index)
        assert set(found) == set(paths)
        assert [found[path].size for path in ("/t/one", "/t//a\nb", "/t/link/inside")] == [1, 3, 1]
        assert found["/t/link"].is_symlink
        assert found["/t/outside"].is_symlink
        assert found["/"].is_directory
        assert guest.status("/t/up/bin") is None
        for path in ("relative", "/t/../one", "/t/\0"):
            with pytest.raises(GuestError, match="not a plain absolute path"):
                guest.statuses([path])

    def test_link_targets(self, guest: Guest, root: Laboratory) -> None:
        guest.write("/t/file", "x")
        root.handle.ln_s("/some where", "/t/link")
        root.handle.mkdir("/t/real")
        root.handle.ln_s("../../..", "/t/real/up")
        paths = ["/t/file", "/t/link", "/t/none", "/none/link", "/t/real/up", "/t/real"]
        assert guest.link_targets(paths) == {"/t/link": "/some where", "/t/real/up": "../../.."}
        assert guest.link_target("/t/link") == "/some where"
        with pytest.raises(GuestError, match="/t/file in the guest is not a symbolic link"):
            guest.link_target("/t/file")

    def test_listing_stays_inside(self, guest: Guest, root: Laboratory) -> None:
        root.handle.mkdir("/t/real")
        root.handle.touch("/t/real/inside")
        root.handle.ln_s("/t/real", "/t/link")
        root.handle.ln_s("../../../usr", "/t/up")
        root.handle.ln_s("loop", "/t/loop")
        root.handle.mkfifo(0o600, "/t/pipe")
        assert guest.list("/t/link") == ["inside"]
        for path in ("/t/up", "/t/loop", "/t/pipe", "/t/none"):
            assert guest.list(path) == []


def test_what_is_unmounted_is_on_the_disk(
    appliance: Appliance, launcher: Launcher, tmp_path: Path
) -> None:
    """As seen by whoever made the appliance's disk, however the appliance ends then."""
    with started(appliance, launcher, tmp_path, 1) as laboratory:
        disk = laboratory.disks["/dev/sda"]
        laboratory.handle.mkfs("ext4", "/dev/sda")
        laboratory.guest.mount("/dev/sda", "/")
        laboratory.guest.make_directory("/etc")
        laboratory.guest.write_files(_files(ARCHIVED, "/etc"))
        laboratory.guest.unmount_all()
        os.kill(laboratory.handle.get_pid(), signal.SIGKILL)
    checked = subprocess.run(["e2fsck", "-fn", disk], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout
    for index in (0, ARCHIVED - 1):
        shown = subprocess.run(
            ["debugfs", "-R", f"cat /etc/file{index}", disk],
            capture_output=True,
            text=True,
            check=True,
        )
        assert shown.stdout == f"{index}\n"
