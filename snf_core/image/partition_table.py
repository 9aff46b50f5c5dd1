"""Reading and growing the partition table of a disk, byte by byte.

Pure functions: what reads the disk is handed in, what is to be written comes back. Everything
read is a tenant's, hence hostile: it is checked before it is used, and reads are bounded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from snf_core.errors import GuestError
from snf_core.image import gpt, mbr
from snf_core.image.layout import SECTOR

if TYPE_CHECKING:
    from collections.abc import Callable

_HEAD = 34 * SECTOR
"""Bytes at a disk's beginning in which nearly every table lies: read at once."""


def load(read: Callable[[int, int], bytes], size: int) -> gpt.Gpt | mbr.Mbr:
    """The partition table of a disk of ``size`` bytes with logical sectors of 512 bytes.

    ``read`` takes an offset and a length, in bytes. As for Linux (block/partitions/efi.c), it is
    a GPT if a record of the MBR is of type 0xEE and starts at sector 1: what else a hybrid MBR
    lists does not count, and only follows what it mirrors. Without such a record it is an MBR,
    whatever else is on the disk. Raises GuestError where there is no table, or a damaged one.
    """
    if size < _HEAD:
        raise GuestError(f"the disk is too small for one: {size} bytes")

    def exactly(offset: int, length: int) -> bytes:
        if not 0 <= offset <= size - length:
            raise GuestError(f"it refers to byte {offset}, beyond the disk's end")
        content = read(offset, length)
        if len(content) != length:
            raise GuestError(f"the disk ends at byte {offset + len(content)}, before its size")
        return content

    head = exactly(0, _HEAD)
    records = mbr.protective(head[:SECTOR])
    if records is None:
        return mbr.load(head[:SECTOR], exactly, size)
    return gpt.load(head, records, exactly, size)
