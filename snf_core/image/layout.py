"""Partition tables: what is on a disk, and a plan of how to let it fill a larger one.

Pure data and arithmetic, in bytes and sectors; ``partition_table`` reads and changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from snf_core.errors import GuestError

if TYPE_CHECKING:
    from collections.abc import Sequence

SECTOR = 512
"""Bytes of a logical sector: those of the appliance's disks are never of another size."""

RESERVED = 2048
"""Sectors left free at the disk's end: room for the backup GPT (33), alignment, and a small
partition that is added later."""

SEED_NAME = "cidata"
"""The name, in a GPT, of a partition that we add for a guest to read its configuration from."""

EXTENDED = frozenset({"05", "0f", "85"})
"""MBR types of extended partitions."""

_FOLLOWING = {
    "de94bba4-06d1-4d40-a16a-bfd50179d6ac": "recovery",
    "27": "recovery",
    "e3c9e316-0b5c-4db8-817d-f92df00215ae": "Microsoft reserved",
    "01": "configuration",
}
"""Partitions that are no data of the guest's, and stay behind those that are: by types of a GPT
and an MBR, what they are for. 01 is FAT12, for which a partition of today is too large but ours."""

_PRIMARIES = 4
_ALIGNMENT = 2048
"""Sectors: what moves, moves by multiples of it."""
_MBR_LIMIT = 1 << 32
"""Sectors an MBR can address."""


@dataclass(frozen=True)
class Partition:
    """One partition; ``start`` and ``end`` (its last byte) count from the disk's beginning."""

    number: int
    start: int
    end: int
    type: str
    """GPT: type GUID in lower case. MBR: type byte as two hexadecimal digits."""
    uuid: str = ""
    """PARTUUID, in lower case."""
    name: str = ""
    """PARTLABEL; an MBR has none."""

    @property
    def size(self) -> int:
        """Bytes."""
        return self.end - self.start + 1


@dataclass(frozen=True)
class Table:
    """The partition table of a disk of ``size`` bytes, its partitions in the disk's order."""

    label: str
    """``gpt`` or ``msdos``."""
    size: int
    partitions: tuple[Partition, ...]

    def is_extended(self, partition: Partition) -> bool:
        """Whether a partition is the container of the logical ones."""
        return self.label == "msdos" and partition.type in EXTENDED

    def is_logical(self, partition: Partition) -> bool:
        """Whether a partition lies inside the extended one."""
        return self.label == "msdos" and partition.number > _PRIMARIES


@dataclass(frozen=True)
class Resize:
    """Let partition ``number`` end at ``last_sector`` (in logical sectors)."""

    number: int
    last_sector: int


@dataclass(frozen=True)
class Move:
    """Let partition ``number``, content and all, lie elsewhere, where nothing lies."""

    number: int
    first_sector: int
    last_sector: int


@dataclass(frozen=True)
class Addition:
    """Add partition ``number``, where nothing lies."""

    number: int
    first_sector: int
    last_sector: int
    type: str
    """As that of a Partition."""
    name: str = ""
    attributes: int = 0
    """Those of a GPT (UEFI specification, 5.3.3). An MBR has neither these nor names."""


Change = Resize | Move | Addition

Write = tuple[int, bytes]
"""Bytes to write to a disk, and where."""


def last_data_partition(table: Table) -> Partition:
    """The partition that grows with the disk: the last one on it that holds data.

    Those that only follow it (recovery, reserved, ours) count where there is no other. Raises
    GuestError where there is none.
    """
    candidates = [p for p in table.partitions if not table.is_extended(p)]
    if not candidates:
        raise GuestError(
            "the disk has a partition table without a partition to grow",
            remedy="deploy an image that has its root file system on a partition",
        )
    data = [p for p in candidates if not _purpose(table, p)]
    return max(data or candidates, key=lambda partition: partition.start)


