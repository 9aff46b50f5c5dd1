"""Reading and growing partition tables, against sfdisk, sgdisk and parted on sparse files."""

from __future__ import annotations

import copy
import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from snf_core.image import layout, partition_table
from snf_core.image.layout import SECTOR

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MIB = 1 << 20
GIB = 1 << 30
SMALL = 256 * MIB
LINUX = "0fc63daf-8483-4772-8e79-3d69d8477de4"


def run(*command: str | Path, script: str | None = None) -> str:
    """What a program prints. Fails with what it complains about."""
    done = subprocess.run(
        command, input=script, text=True, capture_output=True, check=False, timeout=60
    )
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout


def sfdisk(script: str) -> Callable[[Path], object]:
    return lambda disk: run("sfdisk", "--quiet", disk, script=script)


def sgdisk(*options: str) -> Callable[[Path], object]:
    return lambda disk: run("sgdisk", *options, disk)


def parted(*words: str) -> Callable[[Path], object]:
    return lambda disk: run("parted", "--script", disk, *words)


def _many(count: int) -> str:
    return "label: gpt\n" + f"size=1MiB, type={LINUX}\n" * count


def _logical(count: int) -> str:
    return "label: dos\nsize=1MiB\ntype=5\n" + "size=1MiB\n" * count


TABLES: dict[str, Callable[[Path], object]] = {
    "gpt": sfdisk(
        f'label: gpt\nsize=8MiB, type=U, name="EFI System"\n'
        f'size=100MiB, type={LINUX}, name="my root ü", attrs="LegacyBIOSBootable GUID:62"\n'
    ),
    "gpt out of order": sfdisk(
        "label: gpt\nunit: sectors\n5 : start=2048, size=8192\n128 : start=10240, size=8192\n"
        "2 : start=20480, size=262144\n"
    ),
    "gpt full to the last sector": sgdisk("-n", "1:0:0"),
    "gpt with 128 partitions": sfdisk(_many(128)),
    "gpt with 256 entries": sgdisk("-S", "256", "-n", "200:0:+10M"),
    "gpt with 4 entries": sfdisk("label: gpt\ntable-length: 4\nsize=8MiB\nsize=9MiB\n"),
    "gpt with 5 entries": sfdisk("label: gpt\ntable-length: 5\nsize=8MiB\nsize=9MiB\n"),
    "gpt whose entries lie elsewhere": sgdisk("-j", "100", "-n", "1:0:+10M"),
    "gpt by parted": parted("mklabel", "gpt", "mkpart", "one", "1MiB", "9MiB", "mkpart", "zwei",
                            "ext4", "9MiB", "99MiB", "set", "1", "esp", "on"),
    "mbr": sfdisk("label: dos\nlabel-id: 0xdeadbeef\nsize=8MiB, bootable\nsize=100MiB, type=8e\n"),
    "mbr out of order": sfdisk(
        "label: dos\nunit: sectors\n3 : start=2048, size=8192\n1 : start=10240, size=8192, type=7\n"
    ),
    "mbr, logical": sfdisk(
        "label: dos\nunit: sectors\n1 : start=2048, size=8192\n"
        "2 : start=10240, size=200000, type=f\n5 : start=12288, size=90000\n"
        "6 : start=122880, size=60000, type=82\n"
    ),
    "mbr, logical out of order": sfdisk(
        "label: dos\nunit: sectors\n2 : start=10240, size=400000, type=5\n"
        "5 : start=204800, size=9000\n6 : start=12288, size=60000\n7 : start=102400, size=999\n"
    ),
    "mbr, logical, and a primary last": sfdisk(
        "label: dos\nunit: sectors\n2 : start=10240, size=40000, type=5\n"
        "5 : start=12288, size=9000\n1 : start=102400, size=9000\n"
    ),
    "mbr, empty extended": sfdisk("label: dos\nsize=8MiB\nsize=9MiB, type=5\n"),
    "mbr with 56 logical": sfdisk(_logical(56)),
    "mbr by parted": parted("mklabel", "msdos", "mkpart", "primary", "1MiB", "9MiB", "mkpart",
                            "extended", "9MiB", "99MiB", "mkpart", "logical", "10MiB", "50MiB",
                            "mkpart", "logical", "51MiB", "80MiB", "set", "1", "boot", "on"),
    "mbr by parted, unaligned": parted("mklabel", "msdos", "unit", "s", "mkpart", "primary", "63",
                                       "8000", "mkpart", "extended", "8001", "90000", "mkpart",
                                       "logical", "8100", "80000"),
}  # fmt: skip


