"""A disk as a stream of bytes: Ganeti's export and import of instances."""

from __future__ import annotations

import errno
import fcntl
import os
from typing import TYPE_CHECKING

from snf_core.errors import DiskError
from snf_core.image import descriptors
from snf_core.image.copy import BLOCK, ENDS, write_sparse
from snf_core.image.layout import SECTOR

if TYPE_CHECKING:
    from snf_core.contract import DiskWriter, OpenDisk

_PIPE = 1 << 20
"""Bytes that a pipe is made to hold, where that is allowed: it is filled and emptied less often."""
_UNDELIVERED = {errno.EPIPE, errno.ECONNRESET, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EBADF}
"""Errors of whoever takes what is exported; all others are the disk's."""


def export(disk: OpenDisk, out_fd: int, size_fd: int | None = None) -> None:
    """Write the whole disk, raw, to ``out_fd``; holes are not read, but written as zeros.

    ``size_fd``, where given, first gets the disk's size in bytes, in decimal, and a newline.
    Both stay open. Raises DiskError if the disk cannot be read or the reader goes away.
    """
    _widen(out_fd)
    zeros = os.memfd_create("zeros", os.MFD_CLOEXEC)
    try:
        os.pwrite(zeros, bytes(_PIPE), 0)
        if size_fd is not None:
            os.write(size_fd, b"%d\n" % disk.size)
        position = 0
        for start, end in descriptors.data_ranges(disk.descriptor, 0, disk.size):
            _send_zeros(out_fd, zeros, start - position)
            _send(out_fd, disk.descriptor, start, end - start)
            position = end
        _send_zeros(out_fd, zeros, disk.size - position)
    except OSError as error:
        if error.errno in _UNDELIVERED:
            raise DiskError(
                f"the export of disk {disk.path} could not be delivered: {error.strerror}",
                remedy="check what reads the export's standard output",
            ) from error
        raise DiskError(
            f"disk {disk.path} cannot be exported: {error.strerror}",
            remedy="check its storage and the kernel's log",
        ) from error
    finally:
        os.close(zeros)


def import_(in_fd: int, disk: DiskWriter) -> None:
    """Make the disk hold what is read from ``in_fd``, then zeros up to its end; durably.

    The beginning of the disk is blank until everything else is on it, as in a copy. Raises
    DiskError if the stream is empty, ends within a sector, holds more than the disk, or cannot be
    read.
    """
    _widen(in_fd)
    head = _read(disk, in_fd, min(ENDS, disk.size))
    if not head:
        raise DiskError(
            f"nothing was given to import on disk {disk.path}",
            remedy="check the export that this is the import of",
        )
    disk.zero(0, min(ENDS, disk.size))
    position = len(head)
    while data := _read(disk, in_fd, min(BLOCK, disk.size - position)):
        write_sparse(disk, position, data)
        position += len(data)
    disk.zero(position, disk.size - position)
    disk.flush()
    if _read(disk, in_fd, 1):
        raise DiskError(
            f"what is imported is larger than disk {disk.path}, of {disk.size} bytes",
            remedy="import it on an instance with a larger disk",
        )
    if position % SECTOR and position < disk.size:  # no disk is of such a size
        raise DiskError(
            f"what is imported on disk {disk.path} breaks off after {position} bytes",
            remedy="check the export that this is the import of: a part of it is missing",
        )
    write_sparse(disk, 0, head)
    disk.flush()


def _read(disk: DiskWriter, descriptor: int, length: int) -> bytes:
    """``length`` bytes, or what is left of the stream; a pipe gives them in small pieces."""
    data = bytearray()
    try:
        while len(data) < length and (more := os.read(descriptor, length - len(data))):
            data += more
    except OSError as error:
        raise DiskError(
            f"cannot read what is to be imported on disk {disk.path}: {error.strerror}",
            remedy="check what writes to the import's standard input",
        ) from error
    return bytes(data)


def _send_zeros(out_fd: int, zeros: int, length: int) -> None:
    while length:
        step = min(length, _PIPE)
        _send(out_fd, zeros, 0, step)
        length -= step


def _send(out_fd: int, in_fd: int, offset: int, length: int) -> None:
    """Move bytes within the kernel (sendfile(2)), which copies nothing into a pipe.

    Raises OSError; ENXIO where there are fewer.
    """
    while length:
        try:
            sent = os.sendfile(out_fd, in_fd, offset, min(length, BLOCK))
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            # Not with every kind of file, nor to one that is only appended to.
            sent = os.write(out_fd, os.pread(in_fd, min(length, BLOCK), offset))
        if not sent:
            raise OSError(errno.ENXIO, "it has become shorter")
        offset += sent
        length -= sent


def _widen(descriptor: int) -> None:
    """Let a pipe hold more."""
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE)
    except OSError:
        pass  # it is none, or its owner has used up what he may
