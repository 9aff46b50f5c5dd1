"""An open disk: a descriptor of a block device or of a file, read, written, zeroed and flushed."""

from __future__ import annotations

import contextlib
import errno
import io
import os
from typing import TYPE_CHECKING

from snf_core import contract
from snf_core.errors import DiskError
from snf_core.image import descriptors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_ALIGNMENT = 64 << 10
"""A multiple of every logical block size, in bytes."""
_SMALL = 1 << 20
"""Bytes a device is faster written with zeros in passing than told, and waited for, to zero."""
LARGE = 128 << 20
"""Bytes to zero at once, so that a signal is soon acted upon."""
_ZEROS = bytes(_SMALL)

_FULL = {errno.ENOSPC, errno.EDQUOT}
_GONE = {
    *(errno.ENXIO, errno.ENODEV, errno.EIO, errno.ESTALE, errno.ENOMEDIUM),
    *(errno.ENOTCONN, errno.ECONNABORTED),  # of a disk that a daemon shows, which has ended
}


class Opened(contract.DiskWriter):
    """A disk behind ``descriptor``, which it owns; ``device``: it is a block device.

    Where the descriptor is open for reading alone, only reading works.
    """

    def __init__(self, path: Path | str, descriptor: int, *, device: bool) -> None:
        """Raises DiskError, the descriptor being closed, if there is nothing of any size."""
        self.path = path
        self.descriptor = descriptor
        self._file = io.FileIO(descriptor, "r")  # closes it, once
        self._device = device
        self.zeroing = [descriptors.PUNCH_HOLE, descriptors.ZERO_RANGE]
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
                    self.zero_range(start, end)

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
            shown = OSError(errno.ENXIO, "it has become shorter") if self._shorter() else error
            raise self._failure(what, shown) from error

    def _failure(self, what: str, error: OSError) -> DiskError:
        return failure(self.path, what, error)

    def _shorter(self) -> bool:
        """A device that has gone says of a write that it is full."""
        try:
            return os.lseek(self.descriptor, 0, os.SEEK_END) < self.size
        except OSError:
            return False

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
        self.zero_range(first, last)
        self._write_zeros(last, end)

    def zero_range(self, start: int, end: int) -> None:
        """All of these read as zeros afterwards, which BLKDISCARD does not promise.

        On block devices as well: a hole is punched only where the device guarantees zeros, and
        a range is zeroed by the kernel writing zeros if need be (blkdev_fallocate in block/fops.c).
        """
        for position in range(start, end, LARGE):
            length = min(LARGE, end - position)
            while self.zeroing:
                try:
                    mode = self.zeroing[0] | descriptors.KEEP_SIZE
                    descriptors.allocate(self.descriptor, mode, position, length)
                    break
                except OSError as error:
                    if error.errno != errno.EOPNOTSUPP:
                        raise
                    del self.zeroing[0]
            else:
                self._write_zeros(position, position + length)


def failure(path: Path | str, what: str, error: OSError) -> DiskError:
    """That a disk cannot be ``what`` ("written"), and what is to be done about it."""
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


def _aligned(position: int) -> int:
    return position // _ALIGNMENT * _ALIGNMENT
