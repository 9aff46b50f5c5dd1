"""The ``local`` destination: a block device or a raw file of the node."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from snf_core import contract
from snf_core.errors import DiskError
from snf_core.image import descriptors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from snf_core.contract import DiskWriter
    from snf_core.model import Disk

_ALIGNMENT = 64 << 10
"""A multiple of every logical block size, in bytes."""
_SMALL = 1 << 20
"""Bytes a device is faster written with zeros in passing than told, and waited for, to zero."""
_LARGE = 128 << 20
"""Bytes to zero at once, so that a signal is soon acted upon."""
_ZEROS = bytes(_SMALL)

_FULL = {errno.ENOSPC, errno.EDQUOT}
_GONE = {errno.ENXIO, errno.ENODEV, errno.EIO, errno.ESTALE, errno.ENOMEDIUM}


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
        try:
            located = os.open(disk.path, os.O_PATH | os.O_CLOEXEC)
            try:
                mode = os.stat(located).st_mode
                if not (stat.S_ISBLK(mode) or stat.S_ISREG(mode)):
                    raise DiskError(
                        f"disk {disk.path} is {descriptors.kind(mode)}",
                        remedy="give a block device or a regular file",
                    )
                # O_EXCL claims a block device (open(2)): one that is mounted, or is part of a
                # RAID or of a volume group, is somebody's already.
                exclusive = os.O_EXCL if stat.S_ISBLK(mode) else 0
                descriptor = descriptors.reopen(located, os.O_RDWR | exclusive)
            finally:
                os.close(located)
            return _Opened(Path(disk.path), descriptor, device=stat.S_ISBLK(mode))
        except OSError as error:
            raise _failure(disk.path, "opened", error) from error


class _Opened(contract.DiskWriter):
    def __init__(self, path: Path, descriptor: int, *, device: bool) -> None:
        self.path = path
        self.descriptor = descriptor
        self._file = io.FileIO(descriptor, "r+")  # closes it, once
        self._device = device
        self._zeroing = [descriptors.PUNCH_HOLE, descriptors.ZERO_RANGE]
        """Ways of zeroing that are not known to fail here, the one that frees storage first."""
        self.size = os.lseek(descriptor, 0, os.SEEK_END)
        if self.size == 0:
            self.close()
            raise DiskError(f"disk {path} has no size", remedy="attach it, or create it again")

    def write(self, offset: int, data: bytes) -> None:
        with self._reported("written"):
            self._write(offset, data)

    def zero(self, offset: int, length: int) -> None:
        with self._reported("zeroed"):
            # What is a hole already is left alone: a fresh sparse file costs nothing here.
            for start, end in descriptors.data_ranges(self.descriptor, offset, offset + length):
                if self._device:
                    self._zero_device(start, end)
                else:
                    self._zero_range(start, end)

    def read(self, offset: int, length: int) -> bytes:
        data = bytearray()
        with self._reported("read"):
            if not any(descriptors.data_ranges(self.descriptor, offset, offset + length)):
                return bytes(length)
            # What is cached, and clean, would only be what we believe to have written. The kernel
            # keeps pages that are not wholly inside the range.
            first, last = _aligned(offset), _aligned(offset + length + _ALIGNMENT)
            os.posix_fadvise(self.descriptor, first, last - first, os.POSIX_FADV_DONTNEED)
            while len(data) < length:
                more = os.pread(self.descriptor, length - len(data), offset + len(data))
                if not more:
                    raise OSError(errno.ENXIO, "it has become shorter")
                data += more
        return bytes(data)

    def flush(self) -> None:
        with self._reported("flushed"):
            os.fdatasync(self.descriptor)

    def close(self) -> None:
        self._file.close()

    @contextlib.contextmanager
    def _reported(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            # A device that has gone says that it is full.
            gone = os.lseek(self.descriptor, 0, os.SEEK_END) < self.size
            shown = OSError(errno.ENXIO, "it has become shorter") if gone else error
            raise _failure(str(self.path), what, shown) from error

    def _write(self, offset: int, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            written = os.pwrite(self.descriptor, rest, offset)
            offset += written
            rest = rest[written:]

    def _write_zeros(self, start: int, end: int) -> None:
        for position in range(start, end, _SMALL):
            self._write(position, _ZEROS[: end - position])

    def _zero_device(self, start: int, end: int) -> None:
        """Devices zero whole blocks only; the page cache is spared partial pages as well."""
        first, last = _aligned(start + _ALIGNMENT - 1), _aligned(end)
        if last - first < _SMALL:
            first = last = end
        self._write_zeros(start, first)
        self._zero_range(first, last)
        self._write_zeros(last, end)

    def _zero_range(self, start: int, end: int) -> None:
        """All of these read as zeros afterwards, which BLKDISCARD does not promise.

        On block devices as well: a hole is punched only where the device guarantees zeros, and
        a range is zeroed by the kernel writing zeros if need be (blkdev_fallocate in block/fops.c).
        """
        for position in range(start, end, _LARGE):
            length = min(_LARGE, end - position)
            while self._zeroing:
                try:
                    mode = self._zeroing[0] | descriptors.KEEP_SIZE
                    descriptors.allocate(self.descriptor, mode, position, length)
                    break
                except OSError as error:
                    if error.errno != errno.EOPNOTSUPP:
                        raise
                    del self._zeroing[0]
            else:
                self._write_zeros(position, position + length)


def _aligned(position: int) -> int:
    return position // _ALIGNMENT * _ALIGNMENT


def _failure(path: str, what: str, error: OSError) -> DiskError:
    if error.errno in _FULL:
        remedy = "make room on the storage that holds it"
    elif error.errno in _GONE:
        remedy = "it has failed or is gone: check its storage and the kernel's log"
    elif error.errno == errno.EBUSY:
        remedy = "something uses it: unmount it, or end what holds it open"
    elif error.errno == errno.ENOENT:
        remedy = "create or attach it first"
    else:
        remedy = "check the disk and its permissions"
    return DiskError(f"disk {path} cannot be {what}: {error.strerror}", remedy=remedy)
