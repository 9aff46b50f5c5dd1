"""The tasks that every guest has: growth of partition and file system, and unmounting."""

from __future__ import annotations

from typing import TYPE_CHECKING

from snf_core.contract import Stage, Task
from snf_core.errors import GuestError
from snf_core.image import layout

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from snf_core.image.customization import Customization
    from snf_core.image.guest import Guest

_EXT = {"ext2", "ext3", "ext4"}


class FixPartitionTable(Task):
    """Let the last partition that holds data fill the disk; what follows it moves along."""

    api_version = "1.0"
    stage = Stage.BEFORE_MOUNT

    def run(self, guest: Guest, request: Customization) -> Iterable[str]:
        """Move the backup GPT to the disk's end and grow the last data partition.

        Says what moves: recovery partitions of Windows behind it.
        """
        table = guest.table(request.device)
        changes = layout.grow(table)
        guest.grow_table(request.device, changes)
        return layout.explain(table, changes)


class FilesystemResizeUnmounted(Task):
    """Let an ext file system fill the last partition."""

    api_version = "1.0"
    stage = Stage.BEFORE_MOUNT
    after = ("FixPartitionTable",)
    resizes = True

    def run(self, guest: Guest, request: Customization) -> Iterator[str]:
        """Grow ext2, ext3 and ext4; say so where nobody grows the file system.

        Raises GuestError where the file system was not left clean: growing it could destroy it.
        """
        partition = layout.last_data_partition(guest.table(request.device))
        device = f"{request.device}{partition.number}"
        kind = guest.filesystem(device)
        if kind in request.facts.get("grows", "").split():
            return
        if kind not in _EXT:
            yield f"the last partition holds {kind or 'no file system'}, which is not grown"
            return
        superblock = guest.ext_superblock(device)
        if superblock.state != "clean":
            raise GuestError(
                f"the {kind} file system on partition {partition.number} "
                f"is {superblock.state!r}, not clean",
                remedy="shut the template machine down properly, and check its file system "
                "(e2fsck -f), before its disk is copied",
            )
        if superblock.needs_recovery:
            yield f"the journal of partition {partition.number} is replayed before it is grown"
        elif superblock.blocks == partition.size // superblock.block_size:
            return
        if partition.size <= superblock.grows_to:
            guest.grow_ext_mounted(device)
        else:
            guest.check_ext(device)
            guest.grow_ext(device)
        grown = guest.ext_superblock(device)
        if not grown.fills(partition.size):
            raise GuestError(
                f"the {kind} file system on partition {partition.number} has {grown.size} bytes "
                f"after it was grown to {partition.size}",
                remedy="check the image's file system (e2fsck -f), and whether resize2fs grows it",
            )


class UmountImage(Task):
    """Flush and unmount all that is mounted."""

    api_version = "1.0"
    stage = Stage.UNMOUNT
    excludable = False

    def run(self, guest: Guest, request: Customization) -> Iterable[str]:
        """Unmount."""
        del request
        guest.unmount_all()
        return ()
