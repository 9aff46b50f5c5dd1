"""Small synthetic disk images, made in a moment with the host's own tools.

No device is involved: sfdisk writes the partition table into the file, and every file system is
made in a sparse file of its own and then copied, data extents only, to its place on the disk.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

MIB = 1024 * 1024

# file system -> program and arguments that make it in a file; the file's name comes last
MAKERS = {
    "ext2": ("mke2fs", "-q", "-F", "-t", "ext2"),
    "ext3": ("mke2fs", "-q", "-F", "-t", "ext3"),
    "ext4": ("mke2fs", "-q", "-F", "-t", "ext4"),
    "xfs": ("mkfs.xfs", "-q", "-f"),  # of no less than 300 MiB, says mkfs.xfs
    "vfat": ("mkfs.vfat",),
    "swap": ("mkswap",),
}


class SmallImageError(RuntimeError):
    """An image could not be made; the message is that of the program that failed."""


@dataclass(frozen=True)
class Partition:
    """A partition to make.

    ``size`` is in MiB, None for what is left of the disk. ``type`` is as sfdisk reads it: ``L``
    Linux, ``S`` swap, ``U`` EFI system, ``E`` extended (msdos), a GUID or a hexadecimal number.
    ``number`` is the next free one unless given; logical partitions start at 5. ``filesystem`` is
    a key of :data:`MAKERS`, ``options`` go to the program that makes it, and ``content`` is a
    directory to fill it with (ext only).
    """

    size: int | None = None
    filesystem: str | None = None
    content: Path | None = None
    type: str = "L"
    number: int | None = None
    bootable: bool = False
    options: Sequence[str] = ()


@dataclass(frozen=True)
class Extent:
    """Where a partition came to lie: its number, first byte and length in bytes."""

    number: int
    start: int
    size: int


def small_image(
    path: Path,
    size: int,
    label: Literal["gpt", "dos"],
    partitions: Sequence[Partition],
) -> list[Extent]:
    """Make a sparse raw disk image of ``size`` MiB at ``path``, which is replaced.

    ``label`` is the partition table, ``dos`` for msdos. Returns where the partitions are, in the
    order given. Raises :class:`SmallImageError`.
    """
    with path.open("wb") as disk:
        disk.truncate(size * MIB)
    numbers = list(_numbers(partitions))
    lines = [_sfdisk_line(*one) for one in zip(numbers, partitions, strict=True)]
    _run(["sfdisk", "--quiet", str(path)], "\n".join([f"label: {label}", *lines, ""]))
    places = _read_table(path)
    extents = [places[number] for number in numbers]
    for partition, extent in zip(partitions, extents, strict=True):
        if partition.size is not None and partition.size * MIB != extent.size:  # sfdisk gave less
            raise SmallImageError(f"partition {extent.number} does not fit: {partition.size} MiB")
        if partition.filesystem is not None:
            _make_filesystem(path, partition, extent)
    return extents


def _numbers(partitions: Sequence[Partition]) -> Iterator[int]:
    number = 0
    for partition in partitions:
        number = number + 1 if partition.number is None else partition.number
        yield number


def _sfdisk_line(number: int, partition: Partition) -> str:
    """The partition in sfdisk's script format; the digits at the end of a name are its number."""
    size = "" if partition.size is None else f"size={partition.size}MiB, "
    bootable = ", bootable" if partition.bootable else ""
    return f"disk{number} : {size}type={partition.type}{bootable}"


def _read_table(path: Path) -> dict[int, Extent]:
    """The partition table as it was written, by partition number."""
    table: dict[str, Any] = json.loads(_run(["sfdisk", "--json", str(path)]))["partitiontable"]
    sector = int(table["sectorsize"])
    extents = {}
    for entry in table.get("partitions", []):
        number = int(entry["node"].removeprefix(str(path)).removeprefix("p"))
        extents[number] = Extent(number, entry["start"] * sector, entry["size"] * sector)
    return extents


def _make_filesystem(path: Path, partition: Partition, extent: Extent) -> None:
    assert partition.filesystem is not None
    command = [*MAKERS[partition.filesystem], *partition.options]
    if partition.content is not None:
        if not partition.filesystem.startswith("ext"):
            raise SmallImageError(f"{partition.filesystem} cannot be filled from a directory")
        command += ["-d", str(partition.content)]
    with tempfile.NamedTemporaryFile(prefix=f"{path.name}.", dir=path.parent) as scratch:
        scratch.truncate(extent.size)
        _run([*command, scratch.name])
        with path.open("r+b") as disk:
            _copy_data(scratch.fileno(), disk.fileno(), extent.start)


def _copy_data(source: int, target: int, offset: int) -> None:
    """Copy the data extents of a file to another file at ``offset``; holes are left alone."""
    position = 0
    while True:
        try:
            position = os.lseek(source, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole is left
                return
            raise
        end = os.lseek(source, position, os.SEEK_HOLE)
        while position < end:
            block = os.pread(source, min(MIB, end - position), position)
            position += os.pwrite(target, block, offset + position)


def _run(argv: Sequence[str], stdin: str = "") -> str:
    environment = {**os.environ, "LC_ALL": "C", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    done = subprocess.run(
        argv, check=False, input=stdin, capture_output=True, text=True, env=environment
    )
    if done.returncode != 0:
        raise SmallImageError(f"{' '.join(argv)}: {(done.stderr or done.stdout).strip()}")
    return done.stdout
