"""NTFS, as far as it is read and changed byte by byte: the boot sector and the file $Volume.

Pure functions over bytes, all of which are a tenant's, hence hostile: whatever is used of them is
checked first. The layout is that of Linux (fs/ntfs3/ntfs.h) and of ntfs-3g(8).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from snf_core.errors import GuestError

SECTOR = 512
"""Bytes of a boot sector, and of what is protected by one word of an update sequence."""

_OEM = b"NTFS    "
_SIGNATURE = b"\x55\xaa"
_HIDDEN = 0x1C
"""Where in the boot sector it says how many sectors of the disk lie before the volume."""
_VOLUME_FILE = 3
"""The number of $Volume's record in the MFT, whose first four records $MFTMirr repeats."""
_VOLUME_INFORMATION = 0x70
_END = 0xFFFFFFFF
_IN_USE = 0x1
_IS_DIRTY = 0x1
_INFORMATION = struct.Struct("<8xBBH")
_LARGEST = 1 << 21
"""Bytes of the largest cluster that Windows knows."""


@dataclass(frozen=True)
class Geometry:
    """What the boot sector says: where the file $Volume is described."""

    size: int
    """Bytes of the volume, without the copy of the boot sector behind it."""
    cluster_size: int
    record_size: int
    """Bytes of a record of the MFT."""
    record: int
    mirror: int
    """Where $Volume's record and its copy lie, in bytes from the volume's beginning."""
    hidden_sectors: int
    """Sectors of the disk before the volume, as the volume has it."""


@dataclass(frozen=True)
class Volume:
    """What a volume says of itself."""

    size: int
    """Bytes, without the copy of the boot sector behind it."""
    cluster_size: int
    version: tuple[int, int]
    """(3, 1) since Windows XP."""
    dirty: bool
    """Whether Windows is to check it (chkdsk) when it next starts."""
    hidden_sectors: int

    def fills(self, size: int) -> bool:
        """Whether it fills a partition of ``size`` bytes, but for an incomplete cluster."""
        return 0 <= size - SECTOR - self.size < self.cluster_size


def geometry(boot: bytes) -> Geometry:
    """Read a boot sector. Raises GuestError where it is none of NTFS, or a damaged one."""
    if not is_boot_sector(boot):
        raise _damaged("its first sector is no boot sector of NTFS")
    sector_size, per_cluster = struct.unpack_from("<HB", boot, 0x0B)
    (hidden,) = struct.unpack_from("<L", boot, _HIDDEN)
    sectors, mft, mirror, per_record = struct.unpack_from("<QQQb", boot, 0x28)
    if sector_size not in {512, 1024, 2048, 4096}:
        raise _damaged(f"it claims sectors of {sector_size} bytes")
    # Beyond 128 sectors, a negative power of two: Windows 10, version 1709.
    cluster_sectors = per_cluster if per_cluster <= 128 else 1 << min(256 - per_cluster, 32)
    cluster_size = sector_size * cluster_sectors
    if not 0 < cluster_size <= _LARGEST or cluster_size & (cluster_size - 1):
        raise _damaged(f"it claims clusters of {cluster_size} bytes")
    record_size = per_record * cluster_size if per_record > 0 else 1 << min(-per_record, 32)
    if record_size not in {1024, 2048, 4096}:
        raise _damaged(f"it claims file records of {record_size} bytes")
    size = sectors * sector_size
    places = [place * cluster_size + _VOLUME_FILE * record_size for place in (mft, mirror)]
    for place in places:
        if not SECTOR <= place <= size - record_size:
            raise _damaged(f"it has file records at byte {place} of {size}")
    if abs(places[0] - places[1]) < record_size:
        raise _damaged("the copy of its file records lies on them")
    return Geometry(size, cluster_size, record_size, places[0], places[1], hidden)


def is_boot_sector(boot: bytes) -> bool:
    """Whether it is the boot sector of an NTFS volume, by its signatures."""
    return len(boot) >= SECTOR and boot[3:11] == _OEM and boot[510:512] == _SIGNATURE