@pytest.fixture(params=TABLES, ids=lambda name: name.replace(" ", "-"))
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A disk of SMALL bytes with one of the tables, and boot code."""
    path = tmp_path / "disk"
    resize(path, SMALL)
    TABLES[request.param](path)
    with path.open("r+b") as file:
        file.write(b"boot code")
    return path


def resize(path: Path, size: int) -> None:
    with path.open("ab") as file:
        file.truncate(size)


def load(path: Path) -> Any:
    def read(offset: int, length: int) -> bytes:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(length)

    return partition_table.load(read, path.stat().st_size)


def grow(path: Path) -> list[layout.Write]:
    """Plan and write the growth of a disk."""
    found = load(path)
    writes: list[layout.Write] = found.changes(layout.grow(found.table))
    write(path, writes)
    return writes


def write(path: Path, writes: list[layout.Write]) -> None:
    with path.open("r+b") as file:
        for offset, content in writes:
            file.seek(offset)
            file.write(content)


def dump(path: Path) -> dict[str, Any]:
    """The table as sfdisk reads it, with partitions by their numbers."""
    table: dict[str, Any] = json.loads(run("sfdisk", "--json", path))["partitiontable"]
    table["partitions"] = {
        int(entry.pop("node").removeprefix(str(path))): entry for entry in table["partitions"]
    }
    return table


def test_what_is_read(disk: Path) -> None:
    theirs = dump(disk)
    ours = load(disk).table
    assert ours.label == {"gpt": "gpt", "dos": "msdos"}[theirs["label"]]
    listed = theirs["partitions"]
    assert len(ours.partitions) == len(listed)
    for partition in ours.partitions:
        entry = listed[partition.number]
        assert partition.start == entry["start"] * SECTOR
        assert partition.size == entry["size"] * SECTOR
        if ours.label == "gpt":
            assert partition.type == entry["type"].lower()
            assert partition.uuid == entry["uuid"].lower()
            assert partition.name == entry.get("name", "")
        else:
            assert int(partition.type, 16) == int(entry["type"], 16)
            assert partition.uuid == f"{int(theirs['id'], 16):08x}-{partition.number:02x}"
    starts = [partition.start for partition in ours.partitions]
    assert starts == sorted(starts)


@pytest.mark.parametrize("size", [GIB, SMALL + 5 * SECTOR, 3 << 40], ids=["1G", "a-little", "3T"])
def test_what_is_grown(disk: Path, size: int) -> None:
    """Exactly one partition, the extended one around it, and a GPT's end; nothing else."""
    before = dump(disk)
    with disk.open("rb") as file:
        code = file.read(440)
    resize(disk, size)
    resizes = layout.grow(load(disk).table)
    grow(disk)

    wanted = copy.deepcopy(before)
    for number, last in ((resize.number, resize.last_sector) for resize in resizes):
        wanted["partitions"][number]["size"] = last + 1 - wanted["partitions"][number]["start"]
    after = dump(disk)
    if before["label"] == "gpt":
        backup = after["lastlba"] + 1
        assert size // SECTOR - 66 <= backup < size // SECTOR
        wanted["lastlba"] = after["lastlba"]
    assert after == wanted
    if size == GIB:
        assert resizes or "empty" in str(disk) or len(before["partitions"]) == 2
    with disk.open("rb") as file:
        assert file.read(440) == code
    sound(disk, before["label"])
    assert grow(disk) == [], "growing again changes something"


@pytest.mark.parametrize("grown", ["1", "2"])
def test_a_hybrid_mbr_follows_what_it_mirrors(tmp_path: Path, grown: str) -> None:
    disk = tmp_path / "disk"
    resize(disk, SMALL)
    run("sgdisk", "-n", "1:0:+10M", "-n", "2:0:+20M", "-h", grown, disk)
    before = run("sfdisk", "--dump", "--label-nested", "dos", disk)
    resize(disk, GIB)
    grow(disk)
    assert load(disk).table.partitions[1].end == GIB - MIB - 1
    sound(disk, "gpt")
    after = run("sfdisk", "--dump", "--label-nested", "dos", disk)
    assert (before == after) == (grown == "1")


