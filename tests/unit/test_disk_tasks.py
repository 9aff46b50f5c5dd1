"""The tasks that every guest has, on a disk in memory."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

import pytest

from snf_core.contract import Stage
from snf_core.errors import GuestError
from snf_core.image.customization import Customization
from snf_core.image.disk_tasks import FilesystemResizeUnmounted, FixPartitionTable, UmountImage
from snf_core.image.layout import Move, Partition, Resize, Table
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
        (Partition(1, MIB, 9 * MIB - 1, "83"), Partition(2, 9 * MIB, end - 1, "83")),
    )
    return made


def run(task: type[Task], on: FakeGuest, request: Customization = REQUEST) -> list[str]:
    """The task's warnings."""
    return list(task(None).run(cast("Guest", on), request))


@pytest.mark.parametrize("label", ["gpt", "msdos"])
def test_a_table_is_grown(label: str) -> None:
    disk = guest(label=label)
    assert run(FixPartitionTable, disk) == []
    assert disk.calls == [("grow_table", "/dev/sda", Resize(2, 2095103))]
    assert disk.partitions()[1].end == GIB - MIB - 1


def test_a_recovery_partition_moves_along_and_that_is_said() -> None:
    disk = guest("ntfs", "msdos", 300 * MIB)
    recovery = Partition(3, 300 * MIB, 350 * MIB - 1, "27")
    disk.disk = replace(disk.disk, partitions=(*disk.disk.partitions, recovery))
    warnings = run(FixPartitionTable, disk)
    first = (GIB - 51 * MIB) // 512
    moved = Move(3, first, first + 50 * 2048 - 1)
    assert disk.calls == [("grow_table", "/dev/sda", moved, Resize(2, first - 1))]
    assert warnings[0] == "partition 3 (recovery, 50 MiB) moves from 300 MiB to 973 MiB"
    assert len(warnings) == 3


def test_a_gpt_spans_the_disk_even_where_no_partition_grows() -> None:
    disk = guest(end=GIB - MIB)
    run(FixPartitionTable, disk)
    assert disk.calls == [("grow_table", "/dev/sda")]


@pytest.mark.parametrize("kind", ["ext2", "ext3", "ext4"])
def test_a_clean_ext_is_grown_by_linux(kind: str) -> None:
    disk = guest(kind)
    assert run(FilesystemResizeUnmounted, disk) == []
    assert disk.calls == [("grow_ext_mounted", "/dev/sda2")]
    disk.calls.clear()
    assert run(FilesystemResizeUnmounted, disk) == []
    assert disk.calls == [], "nothing is left to be done"


def test_what_linux_does_not_grow_is_checked_and_grown_unmounted() -> None:
    disk = guest()
    disk.superblock = replace(disk.superblock, grows_to=491 * MIB - 1)
    assert run(FilesystemResizeUnmounted, disk) == []
    assert disk.calls == [("check_ext", "/dev/sda2"), ("grow_ext", "/dev/sda2")]


@pytest.mark.parametrize("blocks", [4096, 491 * 256])
def test_a_journal_is_replayed_with_a_warning(blocks: int) -> None:
    disk = guest()
    disk.superblock = replace(disk.superblock, needs_recovery=True, grows_to=0, blocks=blocks)
    assert len(run(FilesystemResizeUnmounted, disk)) == 1
    assert disk.calls == [("check_ext", "/dev/sda2"), ("grow_ext", "/dev/sda2")]


@pytest.mark.parametrize("state", ["not clean", "clean with errors", "not clean with errors", ""])
def test_an_unclean_ext_is_never_touched(state: str) -> None:
    disk = guest()
    disk.superblock = replace(disk.superblock, state=state)
    with pytest.raises(GuestError, match=r"partition 2 is .*, not clean") as caught:
        run(FilesystemResizeUnmounted, disk)
    assert disk.calls == []
    assert "shut the template machine down" in caught.value.remedy


@pytest.mark.parametrize("grows_to", [0, 1 << 40])
@pytest.mark.parametrize(("blocks", "enough"), [(4096, False), (92929, True), (92928, False)])
def test_a_file_system_that_did_not_grow_is_an_error(
    blocks: int, enough: bool, grows_to: int
) -> None:
    """All but the last, incomplete group of 32768 blocks must be there."""

    class Stuck(FakeGuest):
        def _grow_ext(self, call: str, device: str) -> None:
            self.superblock = replace(self.superblock, blocks=blocks)

    disk = Stuck(guest().filesystems)
    disk.disk = guest().disk
    disk.superblock = replace(disk.superblock, grows_to=grows_to)
    if enough:
        assert run(FilesystemResizeUnmounted, disk) == []
        return
    with pytest.raises(GuestError, match=r"on partition 2 has .* after it was grown to 514850816"):
        run(FilesystemResizeUnmounted, disk)


@pytest.mark.parametrize(
    ("kind", "named"),
    [("xfs", "xfs"), ("swap", "swap"), ("LVM2_member", "LVM2_member"), ("", "no file system")],
)
def test_what_nobody_grows_is_said(kind: str, named: str) -> None:
    disk = guest(kind)
    assert run(FilesystemResizeUnmounted, disk) == [
        f"the last partition holds {named}, which is not grown"
    ]
    assert disk.calls == []


@pytest.mark.parametrize(("grows", "said"), [("ntfs xfs", 0), ("xfs", 0), ("ntfs", 1), ("", 1)])
def test_nothing_is_said_of_what_the_family_grows(grows: str, said: int) -> None:
    disk = guest("xfs")
    request = replace(REQUEST, facts={"grows": grows})
    assert len(run(FilesystemResizeUnmounted, disk, request)) == said
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