def volume(geometry: Geometry, record: bytes) -> Volume:
    """What a volume says of itself, given its $Volume's record. Raises GuestError for damage."""
    content = _unprotected(record, geometry.record_size)
    major, minor, flags = _INFORMATION.unpack_from(content, _information(content))
    return Volume(
        geometry.size,
        geometry.cluster_size,
        (major, minor),
        bool(flags & _IS_DIRTY),
        geometry.hidden_sectors,
    )


def marked(geometry: Geometry, record: bytes, *, dirty: bool) -> bytes:
    """$Volume's record, for both its places, that asks for a check or for none.

    Raises as ``volume`` does.
    """
    content = _unprotected(record, geometry.record_size)
    place = _information(content)
    major, minor, flags = _INFORMATION.unpack_from(content, place)
    flags = flags | _IS_DIRTY if dirty else flags & ~_IS_DIRTY
    struct.pack_into("<BBH", content, place + 8, major, minor, flags)
    return _protected(content)


def relocated(boot: bytes, first_sector: int) -> bytes:
    """A boot sector for a volume that begins at another sector of the disk.

    As mkntfs(8) has it, it is 0 where the number is too large for the field: nobody boots that.
    """
    hidden = first_sector if first_sector < 1 << 32 else 0
    return boot[:_HIDDEN] + struct.pack("<L", hidden) + boot[_HIDDEN + 4 :]


def _unprotected(record: bytes, size: int) -> bytearray:
    """A record as it is meant: the last word of each sector was swapped with another one, by
    which a torn write is found out (update sequence).
    """
    if len(record) != size or record[:4] != b"FILE":
        raise _damaged("it has no record of the file $Volume")
    content = bytearray(record)
    sequence = _sequence(content)
    number = content[sequence : sequence + 2]
    for index in range(1, size // SECTOR + 1):
        end = index * SECTOR
        if content[end - 2 : end] != number:
            raise _damaged("the record of the file $Volume was written in part only")
        content[end - 2 : end] = content[sequence + 2 * index : sequence + 2 * index + 2]
    return content


def _protected(content: bytearray) -> bytes:
    """The record as it stands on the disk, with the next number in its update sequence."""
    record = bytearray(content)
    sequence = _sequence(record)
    (number,) = struct.unpack_from("<H", record, sequence)
    # 0 and 0xFFFF are in no use as numbers.
    struct.pack_into("<H", record, sequence, number + 1 if 0 < number < 0xFFFE else 1)
    for index in range(1, len(record) // SECTOR + 1):
        end = index * SECTOR
        record[sequence + 2 * index : sequence + 2 * index + 2] = record[end - 2 : end]
        record[end - 2 : end] = record[sequence : sequence + 2]
    return bytes(record)


def _sequence(content: bytes | bytearray) -> int:
    """Where a record's update sequence lies: its number, then a word for each sector."""
    offset, count = struct.unpack_from("<HH", content, 4)
    words = len(content) // SECTOR + 1
    # It lies in front of all that it protects.
    if count != words or offset % 2 or not 0x28 <= offset <= SECTOR - 2 - 2 * words:
        raise _damaged("the record of the file $Volume has no update sequence")
    return int(offset)


def _information(content: bytearray) -> int:
    """Where in a record the value of $VOLUME_INFORMATION lies."""
    offset, flags, used = struct.unpack_from("<HHL", content, 0x14)
    if not flags & _IN_USE or not 0x28 <= offset <= used <= len(content):
        raise _damaged("the record of the file $Volume is not in use")
    # Attributes are in the order of their types, and each has its length: at least 24 bytes.
    while offset + 24 <= used:
        kind, length, elsewhere = struct.unpack_from("<LLB", content, offset)
        if kind == _END or length < 24 or length % 8 or offset + length > used:
            break
        value_length, value = struct.unpack_from("<LH", content, offset + 16)
        if kind == _VOLUME_INFORMATION:
            if elsewhere or value_length < _INFORMATION.size or value < 24:
                break
            if value + value_length > length:
                break
            return int(offset + value)
        offset += length
    raise _damaged("the file $Volume says nothing about the volume")


def _damaged(why: str) -> GuestError:
    return GuestError(
        f"the NTFS file system is damaged: {why}",
        remedy="have the template check its volume (chkdsk /f), shut it down, and copy it again",
    )
