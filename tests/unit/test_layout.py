"""Growth of partition tables: exact ends, and properties that no table may break."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snf_core.errors import GuestError
from snf_core.image.layout import (
    RESERVED,
    SECTOR,
    Partition,
    Resize,
    Table,
    grow,
    last_data_partition,
)

MIB = 1 << 20
GIB = 1 << 30
TIB = 1 << 40
LINUX = "0fc63daf-8483-4772-8e79-3d69d8477de4"


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
