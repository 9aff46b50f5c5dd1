"""A disk as a stream of bytes: Ganeti's export and import of instances."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from snf_core.errors import DiskError
from snf_core.image.copy import BLOCK, ENDS, write_sparse

if TYPE_CHECKING:
    from snf_core.contract import DiskWriter


def export(disk: DiskWriter, out_fd: int, size_fd: int | None = None) -> None:
    """Write the whole disk, raw, to ``out_fd``.

    ``size_fd``, where given, first gets the disk's size in bytes, in decimal, and a newline.
    Both stay open. Raises DiskError if the disk cannot be read or the reader goes away.
    """
    if size_fd is not None:
        _write(disk, size_fd, b"%d\n" % disk.size)
    for offset in range(0, disk.size, BLOCK):
        _write(disk, out_fd, disk.read(offset, min(BLOCK, disk.size - offset)))


def import_(in_fd: int, disk: DiskWriter) -> None:
    """Make the disk hold what is read from ``in_fd``, then zeros up to its end; durably.

    The beginning of the disk is blank until everything else is on it, as in a copy. Raises
    DiskError if the stream is empty, holds more than the disk, or cannot be read.
    """
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


def _write(disk: DiskWriter, descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    except OSError as error:
        raise DiskError(
            f"the export of disk {disk.path} could not be delivered: {error.strerror}",
            remedy="check what reads the export's standard output",
        ) from error
