"""Partition tables: what is on a disk, and a plan of how to let it fill a larger one.

Pure data and arithmetic, in bytes and sectors; ``snf_core.image.guest`` reads and changes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from snf_core.errors import GuestError

RESERVED = 2048
"""Sectors of 512 bytes left free at the disk's end: room for the backup GPT (33) and alignment."""

EXTENDED = frozenset({"05", "0f", "85"})
"""MBR types of extended partitions."""

_PRIMARIES = 4
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
    sector: int
    """Bytes of a logical sector."""
    partitions: tuple[Partition, ...]

    def resized(self, number: int, last_sector: int) -> Table:
        """The same with one partition ending elsewhere."""
        end = (last_sector + 1) * self.sector - 1
        changed = (replace(p, end=end) if p.number == number else p for p in self.partitions)
        return replace(self, partitions=tuple(changed))

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
class Growth:
    """What to do to a partition table, in order. Empty where nothing is to be done."""

    move_backup_header: bool
    resizes: tuple[Resize, ...]


def last_data_partition(table: Table) -> Partition:
    """The partition that grows with the disk: the last one on it that holds data.

    Raises GuestError where there is none.
    """
    candidates = [p for p in table.partitions if not table.is_extended(p)]
    if not candidates:
        raise GuestError(
            "the disk has a partition table without a partition to grow",
            remedy="deploy an image that has its root file system on a partition",
        )
    return max(candidates, key=lambda partition: partition.start)


def grow(table: Table) -> Growth:
    """How to let the last data partition (and the extended one around it) fill the disk.

    Never shrinks, and grows over no other partition: an empty extended one may be the last.
    Raises GuestError for labels other than gpt and msdos, for tables without a partition, and
    for logical partitions inside none.
    """
    if table.label not in {"gpt", "msdos"}:
        raise GuestError(
            f"partition tables of type {table.label!r} cannot be grown",
            remedy="use an image with a GPT or an MBR",
        )
    last = last_data_partition(table)
    following = [p.start // table.sector - 1 for p in table.partitions if p.start > last.end]
    end = min([_last_usable(table), *following])
    resizes = []
    if table.is_logical(last):
        resizes.append((_container(table, last), end))
    resizes.append((last, end))
    return Growth(
        move_backup_header=table.label == "gpt",
        resizes=tuple(
            Resize(partition.number, new_end)
            for partition, new_end in resizes
            if (new_end + 1) * table.sector > partition.end + 1
        ),
    )


def _container(table: Table, logical: Partition) -> Partition:
    for partition in table.partitions:
        if table.is_extended(partition) and partition.start < logical.start <= partition.end:
            return partition
    raise GuestError(
        f"the partition table is damaged: partition {logical.number} lies in no extended one",
        remedy="repair the image's partition table",
    )


def _last_usable(table: Table) -> int:
    sectors = table.size // table.sector
    end = sectors - RESERVED * 512 // table.sector - 1
    return min(end, _MBR_LIMIT - 1) if table.label == "msdos" else end
