"""Copying onto real disks: loop devices and sparse files, on real file systems."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import stat
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, NoReturn

import pytest

from snf_core.contract import Extent
from snf_core.errors import DiskError, ImageError, InterruptedDeploymentError
from snf_core.image import copy, stream
from snf_core.image.destination.local import Local as Destination
from snf_core.image.source.local import Local as Source
from snf_core.model import Disk
from snf_core.run import run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from snf_core.contract import DiskWriter, ImageReader

MIB = 1 << 20
IMAGE_SIZE = 64 * MIB
DISK_SIZE = 96 * MIB + 3 * 512
"""A whole number of sectors, and of nothing larger."""
STALE = b"\xaa" * MIB
DATA = [(0, MIB + 4096), (20 * MIB, 3 * MIB), (40 * MIB + 12288, 65536), (IMAGE_SIZE - 4096, 4096)]


@contextlib.contextmanager
def loop_device(backing: Path) -> Iterator[Path]:
    """A loop device that the kernel detaches when this process ends, however it ends."""
    device = Path(run(["losetup", "--find", "--show", backing]).stdout.decode().strip())
    keeper = os.open(device, os.O_RDONLY)
    try:
        run(["losetup", "--detach", device])  # as soon as nobody has it open
        yield device
    finally:
        os.close(keeper)


@contextlib.contextmanager
def mounted(directory: Path, *arguments: str | Path) -> Iterator[Path]:
    """What is mounted, under a path that only this process sees, until this process ends."""
    directory.mkdir()
    run(["mount", *arguments, directory])
    try:
        keeper = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    finally:
        run(["umount", "--lazy", directory])
    try:
        yield Path(f"/proc/{os.getpid()}/fd/{keeper}")
    finally:
        os.close(keeper)


def _ours_attached(directory: Path) -> bool:
    listed = run(["losetup", "--list", "--noheadings", "--output", "BACK-FILE"]).stdout.decode()
    return str(directory) in listed


@pytest.fixture(name="place", params=["disk", "memory"])
def _place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A directory on whatever holds temporary files, and one on tmpfs; no loop device left."""
    if request.param == "disk":
        place = tmp_path
    else:
        place = Path(tempfile.mkdtemp(dir="/dev/shm", prefix="snf-test-"))
    try:
        yield place
        deadline = time.monotonic() + 30
        while _ours_attached(place) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not _ours_attached(place)
    finally:
        shutil.rmtree(place)


@dataclass(frozen=True)
class Target:
    """A disk full of an earlier tenant's bytes."""

    path: Path
    backing: Path

    def open(self) -> DiskWriter:
        return Destination(None).open(Disk(0, path=str(self.path)))

    def content(self) -> bytes:
        return self.path.read_bytes()

    def allocated(self) -> int:
        os.sync()
        return self.backing.stat().st_blocks * 512


@pytest.fixture(name="target", params=["file", "loop"])
def _target(request: pytest.FixtureRequest, place: Path) -> Iterator[Target]:
    backing = place / "disk"
    with backing.open("wb") as file:
        for _ in range(0, DISK_SIZE, MIB):
            file.write(STALE)
        file.truncate(DISK_SIZE)
    if request.param == "file":
        yield Target(backing, backing)
    else:
        with loop_device(backing) as device:
            yield Target(device, backing)


@pytest.fixture(name="image")
def _image(place: Path) -> Path:
    """A sparse image, with a long run of zeros in one of its extents."""
    path = place / "image"
    generator = random.Random(1)
    with path.open("wb") as file:
        file.truncate(IMAGE_SIZE)
        for offset, length in DATA:
            file.seek(offset)
            file.write(generator.randbytes(length))
        file.seek(21 * MIB)
        file.write(bytes(MIB))
    return path


def _open_image(path: Path) -> ImageReader:
    return Source(SimpleNamespace(directory=str(path.parent))).open(path.name, "diskdump")


def _ignore(_position: int, _total: int) -> None:
    """No progress is wanted."""


def _copy(path: Path, target: Target) -> None:
    with _open_image(path) as image, target.open() as disk:
        copy.copy(image, disk, _ignore)
        copy.verify(image, disk, _ignore)


def test_nothing_of_an_earlier_tenant_is_left_and_holes_are_kept(
    image: Path, target: Target
) -> None:
    _copy(image, target)
    assert target.content() == image.read_bytes() + bytes(DISK_SIZE - IMAGE_SIZE)
    assert target.backing.stat().st_size == DISK_SIZE
    assert target.allocated() < sum(length for _, length in DATA) + MIB


