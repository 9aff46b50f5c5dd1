"""Growth of partition tables: exact ends, and properties that no table may break."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snf_core.errors import GuestError
from snf_core.image.layout import (
    RESERVED,
    SECTOR,
    SEED_NAME,
    Addition,
    Move,
    Partition,
    Resize,
    Table,
    add,
    explain,
    grow,
    last_data_partition,
)

MIB = 1 << 20
GIB = 1 << 30
TIB = 1 << 40
LINUX = "0fc63daf-8483-4772-8e79-3d69d8477de4"
BASIC = "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7"
RECOVERY = "de94bba4-06d1-4d40-a16a-bfd50179d6ac"
MICROSOFT_RESERVED = "e3c9e316-0b5c-4db8-817d-f92df00215ae"


def part(number: int, start: int, end: int, kind: str = "83") -> Partition:
    """A partition from MiB ``start`` up to but not including MiB ``end``."""
    return Partition(number, start * MIB, end * MIB - 1, kind)


def gpt(size: int, *partitions: Partition) -> Table:
    return Table("gpt", size, partitions)


def mbr(size: int, *partitions: Partition) -> Table:
    return Table("msdos", size, partitions)


def test_the_historical_end_on_one_gibibyte() -> None:
    """2048 sectors stay free, so the last used one is the size minus 2049."""
    assert grow(gpt(GIB, part(1, 1, 500, LINUX))) == (Resize(1, 2095103),)
    assert grow(mbr(GIB, part(1, 1, 500))) == (Resize(1, 2095103),)


def test_a_size_that_is_no_multiple_of_sectors() -> None:
    assert grow(gpt(GIB + 511, part(1, 1, 500))) == grow(gpt(GIB, part(1, 1, 500)))


def test_a_logical_partition_grows_with_the_extended_one_around_it() -> None:
    table = mbr(GIB, part(1, 1, 100), part(2, 100, 500, "05"), part(5, 101, 200), part(6, 201, 500))
    assert grow(table) == (Resize(2, 2095103), Resize(6, 2095103))


@pytest.mark.parametrize("kind", ["05", "0f", "85"])
def test_all_types_of_extended_partitions(kind: str) -> None:
    table = mbr(GIB, part(4, 100, 500, kind), part(5, 101, 500))
    assert [resize.number for resize in grow(table)] == [4, 5]


def test_an_extended_partition_that_is_large_enough_stays() -> None:
    table = mbr(GIB, part(2, 100, 1023, "05"), part(5, 101, 200))
    assert grow(table) == (Resize(5, 2095103),)


def test_a_primary_after_the_logical_ones_grows_and_not_the_extended() -> None:
    table = mbr(GIB, part(1, 1, 100), part(2, 100, 300, "05"), part(5, 101, 300), part(3, 300, 500))
    assert grow(table) == (Resize(3, 2095103),)


def test_the_last_on_the_disk_counts_not_the_last_number() -> None:
    table = gpt(GIB, part(2, 1, 100), part(3, 100, 200), part(1, 200, 500))
    assert last_data_partition(table).number == 1
    assert grow(table) == (Resize(1, 2095103),)
    assert grow(gpt(GIB, part(128, 1, 100), part(7, 200, 300))) == (Resize(7, 2095103),)


def test_an_empty_extended_partition_at_the_end_is_not_grown_over() -> None:
    """What lies before it is the last that holds data, and can only grow up to it."""
    table = mbr(GIB, part(1, 1, 100), part(2, 150, 500, "0f"))
    assert last_data_partition(table).number == 1
    assert grow(table) == (Resize(1, 150 * MIB // 512 - 1),)
    assert grow(mbr(GIB, part(1, 1, 100), part(2, 100, 500, "05"))) == ()


@pytest.mark.parametrize("size", [GIB, GIB - MIB, GIB - 2 * MIB, 900 * MIB, MIB, 0])
def test_nothing_shrinks(size: int) -> None:
    """A disk of the image's size, or smaller by an alignment."""
    for label in ("gpt", "msdos"):
        assert grow(Table(label, size, (part(1, 1, 1023),))) == ()


def test_one_sector_more_is_taken() -> None:
    table = gpt(GIB + 512, part(1, 1, 1023))
    assert grow(table) == (Resize(1, 2095104),)


