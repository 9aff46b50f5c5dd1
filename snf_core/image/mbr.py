"""The MBR and its logical partitions, as Linux reads them (block/partitions/msdos.c)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from snf_core.errors import GuestError
from snf_core.image.layout import EXTENDED, SECTOR, Addition, Partition, Resize, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from snf_core.image.layout import Change, Write

_SIGNATURE = b"\x55\xaa"
_IDENTIFIER = 440
_RECORDS = 446
RECORD = struct.Struct("<B3sB3sLL")
_PROTECTIVE = 0xEE
LIMIT = (1 << 32) - 1
"""The last sector, and the most sectors, that a record can name."""
_FLAGS = {0x00, 0x80}
_LOGICAL_LIMIT = 255
"""Logical partitions that are read at most: Linux shows no more."""

_HEADS, _TRACK, _CYLINDERS = 255, 63, 1024
"""The geometry in which cylinder, head and sector have been counted since disks have none."""
_BEYOND = b"\xfe\xff\xff"
"""The conventional address of what lies beyond the last cylinder."""


class Record(NamedTuple):
    """A record in use: where on the disk it stands, its fields in their order, its base."""

    offset: int
    flag: int
    begin: bytes
    kind: int
    end: bytes
    distance: int
    sectors: int
    base: int = 0
    """The sector from which ``distance`` counts."""

    @property
    def start(self) -> int:
        """The first sector."""
        return self.base + self.distance

    @property
    def last(self) -> int:
        """The last sector."""
        return self.start + self.sectors - 1

    @property
    def content(self) -> bytes:
        """What stands on the disk."""
        return RECORD.pack(*self[1:7])

    def at(self, first: int, last: int) -> Record:
        """The same with other sectors, ``first`` of which counts from the disk's beginning."""
        begin = self.begin if first == self.start else _address(first)
        return self._replace(
            begin=begin, end=_address(last), distance=first - self.base, sectors=last - first + 1
        )

    @property
    def is_extended(self) -> bool:
        """Whether it contains others."""
        return f"{self.kind:02x}" in EXTENDED


@dataclass(frozen=True)
class Mbr:
    """A sound table on a disk of ``size`` bytes."""

    size: int
    identifier: int
    records: dict[int, Record]
    """By the number of the partition."""
    links: dict[int, Record]
    """What refers to the table in which a logical partition is recorded; not for the first."""

    @property
    def table(self) -> Table:
        """What partitions there are, in the disk's order."""
        partitions = [
            Partition(
                number,
                record.start * SECTOR,
                (record.last + 1) * SECTOR - 1,
                f"{record.kind:02x}",
                f"{self.identifier:08x}-{number:02x}",
            )
            for number, record in self.records.items()
        ]
        return Table(
            "msdos", self.size, tuple(sorted(partitions, key=lambda partition: partition.start))
        )

    def changes(self, changes: Sequence[Change]) -> list[Write]:
        """What to write, in order, for partitions to change: their records, and nothing else.

        After each write the table is valid, if an extended partition is resized before the
        logical one in it, and what moves does so before another one takes its place: its content
        must be in both places. Only primary partitions move or are added.
        """
        changed = []
        for change in changes:
            if isinstance(change, Addition):
                offset = _RECORDS + (change.number - 1) * RECORD.size
                record = Record(offset, 0, b"", int(change.type, 16), b"", 0, 0)
            else:
                record = self.records[change.number]
            first = record.start if isinstance(change, Resize) else change.first_sector
            link = self.links.get(change.number)
            if link and link.last < change.last_sector:
                changed.append(link.at(link.start, change.last_sector))
            changed.append(record.at(first, change.last_sector))
        return [(record.offset, record.content) for record in changed]


def _address(sector: int) -> bytes:
    """Head, sector and cylinder, as records hold them."""
    cylinder, rest = divmod(sector, _HEADS * _TRACK)
    head, sector = divmod(rest, _TRACK)
    if cylinder >= _CYLINDERS:
        return _BEYOND
    return bytes([head, (cylinder >> 8 << 6) | (sector + 1), cylinder & 0xFF])


