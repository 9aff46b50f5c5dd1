"""Partition tables on disks in memory: what is refused, what growth changes, and what a crash does.

``tests/system/test_partition_table.py`` holds the same functions against sfdisk and sgdisk.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snf_core.errors import GuestError
from snf_core.image import layout, partition_table
from snf_core.image.layout import SECTOR, Addition, Move, Resize

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from snf_core.image.gpt import Gpt
    from snf_core.image.mbr import Mbr

IMAGE = 8192
"""Sectors of an image."""
LINUX = bytes.fromhex("af3dc60f838472478e793d69d8477de4")
LINUX_TYPE = "0fc63daf-8483-4772-8e79-3d69d8477de4"
RECOVERY = bytes.fromhex("a4bb94ded106404da16abfd50179d6ac")


@dataclass
class Disk:
    """A disk in memory, sparse: only the sectors that were ever written are kept."""

    sectors: int
    written: dict[int, bytes] = field(default_factory=dict)
    reads: list[int] = field(default_factory=list)
    """Bytes of each read."""

    @property
    def size(self) -> int:
        return self.sectors * SECTOR

    def sector(self, number: int) -> bytes:
        return self.written.get(number, bytes(SECTOR))

    def read(self, offset: int, length: int) -> bytes:
        self.reads.append(length)
        first, last = offset // SECTOR, (offset + length - 1) // SECTOR
        content = b"".join(self.sector(number) for number in range(first, last + 1))
        return content[offset - first * SECTOR :][:length]

    def write(self, offset: int, content: bytes) -> None:
        for _ in self.write_stepwise(offset, content):
            pass

    def write_stepwise(self, offset: int, content: bytes) -> Iterator[None]:
        """Write, pausing after each sector."""
        while content:
            number, start = divmod(offset, SECTOR)
            old = self.sector(number)
            part = content[: SECTOR - start]
            self.written[number] = old[:start] + part + old[start + len(part) :]
            offset, content = offset + len(part), content[len(part) :]
            yield

    def load(self) -> Gpt | Mbr:
        return partition_table.load(self.read, self.size)

    def grow(self) -> list[layout.Write]:
        found = self.load()
        changes = layout.grow(found.table)
        writes = found.changes(changes)
        self.copy(changes)
        for offset, content in writes:
            self.write(offset, content)
        return writes

    def copy(self, changes: Sequence[layout.Change]) -> None:
        """The content of what moves."""
        starts = {p.number: p.start // SECTOR for p in self.load().table.partitions}
        for move in [change for change in changes if isinstance(change, Move)]:
            for sector in range(move.last_sector - move.first_sector + 1):
                content = self.sector(starts[move.number] + sector)
                self.written[move.first_sector + sector] = content


def gpt(
    partitions: Mapping[int, tuple[int, int]],
    sectors: int = IMAGE,
    *,
    entries: int = 128,
    types: Mapping[int, bytes] | None = None,
    fields: Mapping[int, bytes] | None = None,
    at: int = 2,
) -> Disk:
    """A disk with a GPT. ``partitions``: number -> first and last sector; ``fields`` are put into
    the header before it gets its checksum."""
    disk = Disk(sectors)
    array = bytearray(entries * 128)
    for number, (first, last) in partitions.items():
        kind = (types or {}).get(number, LINUX)
        struct.pack_into("<16s16sQQQ72s", array, (number - 1) * 128, kind, bytes([number] * 16),
                         first, last, 1 << 2, f"part {number}".encode("utf-16-le"))  # fmt: skip
    space = -(-len(array) // SECTOR)
    disk.write(at * SECTOR, bytes(array))
    disk.write((sectors - 1 - space) * SECTOR, bytes(array))
    for mine, other, where in ((1, sectors - 1, at), (sectors - 1, 1, sectors - 1 - space)):
        header = bytearray(SECTOR)
        struct.pack_into("<8sLLLLQQQQ16sQLLL", header, 0, b"EFI PART", 0x10000, 92, 0, 0, mine,
                         other, at + space, sectors - 2 - space, b"the disk's GUID!", where,
                         entries, 128, zlib.crc32(array))  # fmt: skip
        for offset, content in (fields or {}).items():
            header[offset : offset + len(content)] = content
        (length,) = struct.unpack_from("<L", header, 12)
        struct.pack_into("<L", header, 16, zlib.crc32(header[:length]))
        disk.write(mine * SECTOR, bytes(header))
    disk.write(0, b"boot code")
    disk.write(446, struct.pack("<B3sB3sLL", 0, b"\0\2\0", 0xEE, b"\xff" * 3, 1, sectors - 1))
    disk.write(510, b"\x55\xaa")
    return disk


Record = tuple[int, int, int]
"""Type, start and count as they stand in a table."""


def mbr(tables: Mapping[int, Sequence[Record]], sectors: int = IMAGE) -> Disk:
    """A disk with an MBR (sector 0) and tables of logical partitions."""
    disk = Disk(sectors)
    disk.write(0, b"boot code".ljust(440, b".") + struct.pack("<L", 0xDEADBEEF))
    for place, records in tables.items():
        for slot, (kind, start, count) in enumerate(records):
            record = struct.pack("<B3sB3sLL", 0x80, b"abc", kind, b"def", start, count)
            disk.write(place * SECTOR + 446 + slot * 16, record)
        disk.write(place * SECTOR + 510, b"\x55\xaa")
    return disk


LOGICAL = {
    0: [(0x83, 64, 100), (0x0F, 1000, 4000)],
    1000: [(0x83, 10, 500), (0x05, 2000, 1000)],
    3000: [(0x82, 10, 990), (0x05, 1000, 900)],
    2000: [(0x8E, 20, 400)],
}
"""A primary partition and three logical ones, the second of which is the last on the disk."""


class TestReading:
    def test_gpt(self) -> None:
        disk = gpt({3: (5000, 5999), 1: (34, 40), 128: (41, 4999)})
        table = disk.load().table
        assert (table.label, table.size) == ("gpt", IMAGE * SECTOR)
        assert [(p.number, p.start // SECTOR, p.size // SECTOR) for p in table.partitions] == [
            (1, 34, 7),
            (128, 41, 4959),
            (3, 5000, 1000),
        ]
        last = table.partitions[2]
        assert (last.type, last.name) == (LINUX_TYPE, "part 3")
        assert last.uuid == "03030303-0303-0303-0303-030303030303"
        assert disk.reads == [34 * SECTOR], "more than one message to the appliance"

    def test_an_image_smaller_than_the_disk(self) -> None:
        disk = gpt({1: (34, 8000)})
        disk.sectors = 1 << 20
        assert disk.load().table.size == 512 << 20

    def test_entries_in_another_place(self) -> None:
        table = gpt({200: (500, 600)}, entries=256, at=100).load().table
        assert [p.number for p in table.partitions] == [200]

    def test_mbr(self) -> None:
        table = mbr(LOGICAL).load().table
        assert table.label == "msdos"
        found = [(p.number, p.start // SECTOR, p.size // SECTOR, p.type) for p in table.partitions]
        assert found == [
            (1, 64, 100, "83"),
            (2, 1000, 4000, "0f"),
            (5, 1010, 500, "83"),
            (7, 2020, 400, "8e"),
            (6, 3010, 990, "82"),
        ]
        assert [p.uuid for p in table.partitions][-1] == "deadbeef-06"
        assert [p.name for p in table.partitions] == [""] * 5

    def test_primary_partitions_keep_their_places(self) -> None:
        table = mbr({0: [(0, 0, 0), (0x83, 500, 9), (0x07, 64, 9)]}).load().table
        assert [p.number for p in table.partitions] == [3, 2]

    def test_an_extended_partition_without_logical_ones(self) -> None:
        tables: dict[int, Sequence[Record]] = {0: [(0x05, 1000, 100)]}
        for sector in (0, 1000):  # without and with a table inside
            tables.setdefault(sector, [])
            assert [p.number for p in mbr(tables).load().table.partitions] == [1]

    def test_the_first_logical_partition_was_deleted(self) -> None:
        tables = {0: [(5, 1000, 4000)], 1000: [(0, 0, 0), (5, 50, 99)], 1050: [(0x83, 1, 98)]}
        table = mbr(tables).load().table
        assert [p.number for p in table.partitions] == [1, 5]

    def test_a_gpt_that_nothing_protects_does_not_count(self) -> None:
        disk = gpt({1: (34, 8000)})
        disk.write(446, struct.pack("<B3sB3sLL", 0, b"", 0x83, b"", 2048, 99))
        assert disk.load().table.label == "msdos"


def _u32(value: int) -> bytes:
    return struct.pack("<L", value)


def _u64(value: int) -> bytes:
    return struct.pack("<Q", value)


NORMAL = {1: (34, 1000), 2: (1001, 2000)}
GPT_DAMAGE: dict[str, tuple[Disk, str]] = {
    "length 0": (gpt(NORMAL, fields={12: _u32(0)}), "length of 0 bytes"),
    "length 91": (gpt(NORMAL, fields={12: _u32(91)}), "length of 91 bytes"),
    "huge length": (gpt(NORMAL, fields={12: _u32(2**32 - 1)}), "length of 4294967295"),
    "its place": (gpt(NORMAL, fields={24: _u64(2)}), "entries do not lie"),
    "last sector": (gpt(NORMAL, fields={48: _u64(IMAGE)}), "uses sectors 34 to 8192, .* 8192"),
    "huge last sector": (gpt(NORMAL, fields={48: _u64(2**64 - 1)}), "the disk has 8192"),
    "last before first": (gpt(NORMAL, fields={48: _u64(33)}), "uses sectors 34 to 33"),
    "first sector in the entries": (gpt(NORMAL, fields={40: _u64(33)}), "entries do not lie"),
    "entries in the header": (gpt(NORMAL, fields={72: _u64(1)}), "entries do not lie"),
    "entries at the end": (gpt(NORMAL, fields={72: _u64(IMAGE - 33)}), "entries do not lie"),
    "entries far away": (gpt(NORMAL, fields={72: _u64(2**64 - 1)}), "entries do not lie"),
    "no entries": (gpt(NORMAL, fields={80: _u32(0)}), "0 entries of 128"),
    "too many entries": (gpt(NORMAL, fields={80: _u32(1025)}), "1025 entries of 128"),
    "countless entries": (gpt(NORMAL, fields={80: _u32(2**32 - 1)}), "4294967295 entries"),
    "entries of no length": (gpt(NORMAL, fields={84: _u32(0)}), "128 entries of 0"),
    "entries of 256": (gpt(NORMAL, fields={84: _u32(256)}), "128 entries of 256"),
    "endless entries": (gpt(NORMAL, fields={84: _u32(2**32 - 1)}), "of 4294967295 bytes"),
    "their checksum": (gpt(NORMAL, fields={88: _u32(7)}), "checksum of the GPT's entries"),
    "overlap": (gpt({1: (34, 1000), 2: (1000, 2000)}), "partitions 1 and 2 overlap"),
    "inside": (gpt({1: (34, 1000), 2: (35, 40)}), "partitions 1 and 2 overlap"),
    "backwards": (gpt({1: (1000, 999)}), "has sectors 1000 to 999"),
    "in the entries": (gpt({1: (33, 99)}), "has sectors 33 to 99, outside 34 to 8158"),
    "in the backup": (gpt({1: (34, 8159)}), "has sectors 34 to 8159"),
    "beyond everything": (gpt({1: (34, 2**64 - 1)}), "has sectors 34 to 18446744073709551615"),
}

MBR_DAMAGE: dict[str, tuple[Disk, str]] = {
    "blank": (Disk(IMAGE), "no signature"),
    "tiny": (Disk(33), "too small"),
    "boot sector of a file system": (
        mbr({0: []}),
        "no partition table",
    ),
    "beyond the disk": (mbr({0: [(0x83, 64, IMAGE)]}), "partition 1 has sectors 64 to 8255"),
    "huge": (mbr({0: [(0x83, 2**32 - 1, 2**32 - 1)]}), "partition 1 has sectors 4294967295"),
    "the table itself": (mbr({0: [(0x83, 0, 99)]}), "sectors 0 to 98, outside 1"),
    "overlap": (mbr({0: [(0x83, 64, 10), (0x83, 73, 10)]}), "partition 2 lies on another"),
    "two extended": (mbr({0: [(5, 64, 10), (0xF, 80, 10)]}), "two extended"),
    "a loop of one": (mbr({0: [(5, 64, 99)], 64: [(0x83, 1, 2), (5, 0, 9)]}), "outside"),
    "a loop of two": (
        mbr({0: [(5, 64, 99)], 64: [(0x83, 1, 2), (5, 9, 9)], 73: [(0x83, 1, 2), (5, 9, 9)]}),
        "no end",
    ),
    "a link out": (mbr({0: [(5, 64, 99)], 64: [(0x83, 1, 2), (5, 99, 9)]}), "outside, in sector"),
    "a link far out": (mbr({0: [(5, 64, 99)], 64: [(5, 2**32 - 1, 9)]}), "outside, in sector"),
    "a link to nothing": (mbr({0: [(5, 64, 99)], 64: [(0x83, 1, 2), (5, 9, 9)]}), "sector 73 sh"),
    "an empty table": (
        mbr({0: [(5, 64, 99)], 64: [(0x83, 1, 2), (5, 9, 9)], 73: []}),
        "sector 73 describes not one",
    ),
    "two in a table": (mbr({0: [(5, 64, 99)], 64: [(0x83, 1, 2), (0x83, 4, 2)]}), "not one"),
    "two links": (mbr({0: [(5, 64, 99)], 64: [(5, 9, 9), (5, 20, 9)]}), "not one"),
    "logical outside": (mbr({0: [(5, 64, 99)], 64: [(0x83, 1, 99)]}), "partition 5 has sectors"),
    "logical on its table": (mbr({0: [(5, 64, 99)], 64: [(0x83, 0, 9)]}), "outside 65"),
    "logical overlap": (
        mbr({0: [(5, 64, 99)], 64: [(0x83, 10, 20), (5, 2, 9)], 66: [(0x83, 1, 20)]}),
        "partition 5 lies on another",
    ),
    "logical on a table": (
        mbr({0: [(5, 64, 99)], 64: [(0x83, 1, 20), (5, 9, 60)], 73: [(0x83, 20, 20)]}),
        "partition 5 lies on another",
    ),
}
MBR_DAMAGE["boot sector of a file system"][0].write(446, b"Disk error\r\n")


@pytest.mark.parametrize("name", [*GPT_DAMAGE, *MBR_DAMAGE])
def test_damage_is_refused(name: str) -> None:
    disk, message = {**GPT_DAMAGE, **MBR_DAMAGE}[name]
    with pytest.raises(GuestError, match=message):
        disk.load()


def test_a_damaged_checksum() -> None:
    disk = gpt(NORMAL)
    disk.write(SECTOR + 60, b"!")
    with pytest.raises(GuestError, match="checksum of the GPT's header"):
        disk.load()


def test_a_protective_mbr_without_a_gpt() -> None:
    disk = gpt(NORMAL)
    disk.write(SECTOR, bytes(SECTOR))
    with pytest.raises(GuestError, match="no GPT behind it"):
        disk.load()
    disk.write(4096, b"EFI PART")
    with pytest.raises(GuestError, match="sectors of 4096 bytes, and the disk has 512"):
        disk.load()
    disk.write(446 + 8, _u32(2))
    with pytest.raises(GuestError, match="does not begin at sector 1"):
        disk.load()


def test_a_chain_of_logical_partitions_is_bounded() -> None:
    tables: dict[int, Sequence[Record]] = {0: [(5, 100, 8000)]}
    for index in range(1000):
        tables[100 + 4 * index] = [(0x83, 1, 1), (5, 4 * (index + 1), 4)]
    disk = mbr(tables)
    with pytest.raises(GuestError, match="no end"):
        disk.load()
    assert len(disk.reads) < 300


def test_a_disk_that_ends_early() -> None:
    with pytest.raises(GuestError, match="ends at byte 3, before its size"):
        partition_table.load(lambda _offset, _length: b"abc", 1 << 20)


def test_entries_beyond_the_disk() -> None:
    """A disk so small that its table does not fit on it."""
    fields = {40: _u64(34), 48: _u64(39), 80: _u32(1024), 72: _u64(2)}
    disk = gpt({}, 256, fields={**fields, 40: _u64(258)})
    disk.sectors = 40
    with pytest.raises(GuestError):
        disk.load()


class TestGrowth:
    def test_gpt(self) -> None:
        disk = gpt({2: (34, 100), 5: (101, 8000)})
        disk.sectors = 1 << 20
        writes = disk.grow()
        assert disk.load().table.partitions[1].end == (disk.sectors - 2048) * SECTOR - 1
        end = disk.sectors - 1
        assert [(offset // SECTOR, len(content) // SECTOR) for offset, content in writes] == [
            (end - 32, 33),
            (0, 34),
            (IMAGE - 1, 1),
        ], "the backup, the primary, and the old backup's header"
        assert disk.sector(IMAGE - 1) == bytes(SECTOR)
        assert disk.sector(1)[40:56] == _u64(34) + _u64(end - 33)
        assert disk.sector(0)[446:462] == gpt({}).sector(0)[446:458] + _u32(end)
        assert backup_is_valid(disk)
        assert disk.grow() == []

    def test_the_backup_moves_even_where_no_partition_grows(self) -> None:
        disk = gpt({110: (34, 8158)})
        disk.sectors += 5
        assert layout.grow(disk.load().table) == ()
        disk.grow()
        assert backup_is_valid(disk)
        assert disk.sector(IMAGE - 1) != bytes(SECTOR), "part of the new backup was blanked"

    def test_a_partition_in_the_place_of_the_backup(self) -> None:
        disk = gpt({1: (34, 8190)}, fields={48: _u64(8190), 32: _u64(5)})
        with pytest.raises(GuestError, match="where the backup of the partition table must be"):
            disk.grow()

    def test_no_room_for_the_backup(self) -> None:
        disk = gpt({}, fields={40: _u64(8170), 48: _u64(8190)})
        found = disk.load()
        disk.sectors += 1
        with pytest.raises(GuestError, match="where the backup of the partition table must be"):
            disk.load().changes([])
        assert found.changes([]) == []

    @pytest.mark.parametrize("place", [0, 1, 5, 50, 8158, 2**40, 2**64 - 1])
    def test_what_a_table_names_as_its_backup_is_not_blanked_blindly(self, place: int) -> None:
        disk = gpt({1: (34, 8000)}, fields={32: _u64(place)})
        disk.sectors = 1 << 20
        assert [content for _, content in disk.grow() if not any(content)] == []

    def test_a_disk_beyond_what_an_mbr_can_say(self) -> None:
        disk = gpt({1: (34, 8000)})
        disk.sectors = 1 << 33
        disk.grow()
        assert disk.sector(0)[458:462] == _u32(2**32 - 1)

    def test_a_gpt_with_a_recovery_partition(self) -> None:
        disk = gpt({2: (2048, 4095), 5: (4096, 6143)}, types={5: RECOVERY})
        disk.write(6000 * SECTOR, b"to recover")
        disk.sectors = 1 << 16
        before = disk.load().table.partitions
        disk.grow()
        after = disk.load().table.partitions
        assert [(p.number, p.start // SECTOR, p.end // SECTOR) for p in after] == [
            (2, 2048, (1 << 16) - 4097),
            (5, (1 << 16) - 4096, (1 << 16) - 2049),
        ]
        assert [(p.uuid, p.name, p.type) for p in after] == [
            (p.uuid, p.name, p.type) for p in before
        ]
        assert disk.sector(after[1].start // SECTOR + 6000 - 4096).startswith(b"to recover")
        entry = disk.read(2 * SECTOR + 4 * 128, 128)
        assert struct.unpack_from("<Q", entry, 48) == (1 << 2,), "its attributes"
        assert disk.sector(IMAGE - 1) == bytes(SECTOR), "the old backup"
        assert backup_is_valid(disk)
        assert disk.grow() == []

    def test_what_moved_onto_the_old_backup_is_not_blanked(self) -> None:
        disk = gpt({2: (34, 2014), 5: (2015, 8158)}, types={5: RECOVERY})
        for sector in range(2015, 8159):
            disk.write(sector * SECTOR, b"to recover")
        disk.sectors = 8158 + 6144 + 2048 + 1
        disk.grow()
        last = disk.load().table.partitions[1]
        assert last.start // SECTOR <= IMAGE - 1
        for sector in range(last.start // SECTOR, last.end // SECTOR + 1):
            assert disk.sector(sector).startswith(b"to recover"), sector

    def test_a_hybrid_mbr_names_no_partition_beyond_its_end(self) -> None:
        disk = gpt({1: (2048, 4095), 2: (4096, 6143)}, types={2: RECOVERY})
        for slot, (kind, first) in enumerate([(0x07, 2048), (0x27, 4096)], start=1):
            record = struct.pack("<B3sB3sLL", 0, b"abc", kind, b"def", first, 2048)
            disk.write(446 + 16 * slot, record)
        disk.sectors = 1 << 33
        disk.grow()
        assert disk.sector(0)[478:494] == bytes(16)
        assert disk.sector(0)[462:478] == b"\0abc\x07\xfe\xff\xff" + _u32(2048) + _u32(2**32 - 2048)
        assert disk.load().table.partitions[1].start == ((1 << 33) - 4096) * SECTOR

    def test_an_addition_to_a_gpt(self) -> None:
        disk = gpt({1: (34, 5000), 3: (5001, 6000)})
        found = disk.load()
        added = Addition(2, 6144, 7935, LINUX_TYPE, "cidata", 1 << 63)
        for offset, content in found.changes([added]):
            disk.write(offset, content)
        now = disk.load().table.partitions
        assert [p.number for p in now] == [1, 3, 2]
        assert (now[2].start, now[2].size) == (6144 * SECTOR, 1792 * SECTOR)
        assert (now[2].type, now[2].name) == (LINUX_TYPE, "cidata")
        assert now[2].uuid not in {partition.uuid for partition in now[:2]}
        assert struct.unpack_from("<Q", disk.read(2 * SECTOR + 128, 128), 48) == (1 << 63,)
        assert backup_is_valid(disk)
        assert now[:2] == found.table.partitions

    def test_an_addition_to_a_full_gpt(self) -> None:
        full = gpt({number: (99 + number, 99 + number) for number in range(1, 5)}, entries=4)
        with pytest.raises(GuestError, match="all 4 are in use"):
            full.load().changes([Addition(5, 6144, 7935, LINUX_TYPE)])

    def test_an_addition_in_the_place_of_the_backup(self) -> None:
        with pytest.raises(GuestError, match="where the backup of the partition table must be"):
            gpt(NORMAL).load().changes([Addition(3, 6144, 8159, LINUX_TYPE)])

    def test_an_mbr_with_a_recovery_partition(self) -> None:
        disk = mbr({0: [(0x07, 64, 1000), (0x07, 1064, 1000), (0x27, 2064, 100)]})
        disk.sectors = 1 << 20
        last = 2163 + ((1 << 20) - 2049 - 2163) // 2048 * 2048
        first = last - 99
        assert disk.grow() == [
            (446 + 32, b"\x80" + chs(first) + b"\x27" + chs(last) + _u32(first) + _u32(100)),
            (446 + 16, b"\x80abc\x07" + chs(first - 1) + _u32(1064) + _u32(first - 1064)),
        ]
        assert disk.grow() == []

    def test_an_addition_to_an_mbr(self) -> None:
        disk = mbr({0: [(0x07, 64, 1000), (0, 0, 0), (0x07, 1064, 1000)]})
        [write] = disk.load().changes([Addition(2, 4096, 5887, "01", "no name", 1)])
        assert write == (
            446 + 16,
            b"\0" + chs(4096) + b"\x01" + chs(5887) + _u32(4096) + _u32(1792),
        )

    def test_mbr(self) -> None:
        disk = mbr(LOGICAL)
        disk.sectors = 1 << 20
        last = disk.sectors - 2049
        assert disk.grow() == [
            (446 + 16, struct.pack("<B3sB3sLL", 0x80, b"abc", 0x0F, chs(last), 1000, last - 999)),
            (1000 * SECTOR + 462,
             struct.pack("<B3sB3sLL", 0x80, b"abc", 5, chs(last), 2000, last - 2999)),
            (3000 * SECTOR + 446,
             struct.pack("<B3sB3sLL", 0x80, b"abc", 0x82, chs(last), 10, last - 3009)),
        ]  # fmt: skip
        assert disk.sector(0).startswith(b"boot code")
        assert disk.grow() == []

    @pytest.mark.parametrize("sectors", [1 << 24, 1 << 32, 1 << 40])
    def test_addresses_beyond_the_last_cylinder(self, sectors: int) -> None:
        disk = mbr({0: [(0x83, 64, 100)]})
        disk.sectors = sectors
        [(_, content)] = disk.grow()
        assert content[5:8] == b"\xfe\xff\xff"
        assert 64 + struct.unpack("<L", content[12:])[0] == min(sectors - 2048, 2**32)


def chs(sector: int) -> bytes:
    """By the definition: 63 sectors a track, counted from one, and 255 heads a cylinder."""
    cylinder, head = sector // 63 // 255, sector // 63 % 255
    return bytes([head, (sector % 63 + 1) | cylinder // 256 * 64, cylinder % 256])


def backup_is_valid(disk: Disk) -> bool:
    """Whether the header in the last sector, and the entries it names, are sound."""
    header = disk.sector(disk.sectors - 1)
    fields = struct.unpack_from("<8sLLLLQQQQ16sQLLL", header)
    signature, _, length, checksum, _, mine, other, first, last, _, where, count, each, sums = (
        fields
    )
    if signature != b"EFI PART" or length != 92 or mine != disk.sectors - 1 or other != 1:
        return False
    if zlib.crc32(header[:16] + bytes(4) + header[20:92]) != checksum:
        return False
    entries = disk.read(where * SECTOR, count * each)
    inside = first <= last < where and where + len(entries) // SECTOR <= mine
    return bool(inside and zlib.crc32(entries) == sums)


@st.composite
def gpts(draw: st.DrawFn) -> Disk:
    """Sound GPTs on disks larger than the image."""
    bounds = sorted(draw(st.sets(st.integers(600, IMAGE - 300), min_size=2, max_size=10)))
    ranges = [(first, last - 1) for first, last in zip(bounds[::2], bounds[1::2], strict=False)]
    entries = draw(st.integers(5, 1024))
    numbers = draw(st.permutations(range(1, 6)))
    disk = gpt(
        dict(zip(numbers, ranges, strict=False)), entries=entries, at=draw(st.sampled_from([2, 99]))
    )
    disk.sectors += draw(st.integers(0, 80) | st.integers(0, 1 << 33))
    return disk


@st.composite
def mbrs(draw: st.DrawFn) -> Disk:
    """Sound MBRs with up to eight partitions, some of them logical in any order."""
    numbers = st.integers(100, IMAGE - 1)
    bounds = sorted(draw(st.sets(numbers, min_size=4, max_size=16)))
    ranges = list(zip(bounds[::2], bounds[1::2], strict=False))
    split = draw(st.integers(0, min(3, len(ranges) - 1)))
    primaries = [(0x83, first, last - first) for first, last in ranges[:split]]
    inside = [(first, last) for first, last in ranges[split:] if last - first > 1]
    if not inside:
        return mbr({0: primaries or [(0x83, 64, 9)]})
    base = inside[0][0] - 1
    container = (0x05, base, inside[-1][1] - base)
    order = inside[:1] + draw(st.permutations(inside[1:]))
    tables: dict[int, Sequence[Record]] = {0: draw(st.permutations([*primaries, container]))}
    places = [base, *(first for first, _ in order[1:])]
    for index, (place, (_, last)) in enumerate(zip(places, order, strict=True)):
        records = [(0x83, 1, last - place - 1)]
        if index + 1 < len(order):
            following, (first, end) = places[index + 1], order[index + 1]
            records.append((0x05, following - base, end - first))
        tables[place] = records
    disk = mbr(tables)
    disk.sectors += draw(st.integers(0, 5000) | st.integers(0, 1 << 33))
    return disk


@given(gpts() | mbrs())
def test_growth(disk: Disk) -> None:
    """It follows the plan, keeps what partitions hold and are, and is done once and for all."""
    before, content = disk.load().table, dict(disk.written)
    wanted = {resize.number: resize.last_sector for resize in layout.grow(before)}
    writes = disk.grow()
    after = disk.load().table
    for old, new in zip(before.partitions, after.partitions, strict=True):
        end = (wanted[old.number] + 1) * SECTOR - 1 if old.number in wanted else old.end
        assert (new.number, new.start, new.end) == (old.number, old.start, end)
        assert (new.type, new.uuid, new.name) == (old.type, old.uuid, old.name)
    assert disk.grow() == []
    changed = [n for n in disk.written if disk.sector(n) != content.get(n, bytes(SECTOR))]
    data = [p for p in before.partitions if not before.is_extended(p)]
    for number in changed:
        assert not any(p.start <= number * SECTOR <= p.end for p in data), "a partition's content"
    if before.label == "gpt":
        assert backup_is_valid(disk)
        assert disk.sector(1)[56:72] == b"the disk's GUID!"
    else:
        assert sum(len(piece) for _, piece in writes) <= 3 * 16


@given(gpts() | mbrs())
def test_a_crash_while_growing_leaves_a_valid_table(disk: Disk) -> None:
    before = disk.load().table
    found = disk.load()
    for offset, content in found.changes(layout.grow(before)):
        for _ in disk.write_stepwise(offset, content):
            try:
                now = disk.load().table
            except GuestError:
                assert before.label == "gpt"
                assert backup_is_valid(disk)
            else:
                kept = [(p.number, p.start) for p in now.partitions]
                assert kept == [(p.number, p.start) for p in before.partitions]
    assert disk.grow() == []


@st.composite
def followed(draw: st.DrawFn) -> Disk:
    """Disks whose data partition has others behind it, each sector of them with its number."""
    bounds = sorted(draw(st.sets(st.integers(40, 300), min_size=4, max_size=8)))
    ranges = [(first, last - 1) for first, last in zip(bounds[::2], bounds[1::2], strict=False)]
    numbers = draw(st.permutations(range(1, 5)))
    places = dict(zip(numbers, ranges, strict=False))
    data = draw(st.sampled_from(list(places)))
    if draw(st.booleans()):
        disk = gpt(places, 400, types=dict.fromkeys(set(places) - {data}, RECOVERY))
    else:
        records = {n: (0x07 if n == data else 0x27, a, b - a + 1) for n, (a, b) in places.items()}
        disk = mbr({0: [records.get(number, (0, 0, 0)) for number in range(1, 5)]}, 400)
    for first, last in ranges:
        for sector in range(first, last + 1):
            disk.write(sector * SECTOR, b"%d" % sector)
    disk.sectors += draw(st.integers(0, 6000))
    return disk


@given(followed())
def test_a_crash_while_moving_loses_nothing(disk: Disk) -> None:
    """At every moment, each partition of a valid table has all of its content."""
    found = disk.load()
    wanted = {p.number: [disk.sector(n) for n in _sectors_of(p)] for p in found.table.partitions}
    changes = layout.grow(found.table)
    writes = found.changes(changes)
    disk.copy(changes)
    for offset, content in [(0, b""), *writes]:
        for _ in [None, *disk.write_stepwise(offset, content)]:
            try:
                now = disk.load().table
            except GuestError:
                assert found.table.label == "gpt"
                assert backup_is_valid(disk)
                continue
            for partition in now.partitions:
                kept = wanted[partition.number]
                assert [disk.sector(n) for n in _sectors_of(partition)[: len(kept)]] == kept
    assert disk.grow() == []


def _sectors_of(partition: layout.Partition) -> range:
    return range(partition.start // SECTOR, partition.end // SECTOR + 1)


@given(
    st.sampled_from([gpt(NORMAL), gpt({1: (600, 8000)}, entries=1024), mbr(LOGICAL)]),
    st.lists(
        st.tuples(
            st.integers(0, 110) | st.integers(440, 512) | st.integers(0, 40 * SECTOR),
            st.sampled_from([b"\0", b"\xff", b"\xff\xff\xff\xff"]) | st.binary(max_size=24),
            st.sampled_from([0, 0, 1, 2, 1000, 2000, 3000]),
        ),
        max_size=8,
    ),
    st.booleans(),
    st.sampled_from([0, 1, 33, 34, 100, 8191, 8192, 9000, 1 << 40]),
)
def test_hostile_bytes(
    disk: Disk, damage: Sequence[tuple[int, bytes, int]], sealed: bool, sectors: int
) -> None:
    """Refused, or read and grown; never anything else, and never read without end."""
    hostile = Disk(sectors, dict(disk.written))
    for offset, content, sector in damage:
        hostile.write(sector * SECTOR + offset, content)
    if sealed:  # checksums are no obstacle to whoever means it
        header = hostile.sector(1)
        (where, count) = struct.unpack_from("<QL", header, 72)
        if where < 100 and count < 2000:
            hostile.write(SECTOR + 88, _u32(zlib.crc32(hostile.read(where * SECTOR, count * 128))))
        header = hostile.sector(1)
        (length,) = struct.unpack_from("<L", header, 12)
        content = (header[:16] + bytes(4) + header[20:])[:length]
        hostile.write(SECTOR + 16, _u32(zlib.crc32(content)))
    hostile.reads.clear()
    try:
        found = hostile.load()
        resizes = layout.grow(found.table)
        writes = found.changes(resizes)
    except GuestError:
        pass
    else:
        assert all(0 <= offset <= hostile.size - len(content) for offset, content in writes)
        assert all(isinstance(resize, Resize | Move) for resize in resizes)
        for offset, content in writes:
            hostile.write(offset, content)
        assert hostile.grow() == []
    assert len(hostile.reads) < 600
    assert sum(hostile.reads) < 1 << 20


@given(st.binary(min_size=512, max_size=2048), st.booleans(), st.integers(34, 1 << 40))
def test_noise(content: bytes, signed: bool, sectors: int) -> None:
    disk = Disk(sectors)
    disk.write(0, content)
    if signed:
        disk.write(446, bytes([0x80]))
        disk.write(510, b"\x55\xaa")
    try:
        disk.load()
    except GuestError:
        assert sum(disk.reads) < 1 << 20