def test_an_mbr_ends_at_two_tebibytes() -> None:
    assert grow(mbr(3 * TIB, part(1, 1, 500))) == (Resize(1, (1 << 32) - 1),)
    assert grow(mbr(3 * TIB, part(1, 1, 2 * TIB // MIB))) == ()
    assert grow(gpt(3 * TIB, part(1, 1, 500))) == (Resize(1, 3 * TIB // 512 - 2049),)


@pytest.mark.parametrize("table", [gpt(GIB), mbr(GIB), mbr(GIB, part(1, 1, 9, "05"))])
def test_a_table_without_a_partition_is_an_error(table: Table) -> None:
    with pytest.raises(GuestError, match="without a partition to grow") as caught:
        grow(table)
    assert "root file system" in caught.value.remedy


@pytest.mark.parametrize(
    "table",
    [
        mbr(GIB, part(5, 100, 200)),
        mbr(GIB, part(1, 1, 50, "05"), part(5, 100, 200)),
        mbr(GIB, part(1, 150, 250, "05"), part(5, 100, 200)),
    ],
)
def test_a_logical_partition_outside_an_extended_one_is_damage(table: Table) -> None:
    with pytest.raises(GuestError, match="damaged: partition 5"):
        grow(table)


def test_an_extended_type_means_nothing_in_a_gpt() -> None:
    table = gpt(GIB, part(1, 1, 100, "05"), part(5, 100, 200, "05"))
    assert grow(table) == (Resize(5, 2095103),)


@st.composite
def tables(draw: st.DrawFn) -> Table:
    """Tables whose partitions, in any numbering, do not overlap."""
    label = draw(st.sampled_from(["gpt", "msdos"]))
    bounds = sorted(draw(st.sets(st.integers(1, 4096), min_size=2, max_size=8)))
    pairs = list(zip(bounds[::2], bounds[1::2], strict=False))
    numbers = draw(st.permutations(range(1, 5)))
    partitions = [
        Partition(number, start * MIB, end * MIB - 1, draw(st.sampled_from(["83", "07", "05"])))
        for number, (start, end) in zip(numbers, pairs, strict=False)
    ]
    containers = [p for p in partitions if p.type == "05"]
    if label == "msdos" and containers and containers[0].size > 4 * MIB:
        end = containers[0].end - draw(st.integers(0, MIB))
        partitions.append(Partition(5, containers[0].start + MIB, end, "83"))
    return Table(label, draw(st.integers(0, 8192 * MIB)), tuple(partitions))


@given(tables())
def test_growth_never_shrinks_overlaps_or_leaves_the_disk(table: Table) -> None:
    try:
        growth = grow(table)
    except GuestError:
        assert all(table.is_extended(partition) for partition in table.partitions)
        return
    ends = {resize.number: (resize.last_sector + 1) * SECTOR for resize in growth}
    for old in table.partitions:
        end = ends.get(old.number, old.end + 1)
        assert end >= old.end + 1
        if old.number in ends:
            assert end > old.end + 1
            assert end <= table.size - RESERVED * 512
        for other in table.partitions:
            if other.start > old.start and not _inside(table, other, old):
                assert end <= other.start
            elif _inside(table, other, old):
                assert ends.get(other.number, other.end + 1) <= end
    assert last_data_partition(table).number in ends or len(ends) == 0


def _inside(table: Table, one: Partition, other: Partition) -> bool:
    return table.is_logical(one) and table.is_extended(other) and one.start <= other.end


def mib(value: int) -> int:
    """Sectors."""
    return value * MIB // SECTOR


WINDOWS = (
    part(1, 1, 101, "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"),
    part(2, 101, 117, MICROSOFT_RESERVED),
    part(3, 117, 60 * 1024, BASIC),
    part(4, 60 * 1024, 60 * 1024 + 500, RECOVERY),
)


class TestWhatFollows:
    def test_the_recovery_partition_moves_to_the_end_and_windows_grows(self) -> None:
        table = gpt(100 * GIB, *WINDOWS)
        end = 100 * 1024 - 1
        assert last_data_partition(table).number == 3
        changes = grow(table)
        assert changes == (Move(4, mib(end - 500), mib(end) - 1), Resize(3, mib(end - 500) - 1))
        assert explain(table, changes) == [
            "partition 4 (recovery, 500 MiB) moves from 60.0 GiB to 99.5 GiB",
            "partition 3 grows from 59.9 GiB to 99.4 GiB",
            "Windows finds the moved recovery environment when that is next enabled "
            "(reagentc /enable)",
        ]

    def test_on_an_mbr_with_system_reserved(self) -> None:
        table = mbr(GIB, part(1, 1, 50, "07"), part(2, 50, 300, "07"), part(3, 300, 320, "27"))
        assert grow(table) == (Move(3, mib(1003), mib(1023) - 1), Resize(2, mib(1003) - 1))

    def test_what_follows_keeps_its_order_and_its_gaps(self) -> None:
        table = gpt(
            GIB,
            part(9, 1, 300, BASIC),
            part(2, 310, 330, MICROSOFT_RESERVED),
            part(7, 340, 400, RECOVERY),
        )
        changes = grow(table)
        assert changes == (
            Move(7, mib(963), mib(1023) - 1),
            Move(2, mib(933), mib(953) - 1),
            Resize(9, mib(933) - 1),
        )
        assert [line.split(" moves ")[0] for line in explain(table, changes)[:2]] == [
            "partition 7 (recovery, 60 MiB)",
            "partition 2 (Microsoft reserved, 20 MiB)",
        ]

    @pytest.mark.parametrize(("more", "moves"), [(21, True), (20, False), (2, False)])
    def test_it_stays_where_it_would_be_copied_over_itself(self, more: int, moves: bool) -> None:
        """Data are never lost, even if the appliance dies in the midst of it."""
        table = gpt((320 + more) * MIB, part(1, 1, 300, BASIC), part(2, 300, 320, RECOVERY))
        changes = grow(table)
        assert [type(change) for change in changes] == ([Move, Resize] if moves else [])
        if not moves:
            assert explain(table, changes) == [
                "partition 1 does not grow beyond partition 2 behind it, which stays: the disk "
                f"has {more - 1} MiB more, less than to move it safely"
            ]

    @pytest.mark.parametrize("size", [0, 320 * MIB, 320 * MIB + 512, 321 * MIB, 322 * MIB - 512])
    def test_nothing_is_said_where_the_disk_is_not_larger(self, size: int) -> None:
        table = gpt(size, part(1, 1, 300, BASIC), part(2, 300, 320, RECOVERY))
        assert grow(table) == ()
        assert explain(table, ()) == []

    def test_a_gap_before_it_is_filled_all_the_same(self) -> None:
        table = gpt(320 * MIB, part(1, 1, 200, BASIC), part(2, 300, 320, RECOVERY))
        assert grow(table) == (Resize(1, mib(300) - 1),)

    def test_it_keeps_its_alignment(self) -> None:
        one, two = part(1, 1, 200, BASIC), part(2, 200, 220, RECOVERY)
        change = grow(gpt(GIB + 5 * SECTOR, one, two))[0]
        assert isinstance(change, Move)
        assert change.first_sector % RESERVED == 0

    def test_where_nothing_else_holds_data_it_grows(self) -> None:
        assert grow(gpt(GIB, part(1, 1, 200, RECOVERY))) == (Resize(1, 2095103),)

    def test_what_is_said_of_simple_growth_is_nothing(self) -> None:
        for table in (gpt(GIB, part(1, 1, 500, LINUX)), mbr(GIB, part(1, 1, 500))):
            assert explain(table, grow(table)) == []

    def test_an_extended_partition_behind_does_not_move(self) -> None:
        table = mbr(GIB, part(1, 1, 100, "07"), part(2, 100, 110, "27"), part(3, 110, 120, "0f"))
        assert grow(table) == ()
        assert explain(table, ()) == []

    def test_nor_does_a_logical_one(self) -> None:
        logical = (part(2, 100, 300, "0f"), part(5, 101, 200, "07"), part(6, 201, 300, "27"))
        assert grow(mbr(GIB, *logical)) == (Resize(5, mib(201) - 1),)

    def test_a_logical_one_grows_up_to_what_moves(self) -> None:
        table = mbr(GIB, part(2, 100, 300, "0f"), part(5, 101, 300, "07"), part(3, 300, 310, "27"))
        end = mib(1013) - 1
        assert grow(table) == (Move(3, end + 1, mib(1023) - 1), Resize(2, end), Resize(5, end))


class TestAddition:
    def test_it_lies_in_what_growth_leaves(self) -> None:
        table = gpt(GIB, part(1, 1, 900, BASIC), part(3, 900, 1023, BASIC))
        assert add(table, 1792, BASIC, SEED_NAME, 1 << 63) == Addition(
            2, mib(1023), mib(1023) + 1791, BASIC, SEED_NAME, 1 << 63
        )
        assert grow(replace(table, partitions=(*table.partitions, seed(table)))) == ()

    @pytest.mark.parametrize("label", ["gpt", "msdos"])
    def test_it_follows_when_the_disk_grows_again(self, label: str) -> None:
        small = Table(label, GIB, (part(1, 1, 1023, "07"),))
        table = Table(label, 2 * GIB, (*small.partitions, seed(small)))
        assert last_data_partition(table).number == 1
        move, resize = grow(table)
        assert isinstance(move, Move)
        assert move.last_sector < mib(2047)
        assert resize == Resize(1, move.first_sector - 1)
        assert not any("reagentc" in line for line in explain(table, (move, resize)))

    def test_no_room(self) -> None:
        for table in (
            gpt(GIB, part(1, 1, 1023), Partition(2, 1023 * MIB, 1023 * MIB + 511, BASIC)),
            mbr(GIB, part(1, 1, 1024)),
            mbr(3 * TIB, part(1, 1, 2)),
        ):
            with pytest.raises(GuestError, match="no room for a partition of 1 MiB") as caught:
                add(table, 1792, "01")
            assert "larger" in caught.value.remedy

    def test_no_fifth_primary_partition(self) -> None:
        table = mbr(GIB, *(part(number, number, number + 1) for number in range(1, 5)))
        with pytest.raises(GuestError, match="no place for one more primary"):
            add(table, 1792, "01")
        assert add(replace(table, label="gpt"), 1792, BASIC).number == 5


def seed(table: Table) -> Partition:
    """The partition that an addition makes."""
    added = add(table, 1792, "01" if table.label == "msdos" else BASIC, SEED_NAME)
    start, end = added.first_sector * SECTOR, (added.last_sector + 1) * SECTOR - 1
    name = added.name if table.label == "gpt" else ""
    return Partition(added.number, start, end, added.type, name=name)


@st.composite
def followed_tables(draw: st.DrawFn) -> Table:
    """Tables with anything before, between and behind, recovery partitions above all."""
    label = draw(st.sampled_from(["gpt", "msdos"]))
    kinds = {"gpt": [BASIC, RECOVERY, RECOVERY, MICROSOFT_RESERVED], "msdos": ["07", "27", "27"]}
    bounds = sorted(draw(st.sets(st.integers(2048, 1 << 20), min_size=2, max_size=8)))
    numbers = draw(st.permutations(range(1, 5)))
    partitions = tuple(
        Partition(number, first * SECTOR, last * SECTOR - 1, draw(st.sampled_from(kinds[label])))
        for number, (first, last) in zip(
            numbers, zip(bounds[::2], bounds[1::2], strict=False), strict=False
        )
    )
    return Table(label, draw(st.integers(0, 1 << 22)) * SECTOR, partitions)


@given(followed_tables())
def test_growth_with_moves_keeps_all_that_there_is(table: Table) -> None:
    changes = grow(table)
    places = {p.number: (p.start // SECTOR, p.end // SECTOR) for p in table.partitions}
    old = dict(places)
    moved = [change for change in changes if isinstance(change, Move)]
    for change in changes:
        first = change.first_sector if isinstance(change, Move) else places[change.number][0]
        places[change.number] = (first, change.last_sector)
    for number, (first, last) in places.items():
        sizes = last - first, old[number][1] - old[number][0]
        assert sizes[0] >= sizes[1]
        if number in {move.number for move in moved}:
            assert sizes[0] == sizes[1]
        else:
            assert first == old[number][0]
        if places[number] != old[number]:
            assert last < table.size // SECTOR - RESERVED
    order = sorted(places, key=lambda number: places[number])
    assert order == sorted(old, key=lambda number: old[number])
    for one, other in itertools.pairwise(order):
        assert places[one][1] < places[other][0]
    for move in moved:  # nothing that is still to be read is overwritten
        assert all(last < move.first_sector for _, last in old.values())
    if moved:
        assert explain(table, changes)
    now = tuple(
        replace(p, start=places[p.number][0] * SECTOR, end=(places[p.number][1] + 1) * SECTOR - 1)
        for p in table.partitions
    )
    assert grow(replace(table, partitions=now)) == (), "growing again changes something"
