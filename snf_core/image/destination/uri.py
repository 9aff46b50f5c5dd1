"""The ``uri`` destination: a disk that has no path on the node and that QEMU alone can reach.

Ganeti gives the URI of disks that are accessed from user space: RADOS, Gluster, and what
providers of external storage say (man ganeti-extstorage-interface).
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from oslo_config import cfg

from snf_core import contract
from snf_core.errors import DiskError
from snf_core.image import block_uri, descriptors
from snf_core.image.opened import LARGE, Opened, failure
from snf_core.image.storage_daemon import Daemon

if TYPE_CHECKING:
    from snf_core.contract import DiskWriter, OpenDisk
    from snf_core.model import Disk

OPTIONS = [
    cfg.StrOpt(
        "daemon",
        default="/usr/bin/qemu-storage-daemon",
        help="QEMU's storage daemon, which opens disks that Ganeti gives the URI of. Debian's "
        "qemu-block-extra holds its drivers for iSCSI, SSH, HTTP, FTP, RADOS and Gluster.",
    ),
    cfg.IntOpt(
        "timeout",
        default=30,
        min=1,
        help="Seconds within which a disk's storage must let it be opened.",
    ),
]


class Uri(contract.Destination):
    """Accepts disks with a URI of QEMU's, and no path that is there."""

    api_version = "1.0"
    priority = 20
    options = OPTIONS

    def accepts(self, disk: Disk) -> bool:
        """Whether the URI is the only way to the disk."""
        here = bool(disk.path) and os.path.exists(disk.path)
        return block_uri.served(disk.uri) and not here

    def open(self, disk: Disk) -> DiskWriter:
        """Open what the URI names, raw. Raises DiskError with QEMU's words."""
        return self._opened(disk, writable=True)

    def open_for_reading(self, disk: Disk) -> OpenDisk:
        """The same, also where it cannot be written."""
        return self._opened(disk, writable=False)

    def _opened(self, disk: Disk, *, writable: bool) -> _Shown:
        protocol = block_uri.node(disk.uri, writable=writable)
        shown = block_uri.shown(disk.uri)
        if not os.access(self.conf.daemon, os.X_OK):
            raise DiskError(
                f"disk {shown} cannot be opened: {self.conf.daemon} cannot be run",
                remedy="install qemu-system-common, or set [image.destination.uri] daemon",
            )
        node = {
            "driver": "raw",
            "file": protocol,
            "read-only": not writable,
            "discard": "unmap",
        }
        try:
            daemon = Daemon(self.conf.daemon, node, writable=writable, timeout=self.conf.timeout)
        except DiskError as error:
            raise _refused(shown, protocol["driver"], error) from error
        except OSError as error:
            raise failure(shown, "opened", error) from error
        try:
            return _Shown(shown, daemon)
        except OSError as error:
            daemon.close()
            raise failure(shown, "opened", error) from error


class _Shown(Opened):
    """A disk that a storage daemon shows as a file."""

    def __init__(self, uri: str, daemon: Daemon) -> None:
        self._daemon = daemon
        super().__init__(uri, daemon.descriptor, device=False)
        self.zeroing = [descriptors.ZERO_RANGE]

    def close(self) -> None:
        self._daemon.close()  # first: closing the file would wait for a storage that hangs
        with contextlib.suppress(OSError):  # the daemon is no longer there to be told
            super().close()

    def zero_range(self, start: int, end: int) -> None:
        """Discard, and zero what is not known to read as zeros then.

        Punching a hole is no more than discarding in QEMU 7.2, which says that it is done where
        the storage does not even know how, and the old bytes stay.
        """
        mode = descriptors.PUNCH_HOLE | descriptors.KEEP_SIZE
        for first in range(start, end, LARGE):
            last = min(first + LARGE, end)
            with contextlib.suppress(OSError):  # zeroing will say what is wrong
                descriptors.allocate(self.descriptor, mode, first, last - first)
            for data_first, data_last in descriptors.data_ranges(self.descriptor, first, last):
                super().zero_range(data_first, data_last)

    def _failure(self, what: str, error: OSError) -> DiskError:
        failed = super()._failure(what, error)
        said = self._daemon.said()
        return DiskError(f"{failed.message}: {said}", remedy=failed.remedy) if said else failed


def _refused(shown: str, driver: str, error: DiskError) -> DiskError:
    if "Unknown driver" in error.message:
        said = f"QEMU's driver {driver} is not installed"
        remedy = "install qemu-block-extra"
    else:
        said = error.message
        remedy = "check the storage that the URI names, and that it lets this node in"
    return DiskError(f"disk {shown} cannot be opened: {said}", remedy=remedy)
