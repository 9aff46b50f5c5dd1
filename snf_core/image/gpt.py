"""The GUID partition table (UEFI specification, 5.2.3 and 5.3), on sectors of 512 bytes.

Only the primary table is read: what a damaged one means is not guessed from its backup. Where
the backup lies matters only when it moves, so an image smaller than the disk is nothing special.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from snf_core.errors import GuestError
from snf_core.image import mbr
from snf_core.image.layout import SECTOR, Addition, Partition, Resize, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from snf_core.image.layout import Change, Write
    from snf_core.image.mbr import Record

_SIGNATURE = b"EFI PART"
_HEADER = struct.Struct("<8s4s3L4Q16sQ3L")
_ENTRY = struct.Struct("<16s16s3Q72s")
_ENTRIES_LIMIT = 1024
"""Entries that are read at most. Nearly every table has 128; Linux shows 255 partitions."""
_UNUSED = bytes(16)


class Header(NamedTuple):
    """The fields of a header, in their order on the disk. Positions are sectors."""

    signature: bytes
    revision: bytes
    length: int
    checksum: int
    reserved: int
    position: int
    alternate: int
    first: int
    last: int
    """The first and last sector for partitions."""
    guid: bytes
    entries: int
    entry_count: int
    entry_length: int
    entries_checksum: int


@dataclass(frozen=True)
class Gpt:
    """A sound table on a disk of ``size`` bytes."""

    size: int
    mbr: bytes
    records: Sequence[Record]
    """Those of the MBR: the protective one, and in a hybrid MBR more."""
    header: Header
    rest: bytes
    """What follows the header's known fields in its sector."""
    entries: bytes

    @property
    def table(self) -> Table:
        """What partitions there are, in the disk's order."""
        partitions = sorted(_partitions(self.entries), key=lambda partition: partition.start)
        return Table("gpt", self.size, tuple(partitions))

    def changes(self, changes: Sequence[Change]) -> list[Write]:
        """What to write, in order, for partitions to change and the table to span the disk.

        The backup goes to the disk's end, the usable range up to it; one sector where the backup
        header lay is zeroed. Nothing where nothing changes. After each write, and each sector of
        it, the primary table is valid or else the backup at the disk's end: of partitions that
        move, the content must be in both places. Raises GuestError where a partition lies in the
        backup's place, and for more partitions than the table has entries.
        """
        end = self.size // SECTOR - 1
        if not changes and self.header.alternate == end:
            return []
        entries = self._changed(changes)
        place = end - _sectors(len(entries))
        header = self.header._replace(
            alternate=end, last=place - 1, entries_checksum=zlib.crc32(entries)
        )
        partitions = list(_partitions(entries))
        ends = [p.end // SECTOR for p in partitions]
        if header.last < max(header.first, *ends, 0):
            raise GuestError(
                "a partition lies where the backup of the partition table must be",
                remedy="give the instance a larger disk",
            )
        backup = header._replace(position=end, alternate=header.position, entries=place)
        padding = bytes((end - place) * SECTOR - len(entries))
        writes = [
            (place * SECTOR, entries + padding + _sealed(backup, self.rest)),
            *self._primary(header, entries, self._changed_mbr(partitions)),
        ]
        old = self.header.alternate
        moved = {change.number for change in changes if not isinstance(change, Resize)}
        # What moves there has overwritten it already.
        covered = any(
            p.start // SECTOR <= old <= p.end // SECTOR for p in partitions if p.number in moved
        )
        if self.header.last < old < place and not covered:
            writes.append((old * SECTOR, bytes(SECTOR)))
        return writes

    def _changed(self, changes: Sequence[Change]) -> bytes:
        """The entries after changes."""
        entries = bytearray(self.entries)
        for change in changes:
            place = (change.number - 1) * _ENTRY.size
            if place >= len(entries):
                raise GuestError(
                    "the GPT has no entry for one more partition: all "
                    f"{len(entries) // _ENTRY.size} are in use",
                    remedy="deploy an image with fewer partitions",
                )
            kind, guid, first, last, attributes, name = _ENTRY.unpack_from(entries, place)
            if isinstance(change, Addition):
                kind, guid, attributes = _bytes(change.type), _new_guid(), change.attributes
                name = change.name.encode("utf-16-le")
            if not isinstance(change, Resize):
                first = change.first_sector
            last = change.last_sector
            _ENTRY.pack_into(entries, place, kind, guid, first, last, attributes, name)
        return bytes(entries)

    def _primary(self, header: Header, entries: bytes, record: bytes) -> list[Write]:
        """Both sectors and the entries: in one write where the entries follow, as nearly always."""
        beginning = record + _sealed(header, self.rest)
        if header.entries * SECTOR == len(beginning):
            return [(0, beginning + entries)]
        return [(header.entries * SECTOR, entries), (0, beginning)]

    def _changed_mbr(self, partitions: Sequence[Partition]) -> bytes:
        """An MBR that covers the disk, or, if it is hybrid, mirrors the same ones as before."""
        sector = bytearray(self.mbr)
        for record in self._changed_records(partitions):
            sector[record.offset : record.offset + mbr.RECORD.size] = record.content
        return bytes(sector)

    def _changed_records(self, partitions: Sequence[Partition]) -> list[Record]:
        if len(self.records) == 1:
            sectors = min(self.size // SECTOR - 1, mbr.LIMIT)
            return [self.records[0]._replace(sectors=sectors)]
        now = {p.number: (p.start // SECTOR, p.end // SECTOR) for p in partitions}
        places = {
            (p.start // SECTOR, p.end // SECTOR): now[p.number] for p in self.table.partitions
        }
        changed = []
        for record in self.records[1:]:
            first, last = places.get((record.start, record.last), (record.start, record.last))
            if first > mbr.LIMIT:  # beyond what it can say, and another one may grow over it
                changed.append(mbr.Record(record.offset, 0, b"", 0, b"", 0, 0))
            elif (first, last) != (record.start, record.last):
                changed.append(record.at(first, min(last, mbr.LIMIT)))
        return changed


def load(
    head: bytes,
    records: Sequence[Record],
    read: Callable[[int, int], bytes],
    size: int,
) -> Gpt:
    """Read and check a primary table. ``head``: the first bytes of the disk.

    ``records``: those of the MBR. Raises GuestError for what is damaged.
    """
    sector = head[SECTOR : 2 * SECTOR]
    if not sector.startswith(_SIGNATURE):
        if head[4096:].startswith(_SIGNATURE):
            raise GuestError("it is made for sectors of 4096 bytes, and the disk has 512")
        raise GuestError("a protective MBR, and no GPT behind it")
    header = Header._make(_HEADER.unpack_from(sector))
    _check_header(header, sector, size)
    length = header.entry_count * header.entry_length
    start = header.entries * SECTOR
    entries = head[start : start + length]
    if len(entries) < length:
        entries = read(start, length)
    if zlib.crc32(entries) != header.entries_checksum:
        raise GuestError("the checksum of the GPT's entries is wrong")
    found = Gpt(size, head[:SECTOR], records, header, sector[_HEADER.size :], entries)
    _check_partitions(header, found.table.partitions)
    return found


def _check_header(header: Header, sector: bytes, size: int) -> None:
    if not _HEADER.size <= header.length <= SECTOR:
        raise GuestError(f"the GPT's header claims a length of {header.length} bytes")
    if _checksum(sector[: header.length]) != header.checksum:
        raise GuestError("the checksum of the GPT's header is wrong")
    # Linux reads no entries of another length either.
    if header.entry_length != _ENTRY.size or not 1 <= header.entry_count <= _ENTRIES_LIMIT:
        raise GuestError(
            f"the GPT has {header.entry_count} entries of {header.entry_length} bytes; "
            f"1 to {_ENTRIES_LIMIT} of {_ENTRY.size} are served"
        )
    entries_end = header.entries + _sectors(header.entry_count * header.entry_length)
    if header.position != 1 or not 2 <= header.entries < entries_end <= header.first:
        raise GuestError("the GPT's entries do not lie between its header and the partitions")
    if not header.first <= header.last < size // SECTOR:
        raise GuestError(
            f"the GPT uses sectors {header.first} to {header.last}, "
            f"and the disk has {size // SECTOR}"
        )


def _check_partitions(header: Header, partitions: Sequence[Partition]) -> None:
    previous = None
    for partition in partitions:
        first, last = partition.start // SECTOR, partition.end // SECTOR
        if not header.first <= first <= last <= header.last:
            raise GuestError(
                f"partition {partition.number} has sectors {first} to {last}, "
                f"outside {header.first} to {header.last}"
            )
        if previous and previous.end >= partition.start:
            raise GuestError(f"partitions {previous.number} and {partition.number} overlap")
        previous = partition


def _partitions(entries: bytes) -> Iterator[Partition]:
    """By their numbers."""
    for number, (kind, guid, start, last, _, name) in enumerate(
        _ENTRY.iter_unpack(entries), start=1
    ):
        if kind != _UNUSED:
            yield Partition(
                number,
                start * SECTOR,
                (last + 1) * SECTOR - 1,
                _guid(kind),
                _guid(guid),
                name.decode("utf-16-le", errors="replace").partition("\0")[0],
            )


def _sectors(length: int) -> int:
    return -(-length // SECTOR)


def _guid(content: bytes) -> str:
    import uuid  # with what it imports, only where a table is read

    return str(uuid.UUID(bytes_le=content))


def _bytes(guid: str) -> bytes:
    import uuid

    return uuid.UUID(guid).bytes_le


def _new_guid() -> bytes:
    import uuid

    return uuid.uuid4().bytes_le


def _checksum(header: bytes) -> int:
    """Of a whole header, whose own field counts as zero (bytes 16 to 19)."""
    return zlib.crc32(header[:16] + bytes(4) + header[20:])


def _sealed(header: Header, rest: bytes) -> bytes:
    """The header's sector, with its checksum."""
    sector = _HEADER.pack(*header) + rest
    checksum = _checksum(sector[: header.length])
    return _HEADER.pack(*header._replace(checksum=checksum)) + rest
