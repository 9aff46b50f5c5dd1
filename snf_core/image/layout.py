"""Partition tables: what is on a disk, and a plan of how to let it fill a larger one.

Pure data and arithmetic, in bytes and sectors; ``partition_table`` reads and changes.
"""

from __future__ import annotations

from dataclasses import dataclass

from snf_core.errors import GuestError

SECTOR = 512
"""Bytes of a logical sector: those of the appliance's disks are never of another size."""

RESERVED = 2048
"""Sectors left free at the disk's end: room for the backup GPT (33) and alignment."""

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


Write = tuple[int, bytes]
"""Bytes to write to a disk, and where."""


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


def grow(table: Table) -> tuple[Resize, ...]:
    """How to let the last data partition (and the extended one around it) fill the disk, in order.

    Never shrinks, and grows over no other partition: an empty extended one may be the last.
    Raises GuestError for tables without a partition, and for logical partitions inside none.
    """
    last = last_data_partition(table)
    following = [p.start // SECTOR - 1 for p in table.partitions if p.start > last.end]
    end = min([_last_usable(table), *following])
    growing = [_container(table, last), last] if table.is_logical(last) else [last]
    return tuple(
        Resize(partition.number, end)
        for partition in growing
        if (end + 1) * SECTOR > partition.end + 1
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
    end = table.size // SECTOR - RESERVED - 1
    return min(end, _MBR_LIMIT - 1) if table.label == "msdos" else end