def protective(sector: bytes) -> list[Record] | None:
    """The used records of an MBR that protects a GPT, that one first; None for any other.

    Raises GuestError where a GPT is announced, but not where Linux looks for it.
    """
    if not sector.endswith(_SIGNATURE):
        return None
    records = _records(sector, 0)
    found = [record for record in records if record.kind == _PROTECTIVE]
    if not found:
        return None
    first = [record for record in found if record.start == 1][:1]
    if not first:
        raise GuestError("its protective MBR does not begin at sector 1")
    return first + [record for record in records if record not in first]


def load(sector: bytes, read: Callable[[int, int], bytes], size: int) -> Mbr:
    """Read and check a table. ``sector``: the first of the disk. Raises GuestError."""
    if not sector.endswith(_SIGNATURE):
        raise GuestError("its first sector has no signature")
    if any(sector[_RECORDS + i * RECORD.size] not in _FLAGS for i in range(4)):
        raise GuestError("its first sector has a signature, and no partition table")
    (identifier,) = struct.unpack_from("<L", sector, _IDENTIFIER)
    records = {_number(record): record for record in _records(sector, 0)}
    links: dict[int, Record] = {}
    _check("partition", records, 1, size // SECTOR - 1)
    extended = [record for record in records.values() if record.is_extended]
    if len(extended) > 1:
        raise GuestError("it has two extended partitions")
    if extended:
        _add_logical(extended[0], read, records, links)
    return Mbr(size, identifier, records, links)


def _add_logical(
    extended: Record,
    read: Callable[[int, int], bytes],
    records: dict[int, Record],
    links: dict[int, Record],
) -> None:
    """Walk the chain of tables inside the extended partition.

    Each records one partition, relative to itself, and links to the next, relative to the first.
    """
    found: dict[int, Record] = {}
    link, position = None, extended.start
    tables: set[int] = set()
    while position not in tables and len(tables) < _LOGICAL_LIMIT:
        tables.add(position)
        sector = read(position * SECTOR, SECTOR)
        if not sector.endswith(_SIGNATURE):
            if link is None:
                return  # never had a logical partition
            raise GuestError(f"sector {position} should describe a logical partition")
        used = _records(sector, position)
        data = [record for record in used if not record.is_extended]
        following = [record for record in used if record.is_extended]
        # The first may be empty: it stays where it is when its partition is deleted.
        if len(data) > 1 or len(following) > 1 or (link and not data):
            raise GuestError(f"sector {position} describes not one logical partition")
        for record in data:
            number = 5 + len(found)
            found[number] = record._replace(base=position)
            if link:
                links[number] = link
        if not following:
            _check("logical partition", found, extended.start + 1, extended.last, tables)
            records.update(found)
            return
        link = following[0]._replace(base=extended.start)
        position = link.start
        if not extended.start < position <= extended.last:
            raise GuestError(f"a logical partition is described outside, in sector {position}")
    raise GuestError("its logical partitions have no end")


def _check(
    what: str, records: dict[int, Record], first: int, last: int, tables: Iterable[int] = ()
) -> None:
    """Raise GuestError for what lies outside, on another one, or on a table."""
    ordered = sorted(records.items(), key=lambda item: item[1].start)
    end = first - 1
    for number, record in ordered:
        if not first <= record.start <= record.last <= last:
            raise GuestError(
                f"{what} {number} has sectors {record.start} to {record.last}, "
                f"outside {first} to {last}"
            )
        if record.start <= end or any(record.start <= at <= record.last for at in tables):
            raise GuestError(f"{what} {number} lies on another one")
        end = record.last


def _records(sector: bytes, position: int) -> list[Record]:
    """The records in use of the table in sector ``position``, as they stand there."""
    offsets = range(_RECORDS, _RECORDS + 4 * RECORD.size, RECORD.size)
    records = [
        Record(position * SECTOR + offset, *RECORD.unpack_from(sector, offset))
        for offset in offsets
    ]
    return [record for record in records if record.sectors or record.kind == _PROTECTIVE]


def _number(record: Record) -> int:
    return (record.offset - _RECORDS) // RECORD.size + 1
