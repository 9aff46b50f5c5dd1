"""The ``local`` destination: a block device or a raw file of the node."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from snf_core import contract
from snf_core.errors import DiskError
from snf_core.image import descriptors
from snf_core.image.opened import Opened, failure

if TYPE_CHECKING:
    from snf_core.contract import DiskWriter, OpenDisk
    from snf_core.model import Disk


class Local(contract.Destination):
    """Accepts every disk with a path."""

    api_version = "1.0"
    priority = 10

    def accepts(self, disk: Disk) -> bool:
        """Whether the disk has a path on this node."""
        return bool(disk.path)

    def open(self, disk: Disk) -> DiskWriter:
        """Open a block device that nobody else has in use, or a regular file.

        Raises DiskError for anything else, and if there is nothing, or nothing of any size.
        """
        # O_EXCL claims a block device (open(2)): one that is mounted, or is part of a RAID or of
        # a volume group, is somebody's already.
        return _opened(disk, os.O_RDWR, os.O_EXCL)

    def open_for_reading(self, disk: Disk) -> OpenDisk:
        """The same, whoever else uses it, and also where it cannot be written: a snapshot."""
        return _opened(disk, os.O_RDONLY, 0)


def _opened(disk: Disk, flags: int, device_flags: int) -> Opened:
    try:
        located = os.open(disk.path, os.O_PATH | os.O_CLOEXEC)
        try:
            mode = os.stat(located).st_mode
            device = stat.S_ISBLK(mode)
            if not (device or stat.S_ISREG(mode)):
                raise DiskError(
                    f"disk {disk.path} is {descriptors.kind(mode)}",
                    remedy="give a block device or a regular file",
                )
            descriptor = descriptors.reopen(located, flags | (device_flags if device else 0))
        finally:
            os.close(located)
        return Opened(Path(disk.path), descriptor, device=device)
    except OSError as error:
        raise failure(disk.path, "opened", error) from error