def grow(table: Table) -> tuple[Resize | Move, ...]:
    """How to let the last data partition (and the extended one around it) fill the disk, in order.

    What follows it moves to the disk's end, as one block, if it can be copied there without
    overwriting itself: until the table is written, and whatever happens before, all is still in
    its old place. Otherwise all stays, for the sake of less than what the block takes, until the
    disk has grown by more.

    Never shrinks, and grows over no other partition: an empty extended one may be the last.
    Raises GuestError for tables without a partition, and for logical partitions inside none.
    """
    last = last_data_partition(table)
    distance = _distance(table, _behind(table, last))
    moves = [
        Move(p.number, p.start // SECTOR + distance, p.end // SECTOR + distance)
        for p in reversed(_behind(table, last))
        if distance
    ]
    following = [p.start // SECTOR + distance for p in _behind(table, last)]
    end = min([_last_usable(table), *(start - 1 for start in following)])
    growing = [_container(table, last), last] if table.is_logical(last) else [last]
    resizes = [
        Resize(partition.number, end)
        for partition in growing
        if (end + 1) * SECTOR > partition.end + 1
    ]
    return (*moves, *resizes)


def add(
    table: Table,
    sectors: int,
    type: str,
    name: str = "",
    attributes: int = 0,
) -> Addition:
    """How to add a partition in what ``grow`` leaves free at the disk's end.

    Raises GuestError where another partition reaches in there, it is too small, or no number is
    left.
    """
    first = _last_usable(table) + 1
    used = {partition.number for partition in table.partitions}
    free = [n for n in range(1, len(used) + 2) if n not in used]
    if table.label == "msdos" and free[0] > _PRIMARIES:
        raise GuestError(
            "the partition table has no place for one more primary partition",
            remedy="deploy an image with a GPT, or with at most three primary partitions",
        )
    last = first + sectors - 1
    taken = any(partition.end // SECTOR >= first for partition in table.partitions)
    if taken or last >= min(table.size // SECTOR, _limit(table)):
        raise GuestError(
            f"there is no room for a partition of {_said(sectors * SECTOR)} at the disk's end",
            remedy="give the instance a disk that is larger than the image by 2 MiB",
        )
    return Addition(free[0], first, last, type, name, attributes)


def explain(table: Table, changes: Sequence[Change]) -> list[str]:
    """What ``grow`` found for a table, in words, where it is more than growth of one partition."""
    partitions = {partition.number: partition for partition in table.partitions}
    moving = [change for change in changes if isinstance(change, Move)]
    last = last_data_partition(table)
    behind = _behind(table, last)
    if not moving:
        room = _room(table, behind)
        if room < _ALIGNMENT or not _movable(table, behind):
            return []
        names = ", ".join(str(partition.number) for partition in behind)
        return [
            f"partition {last.number} does not grow beyond partition {names} behind it, which "
            f"stays: the disk has {_said(room * SECTOR)} more, less than to move it safely"
        ]
    said = []
    for change in changes:
        old = partitions[change.number]
        purpose = _purpose(table, old)
        what = f"partition {old.number} ({purpose + ', ' if purpose else ''}{_said(old.size)})"
        if isinstance(change, Move):
            place = _said(change.first_sector * SECTOR)
            said.append(f"{what} moves from {_said(old.start)} to {place}")
        else:
            end = (change.last_sector + 1) * SECTOR
            said.append(
                f"partition {old.number} grows from {_said(old.size)} to {_said(end - old.start)}"
            )
    if any(_purpose(table, partitions[move.number]) == "recovery" for move in moving):
        said.append(
            "Windows finds the moved recovery environment when that is next enabled "
            "(reagentc /enable)"
        )
    return said


def _purpose(table: Table, partition: Partition) -> str:
    """What a partition that only follows is for; empty for one that holds data."""
    if table.label == "gpt" and partition.name == SEED_NAME:
        return _FOLLOWING["01"]
    return _FOLLOWING.get(partition.type, "")


def _behind(table: Table, last: Partition) -> list[Partition]:
    """The partitions behind another, in the disk's order."""
    found = [p for p in table.partitions if p.start > last.end]
    return sorted(found, key=lambda partition: partition.start)


def _movable(table: Table, block: Sequence[Partition]) -> bool:
    return bool(block) and not any(table.is_extended(p) or table.is_logical(p) for p in block)


def _room(table: Table, block: Sequence[Partition]) -> int:
    """Sectors between the block's end and that of what can be used, in whole alignments."""
    if not block:
        return 0
    free = _last_usable(table) - max(partition.end // SECTOR for partition in block)
    return max(0, free // _ALIGNMENT * _ALIGNMENT)


def _distance(table: Table, block: Sequence[Partition]) -> int:
    """Sectors by which the partitions behind the last data partition move; 0 for not at all."""
    if not _movable(table, block):
        return 0
    room = _room(table, block)
    taken = max(p.end for p in block) + 1 - block[0].start
    return room if room * SECTOR >= taken else 0


def _container(table: Table, logical: Partition) -> Partition:
    for partition in table.partitions:
        if table.is_extended(partition) and partition.start < logical.start <= partition.end:
            return partition
    raise GuestError(
        f"the partition table is damaged: partition {logical.number} lies in no extended one",
        remedy="repair the image's partition table",
    )


def _last_usable(table: Table) -> int:
    return min(table.size // SECTOR - RESERVED, _limit(table)) - 1


def _limit(table: Table) -> int:
    """Sectors that a table can name."""
    return _MBR_LIMIT if table.label == "msdos" else table.size // SECTOR


def _said(size: int) -> str:
    """Bytes, in words."""
    mebibytes = size / (1 << 20)
    return f"{mebibytes:.0f} MiB" if mebibytes < 1024 else f"{mebibytes / 1024:.1f} GiB"