WINDOWS: dict[str, Callable[[Path], object]] = {
    "gpt": sfdisk(
        "label: gpt\nsize=32MiB, type=U\nsize=16MiB, type=E3C9E316-0B5C-4DB8-817D-F92DF00215AE\n"
        'size=100MiB, type=EBD0A0A2-B9E5-4433-87C0-68B6B72699C7, name="Basic data partition"\n'
        "size=50MiB, type=DE94BBA4-06D1-4D40-A16A-BFD50179D6AC, name=R, "
        'attrs="RequiredPartition GUID:63"\n'
    ),
    "gpt, hybrid": sgdisk("-n", "1:0:+100M", "-t", "1:0700", "-n", "2:0:+50M", "-t", "2:2700",
                          "-h", "1:2"),
    "mbr": sfdisk("label: dos\nsize=50MiB, type=7, bootable\nsize=100MiB, type=7\n"
                  "size=50MiB, type=27\n"),
    "mbr, logical": sfdisk("label: dos\nunit: sectors\n1 : start=2048, size=200000, type=f\n"
                           "2 : start=202752, size=40960, type=27\n"
                           "5 : start=4096, size=190000, type=7\n"),
}  # fmt: skip
"""Tables with recovery partitions behind the one that grows."""


@pytest.mark.parametrize("size", [GIB, 3 << 40], ids=["1G", "3T"])
@pytest.mark.parametrize("name", WINDOWS)
def test_what_follows_moves(tmp_path: Path, name: str, size: int) -> None:
    """It keeps all but its place; the one in front of it grows up to it."""
    disk = tmp_path / "disk"
    resize(disk, SMALL)
    WINDOWS[name](disk)
    before = dump(disk)
    mirrored = run("sfdisk", "--dump", "--label-nested", "dos", disk)
    resize(disk, size)
    changes = layout.grow(load(disk).table)
    grow(disk)
    after = dump(disk)
    wanted = copy.deepcopy(before)
    for change in changes:
        entry = wanted["partitions"][change.number]
        if isinstance(change, layout.Move):
            assert change.last_sector - change.first_sector + 1 == entry["size"]
            entry["start"] = change.first_sector
        entry["size"] = change.last_sector + 1 - entry["start"]
    if before["label"] == "gpt":
        wanted["lastlba"] = after["lastlba"]
    assert after == wanted
    assert [type(change) for change in changes][-2:] == [
        *([layout.Resize] if "logical" in name else [layout.Move]),
        layout.Resize,
    ]
    if name == "gpt, hybrid":
        if size > GIB:  # an MBR ends before the GPT's partitions do, which sgdisk warns of
            assert "overlap" not in run("sgdisk", "--verify", disk)
            return
        nested = run("sfdisk", "--dump", "--label-nested", "dos", disk)
        for change in changes:
            start = after["partitions"][change.number]["start"]
            assert f"start={start:12}, size={change.last_sector + 1 - start:12}" in nested
            assert f"start={start:12}, size={change.last_sector + 1 - start:12}" not in mirrored
    sound(disk, before["label"])
    assert grow(disk) == [], "growing again changes something"


@pytest.mark.parametrize("name", WINDOWS)
def test_a_partition_is_added(tmp_path: Path, name: str) -> None:
    disk = tmp_path / "disk"
    resize(disk, SMALL)
    WINDOWS[name](disk)
    resize(disk, GIB)
    grow(disk)
    before, found = dump(disk), load(disk)
    kind = "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7" if before["label"] == "gpt" else "01"
    added = layout.add(found.table, 1792, kind, layout.SEED_NAME, 1 << 62)
    write(disk, found.changes([added]))
    after = dump(disk)
    entry = after["partitions"].pop(added.number)
    assert (entry["start"], entry["size"]) == (2095104, 1792)
    assert int(entry["type"].replace("-", ""), 16) == int(kind.replace("-", ""), 16)
    if before["label"] == "gpt":
        assert (entry["name"], entry["attrs"]) == ("cidata", "GUID:62")
    assert after == before
    sound(disk, before["label"])


def sound(disk: Path, label: str) -> None:
    """All tools are content with a disk's table."""
    run("sfdisk", "--verify", "--quiet", disk)
    run("parted", "--script", disk, "print")
    if label == "gpt":
        checked = run("sgdisk", "--verify", disk)
        assert "No problems found" in checked, checked
        cautions = [part for part in checked.split("Caution: ")[1:] if "boundary" not in part]
        assert not cautions, checked
