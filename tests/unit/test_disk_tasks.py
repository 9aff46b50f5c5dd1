"""The tasks that every guest has, on a disk in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from snf_core.contract import Stage
from snf_core.errors import GuestError
from snf_core.image.customization import Customization
from snf_core.image.disk_tasks import FilesystemResizeUnmounted, FixPartitionTable, UmountImage
from snf_core.image.layout import Partition, Table
from snf_core.image.properties import Properties
from tests.fakes.guest import FakeGuest, filesystem

if TYPE_CHECKING:
    from snf_core.contract import Task
    from snf_core.image.guest import Guest

GIB = 1 << 30
MIB = 1 << 20
REQUEST = Customization("web1", properties=Properties())


def guest(kind: str = "ext4", label: str = "gpt", end: int = 500 * MIB) -> FakeGuest:
    """A disk of 1 GiB with two partitions, the second of which holds ``kind``."""
    made = FakeGuest({"/dev/sda1": filesystem({}, "vfat"), "/dev/sda2": filesystem({}, kind)})
    made.disk = Table(
        label,
        GIB,
        512,
        (Partition(1, MIB, 9 * MIB - 1, "83"), Partition(2, 9 * MIB, end - 1, "83")),
    )
    return made


def run(task: type[Task], on: FakeGuest) -> list[str]:
    """The task's warnings."""
    return list(task(None).run(cast("Guest", on), REQUEST))


def test_a_gpt_is_moved_and_grown() -> None:
    disk = guest()
    assert run(FixPartitionTable, disk) == []
    assert disk.calls == [
        ("move_backup_header", "/dev/sda"),
        ("resize_partition", "/dev/sda", 2, 2095103),
    ]
    disk.calls.clear()
    assert run(FixPartitionTable, disk) == []
    assert disk.calls == [], "nothing is left to be done"


def test_an_mbr_is_grown() -> None:
    disk = guest(label="msdos")
    run(FixPartitionTable, disk)
    assert disk.calls == [("resize_partition", "/dev/sda", 2, 2095103)]


def test_a_disk_of_the_images_size_is_left_alone() -> None:
    disk = guest(end=GIB - MIB)
    run(FixPartitionTable, disk)
    assert disk.calls == []


@pytest.mark.parametrize("kind", ["ext2", "ext3", "ext4"])
def test_a_clean_ext_is_checked_and_then_grown(kind: str) -> None:
    disk = guest(kind)
    assert run(FilesystemResizeUnmounted, disk) == []
    assert disk.calls == [("check_ext", "/dev/sda2"), ("grow_ext", "/dev/sda2")]


def test_a_journal_is_replayed_with_a_warning() -> None:
    disk = guest()
    disk.superblock["Filesystem features"] = "has_journal needs_recovery extent"
    assert len(run(FilesystemResizeUnmounted, disk)) == 1
    assert ("grow_ext", "/dev/sda2") in disk.calls


@pytest.mark.parametrize("state", ["not clean", "clean with errors", "not clean with errors", ""])
def test_an_unclean_ext_is_never_touched(state: str) -> None:
    disk = guest()
    disk.superblock["Filesystem state"] = state
    with pytest.raises(GuestError, match=r"partition 2 is .*, not clean") as caught:
        run(FilesystemResizeUnmounted, disk)
    assert disk.calls == []
    assert "shut the template machine down" in caught.value.remedy


@pytest.mark.parametrize("kind", ["xfs", "btrfs", "ntfs"])
def test_what_other_tasks_grow_is_no_reason_for_a_warning(kind: str) -> None:
    disk = guest(kind)
    assert run(FilesystemResizeUnmounted, disk) == []
    assert disk.calls == []


@pytest.mark.parametrize(
    ("kind", "named"), [("swap", "swap"), ("LVM2_member", "LVM2_member"), ("", "no file system")]
)
def test_what_nobody_grows_is_said(kind: str, named: str) -> None:
    disk = guest(kind)
    assert run(FilesystemResizeUnmounted, disk) == [
        f"the last partition holds {named}, which is not grown"
    ]
    assert disk.calls == []


def test_unmounting() -> None:
    mounted = FakeGuest.mounted({"/etc/fstab": ""})
    assert run(UmountImage, mounted) == []
    assert not mounted.mounts


def test_their_places_and_exclusions() -> None:
    assert FixPartitionTable.stage is FilesystemResizeUnmounted.stage is Stage.BEFORE_MOUNT
    assert "FixPartitionTable" in FilesystemResizeUnmounted.after
    assert FilesystemResizeUnmounted.resizes
    assert not FixPartitionTable.resizes
    assert UmountImage.stage is Stage.UNMOUNT
    assert not UmountImage.excludable
