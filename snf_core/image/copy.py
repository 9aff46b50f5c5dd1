"""Moving an image onto a disk, so that nothing else is left on it.

Holes are kept, and whatever the image does not fill is zeroed: an earlier tenant's bytes never
show. The ends of the disk, where partition tables and their backups are, are blank from the
first moment and get their contents last: an interrupted copy leaves no disk that could be taken
for a good one, and what is attached to the disk meanwhile sees a blank one.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from snf_core.contract import Extent
from snf_core.errors import DiskError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from snf_core.contract import DiskWriter, ImageReader

    Progress = Callable[[int, int], None]

BLOCK = 4 << 20
"""Bytes to read at once."""
ENDS = 1 << 20
"""Bytes at the beginning and at the end of the disk that are written last."""
_GRAIN = 64 << 10
"""The shortest run of zeros, in bytes, that is looked for in data."""
_ZEROS = bytes(_GRAIN)


def check_size(image: ImageReader, disk: DiskWriter) -> None:
    """Raises DiskError, naming both sizes, if the image is larger than the disk."""
    if image.size > disk.size:
        raise DiskError(
            f"the image, of {_shown(image.size)}, is larger than disk {disk.path}, of "
            f"{_shown(disk.size)}",
            remedy="give the instance a larger disk",
        )


def blank(disk: DiskWriter) -> None:
    """Make both ends of the disk, where what is on it is announced, read as zeros; durably.

    ``copy`` begins with it, unless told that it was done: whoever attaches the disk to something
    beside the copy does it before, so that nothing of an earlier tenant is recognised.
    Raises DiskError.
    """
    head_end, tail = _ends(disk)
    disk.zero(0, head_end)
    disk.zero(tail, disk.size - tail)
    disk.flush()


def copy(
    image: ImageReader,
    disk: DiskWriter,
    progress: Progress,
    *,
    blanked: bool = False,
    interval: float = 3.0,
) -> None:
    """Make the disk hold the image, then zeros up to its end; durable when this returns.

    An image of size 0 (the null source) leaves the disk as it is. ``progress`` gets the position
    and the total, in bytes of the image, about every ``interval`` seconds and once at the end.

    Raises DiskError, before anything is written, if the image is larger than the disk, and later
    where it cannot be written; ImageError where the image cannot be read.
    """
    if image.size == 0:
        return
    check_size(image, disk)
    report = _Pace(progress, image.size, interval)
    head_end, tail = _ends(disk)
    # Read in the image's order, whatever the order of writing: a source may be a stream.
    head = image.read(0, min(head_end, image.size))
    if not blanked:
        blank(disk)
    for extent in _extents(image, head_end, tail):
        if extent.data:
            for offset, length in _blocks(extent):
                write_sparse(disk, offset, image.read(offset, length))
                report.at(offset + length)
        else:
            disk.zero(extent.offset, extent.length)
    if image.size > tail:
        write_sparse(disk, tail, image.read(tail, image.size - tail))
    disk.flush()
    write_sparse(disk, 0, head)
    disk.flush()
    report.end()


def verify(
    image: ImageReader, disk: DiskWriter, progress: Progress, *, interval: float = 3.0
) -> None:
    """Read the disk back and compare all of it with what ``copy`` should have made of it.

    ``progress`` is as in ``copy``. Raises DiskError naming the first byte that differs.
    """
    if image.size == 0:
        return
    check_size(image, disk)
    report = _Pace(progress, image.size, interval)
    disk.flush()
    for extent in _extents(image, 0, disk.size):
        for offset, length in _blocks(extent):
            wanted = image.read(offset, length) if extent.data else bytes(length)
            found = disk.read(offset, length)
            if wanted != found:
                at = offset + next(i for i in range(length) if wanted[i] != found[i])
                raise DiskError(
                    f"disk {disk.path} does not hold what was written: byte {at} differs from "
                    "the image",
                    remedy="check its storage before it is used again",
                )
            report.at(min(offset + length, image.size))
    report.end()


def write_sparse(disk: DiskWriter, offset: int, data: bytes) -> None:
    """Write ``data`` at ``offset``, long runs of zeros in it as holes."""
    start = 0
    while start < len(data):
        zeros = _zero_at(data, start)
        end = start + _GRAIN
        while end < len(data) and _zero_at(data, end) == zeros:
            end += _GRAIN
        end = min(end, len(data))
        if zeros:
            disk.zero(offset + start, end - start)
        else:
            disk.write(offset + start, data[start:end])
        start = end


def _ends(disk: DiskWriter) -> tuple[int, int]:
    """Where the beginning ends and where the end begins, in bytes."""
    head_end = min(ENDS, disk.size)
    return head_end, max(head_end, disk.size - ENDS)


def _zero_at(data: bytes, start: int) -> bool:
    # Compares in place; slices would be copies, and memoryviews compare byte by byte.
    return data.startswith(_ZEROS[: len(data) - start], start)


def _shown(size: int) -> str:
    return f"{size} bytes ({size / (1 << 20):.1f} MiB)"


def _extents(image: ImageReader, start: int, end: int) -> Iterator[Extent]:
    """What belongs between ``start`` and ``end`` on the disk: the image, then zeros."""
    for extent in image.extents():
        first = max(start, extent.offset)
        last = min(end, extent.offset + extent.length)
        if first < last:
            yield Extent(first, last - first, data=extent.data)
    first = max(start, image.size)
    if first < end:
        yield Extent(first, end - first, data=False)


def _blocks(extent: Extent) -> Iterator[tuple[int, int]]:
    end = extent.offset + extent.length
    for offset in range(extent.offset, end, BLOCK):
        yield offset, min(BLOCK, end - offset)


class _Pace:
    """Calls ``progress`` not more often than every ``interval`` seconds."""

    def __init__(self, progress: Progress, total: int, interval: float) -> None:
        self._progress = progress
        self._total = total
        self._interval = interval
        self._next = time.monotonic() + interval

    def at(self, position: int) -> None:
        if time.monotonic() >= self._next:
            self._progress(position, self._total)
            self._next = time.monotonic() + self._interval

    def end(self) -> None:
        self._progress(self._total, self._total)