def test_an_image_without_holes_in_it_becomes_sparse(image: Path, target: Target) -> None:
    content = image.read_bytes()
    image.write_bytes(content)
    with _open_image(image) as reader:
        assert list(reader.extents()) == [Extent(0, IMAGE_SIZE, data=True)]
    _copy(image, target)
    assert target.content() == content + bytes(DISK_SIZE - IMAGE_SIZE)
    assert target.allocated() < sum(length for _, length in DATA) + 2 * MIB


def test_a_fresh_sparse_disk_stays_sparse(image: Path, place: Path) -> None:
    fresh = place / "fresh"
    fresh.touch()
    os.truncate(fresh, 8 << 30)
    target = Target(fresh, fresh)
    _copy(image, target)
    assert fresh.stat().st_size == 8 << 30
    assert target.allocated() < sum(length for _, length in DATA) + MIB


def test_storage_that_can_only_be_written(image: Path, place: Path) -> None:
    """On ramfs, which punches no holes and keeps none: the file, then a device of it."""
    expected = image.read_bytes() + bytes(DISK_SIZE - IMAGE_SIZE)
    with mounted(place / "plain", "-t", "ramfs", "none") as plain:
        backing = plain / "disk"
        backing.write_bytes((STALE * (DISK_SIZE // MIB + 1))[:DISK_SIZE])
        _copy(image, Target(backing, backing))
        assert backing.read_bytes() == expected
        backing.write_bytes((STALE * (DISK_SIZE // MIB + 1))[:DISK_SIZE])
        with loop_device(backing) as device:
            _copy(image, Target(device, backing))
            assert device.read_bytes() == expected


def test_an_image_as_large_as_the_disk(image: Path, target: Target) -> None:
    with image.open("r+b") as file:
        file.truncate(DISK_SIZE)
        file.seek(DISK_SIZE - 512)
        file.write(b"backup".ljust(512, b"!"))
    _copy(image, target)
    assert target.content() == image.read_bytes()


def test_a_larger_image_is_refused_and_the_disk_unchanged(image: Path, target: Target) -> None:
    before = target.content()
    os.truncate(image, DISK_SIZE + 1)
    with pytest.raises(DiskError) as caught:
        _copy(image, target)
    for word in (str(DISK_SIZE), str(DISK_SIZE + 1), str(target.path), "larger disk"):
        assert word in str(caught.value)
    assert target.content() == before


def test_the_disk_looks_blank_while_the_copy_runs(image: Path, target: Target) -> None:
    seen = []

    def look(position: int, total: int) -> None:
        if position < total:
            with target.path.open("rb") as other:
                start = other.read(MIB)
                other.seek(DISK_SIZE - MIB)
                seen.append(any(start) or any(other.read(MIB)))

    with _open_image(image) as reader, target.open() as disk:
        copy.copy(reader, disk, look, interval=0)
    assert seen
    assert not any(seen)
    assert any(target.content()[:MIB])


def test_sigterm_leaves_a_disk_without_partition_table(image: Path, target: Target) -> None:
    def interrupt(_number: int, _frame: object) -> NoReturn:
        raise InterruptedDeploymentError("told to stop")

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        with (
            pytest.raises(InterruptedDeploymentError),
            _open_image(image) as reader,
            target.open() as disk,
        ):
            copy.copy(reader, disk, lambda *_: os.kill(os.getpid(), signal.SIGTERM), interval=0)
    finally:
        signal.signal(signal.SIGTERM, before)
    content = target.content()
    assert not any(content[:MIB])
    assert not any(content[-MIB:])


@pytest.mark.parametrize("where", [5, 21 * MIB + 1, 30 * MIB, DISK_SIZE - 1])
def test_verify_reads_the_storage_itself(image: Path, target: Target, where: int) -> None:
    with _open_image(image) as reader, target.open() as disk:
        copy.copy(reader, disk, _ignore)
        # Behind a loop device's back: what is cached of the device is not what it holds now.
        with target.backing.open("r+b") as backing:
            backing.seek(where)
            byte = backing.read(1)[0]
            backing.seek(where)
            backing.write(bytes([byte ^ 1]))
        with pytest.raises(DiskError, match=rf"{target.path} .*byte {where} differs"):
            copy.verify(reader, disk, _ignore)


def test_a_full_file_system_is_an_error(image: Path, place: Path) -> None:
    with mounted(place / "small", "-t", "tmpfs", "-o", "size=2m", "none") as small:
        backing = small / "disk"
        backing.touch()
        os.truncate(backing, DISK_SIZE)
        with pytest.raises(DiskError, match=rf"{backing} cannot be written: No space.*make room"):
            _copy(image, Target(backing, backing))


def test_a_device_that_cannot_store_is_an_error(image: Path, place: Path) -> None:
    with mounted(place / "small", "-t", "tmpfs", "-o", "size=2m", "none") as small:
        backing = small / "disk"
        backing.touch()
        os.truncate(backing, DISK_SIZE)
        with (
            loop_device(backing) as device,
            pytest.raises(DiskError, match=rf"disk {device} cannot be "),
        ):
            _copy(image, Target(device, backing))


def test_a_device_that_goes_away_is_an_error(image: Path, place: Path) -> None:
    backing = place / "disk"
    backing.touch()
    os.truncate(backing, DISK_SIZE)
    with loop_device(backing) as device, _open_image(image) as reader:
        target = Target(device, backing)
        with target.open() as disk:
            os.truncate(backing, MIB)
            run(["losetup", "--set-capacity", device])
            with pytest.raises(DiskError, match=rf"{device} .*become shorter.*kernel's log"):
                copy.copy(reader, disk, _ignore)
            with pytest.raises(DiskError, match=rf"{device} cannot be written: .*shorter"):
                disk.write(40 * MIB, b"data")
            with pytest.raises(DiskError, match=rf"{device} cannot be read: .*shorter"):
                disk.read(40 * MIB, MIB)


def test_a_device_in_use_is_refused(place: Path) -> None:
    backing = place / "disk"
    backing.touch()
    os.truncate(backing, 16 * MIB)
    with loop_device(backing) as device:
        run(["mkfs.ext4", "-q", device])
        before = backing.read_bytes()[:MIB]
        with (
            mounted(place / "mounted", "-t", "ext4", "-o", "ro,noload", device),
            pytest.raises(DiskError, match=rf"{device} cannot be opened.*unmount"),
        ):
            Destination(None).open(Disk(0, path=str(device)))
        assert backing.read_bytes()[:MIB] == before
        with (
            Destination(None).open(Disk(0, path=str(device))),
            pytest.raises(DiskError, match=rf"{device} cannot be opened.*uses it"),
        ):
            Destination(None).open(Disk(0, path=str(device)))


def test_what_is_exported_need_not_be_ours_alone_or_writable(place: Path) -> None:
    """A snapshot, a disk of a guest that runs: the device is read-only, mounted, and claimed."""
    backing = place / "disk"
    backing.touch()
    os.truncate(backing, 16 * MIB)
    run(["mkfs.ext4", "-q", backing])
    with (
        loop_device(backing) as device,
        mounted(place / "mounted", "-t", "ext4", "-o", "ro,noload", device),
    ):
        run(["blockdev", "--setro", device])
        try:
            with (
                Destination(None).open_for_reading(Disk(0, path=str(device))) as disk,
                (place / "exported").open("wb") as out,
            ):
                stream.export(disk, out.fileno())
        finally:
            run(["blockdev", "--setrw", device])  # whoever gets this loop device next
    assert (place / "exported").read_bytes() == backing.read_bytes()


@pytest.mark.parametrize(
    ("kind", "number", "words"),
    [
        (stat.S_IFCHR, os.makedev(1, 3), "a character device"),
        (stat.S_IFBLK, os.makedev(7, 0), "a block device"),
    ],
)
def test_a_device_is_no_image(tmp_path: Path, kind: int, number: int, words: str) -> None:
    os.mknod(tmp_path / "node", kind | 0o600, number)
    with pytest.raises(ImageError, match=f"'node' is {words}"):
        _open_image(tmp_path / "node")


def test_an_image_cut_short_during_the_copy_is_an_error(image: Path, target: Target) -> None:
    with (
        _open_image(image) as reader,
        target.open() as disk,
        pytest.raises(ImageError, match="'image' changed while it was read"),
    ):
        copy.copy(reader, disk, lambda *_: os.truncate(image, 30 * MIB), interval=0)
    assert not any(target.content()[:MIB])


def test_export_and_import_through_pipes(image: Path, target: Target, place: Path) -> None:
    _copy(image, target)
    restored = place / "restored"
    restored.write_bytes(STALE * (DISK_SIZE // MIB + 2))
    data_in, data_out = os.pipe()
    size_in, size_out = os.pipe()

    def send() -> None:
        with target.open() as disk, os.fdopen(data_out, "wb"), os.fdopen(size_out, "wb"):
            stream.export(disk, data_out, size_out)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        with Destination(None).open(Disk(0, path=str(restored))) as disk:
            stream.import_(data_in, disk)
    finally:
        os.close(data_in)
        sender.join()
    with os.fdopen(size_in, "rb") as told:
        assert told.read() == b"%d\n" % DISK_SIZE
    content = restored.read_bytes()
    assert content[:DISK_SIZE] == target.content()
    assert not any(content[DISK_SIZE:])
    assert Target(restored, restored).allocated() < sum(length for _, length in DATA) + 2 * MIB
