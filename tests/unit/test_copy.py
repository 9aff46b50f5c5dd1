"""Copying, verifying, exporting and importing, on a disk in memory."""

from __future__ import annotations

import itertools
import os
import socket
import threading
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snf_core.contract import DiskWriter, Extent, ImageReader, OpenDisk
from snf_core.errors import DiskError, ImageError, InterruptedDeploymentError
from snf_core.image import copy, stream
from snf_core.image.layout import SECTOR

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1 << 20
STALE = 0xAA


class MemoryImage(ImageReader):
    """An image of given runs: (length, kind), kind one of hole, zeros, data."""

    def __init__(self, runs: list[tuple[int, str]], seed: int = 0) -> None:
        self.runs = runs
        random = Random(seed)
        self.content = b"".join(
            random.randbytes(length) if kind == "data" else bytes(length) for length, kind in runs
        )
        self.size = len(self.content)

    def extents(self) -> Iterator[Extent]:
        ends = itertools.accumulate(length for length, _ in self.runs)
        for (length, kind), end in zip(self.runs, ends, strict=True):
            yield Extent(end - length, length, data=kind != "hole")

    def read(self, offset: int, length: int) -> bytes:
        assert offset + length <= self.size
        return self.content[offset : offset + length]


class MemoryDisk(DiskWriter):
    """A disk full of an earlier tenant's bytes, that remembers what is done to it."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.path = Path("/dev/memory")
        self.descriptor = -1
        self.content = bytearray([STALE]) * size
        self.log: list[tuple[str, int, int]] = []
        self.written = 0

    def write(self, offset: int, data: bytes) -> None:
        self._put("write", offset, data)
        self.written += len(data)

    def zero(self, offset: int, length: int) -> None:
        self._put("zero", offset, bytes(length))

    def read(self, offset: int, length: int) -> bytes:
        assert offset + length <= self.size
        return bytes(self.content[offset : offset + length])

    def flush(self) -> None:
        self.log.append(("flush", 0, 0))

    def _put(self, what: str, offset: int, data: bytes) -> None:
        assert 0 <= offset <= offset + len(data) <= self.size
        self.content[offset : offset + len(data)] = data
        self.log.append((what, offset, len(data)))


def ignore(_position: int, _total: int) -> None:
    """No progress is wanted."""


lengths = st.one_of(
    st.integers(1, 3 * MIB),
    st.sampled_from([1, 511, 4096, 65535, 65536, 65537, MIB - 1, MIB, MIB + 1, 5 * MIB]),
)
images = st.builds(
    MemoryImage,
    st.lists(
        st.tuples(lengths, st.sampled_from(["hole", "zeros", "data"])), min_size=1, max_size=8
    ),
    st.integers(0, 99),
)
spares = st.one_of(st.just(0), st.integers(0, 3 * MIB))


@settings(max_examples=60)
@given(images, spares)
def test_the_disk_becomes_the_image_and_then_zeros(image: MemoryImage, spare: int) -> None:
    disk = MemoryDisk(image.size + spare)
    copy.copy(image, disk, ignore)
    assert disk.content == image.content + bytes(spare)
    copy.verify(image, disk, ignore)


@settings(max_examples=40)
@given(images, spares)
def test_the_ends_are_blank_until_everything_else_is_durable(
    image: MemoryImage, spare: int
) -> None:
    disk = MemoryDisk(image.size + spare)
    head, tail = min(MIB, disk.size), max(min(MIB, disk.size), disk.size - MIB)
    copy.copy(image, disk, ignore)

    first_flush = disk.log.index(("flush", 0, 0))
    assert disk.log[:first_flush] == [("zero", 0, head), ("zero", tail, disk.size - tail)]
    assert disk.log[-1] == ("flush", 0, 0)
    barrier = max(i for i, entry in enumerate(disk.log[:-1]) if entry[0] == "flush")
    for position, (what, offset, length) in enumerate(disk.log):
        if what == "write" and offset < head:
            assert position > barrier
            assert offset + length <= head
        if what != "flush" and offset >= head and length:
            assert position < barrier
    # Between the tail being zeroed and its contents, nothing but the tail itself touches it.
    touching = [i for i, (w, o, n) in enumerate(disk.log) if n and o + n > tail and w == "write"]
    middle = [i for i, (_, o, n) in enumerate(disk.log) if n and head <= o < tail]
    assert not touching or not middle or min(touching) > max(middle)


@pytest.mark.parametrize("size", [512, MIB, 2 * MIB, 5 * MIB])
def test_a_blank_disk_announces_nothing_and_keeps_the_rest(size: int) -> None:
    disk = MemoryDisk(size)
    copy.blank(disk)
    end = min(size, MIB)
    assert disk.content[:end] == bytes(end)
    assert disk.content[-end:] == bytes(end)
    assert set(disk.content[MIB:-MIB]) <= {STALE}
    assert disk.log[-1][0] == "flush"


@pytest.mark.parametrize("size", [1, 512, MIB - 1, MIB, MIB + 1, 2 * MIB, 2 * MIB + 512])
def test_small_disks(size: int) -> None:
    image = MemoryImage([(size, "data")])
    disk = MemoryDisk(size)
    copy.copy(image, disk, ignore)
    assert disk.content == image.content


def test_zeros_are_not_written() -> None:
    image = MemoryImage([(MIB, "data"), (8 * MIB, "zeros"), (4 * MIB, "hole"), (MIB, "data")])
    disk = MemoryDisk(20 * MIB)
    copy.copy(image, disk, ignore)
    assert disk.written == 2 * MIB


def test_larger_image_is_refused_before_anything_is_written() -> None:
    disk = MemoryDisk(2 * MIB)
    with pytest.raises(DiskError) as caught:
        copy.copy(MemoryImage([(2 * MIB + 1, "data")]), disk, ignore)
    assert disk.log == []
    for word in ("2097153 bytes", "2097152 bytes (2.0 MiB)", "/dev/memory", "larger disk"):
        assert word in str(caught.value)


def test_unreadable_image_is_refused_before_anything_is_written() -> None:
    class Unreadable(MemoryImage):
        def read(self, offset: int, length: int) -> bytes:
            raise ImageError("unreadable")

    disk = MemoryDisk(2 * MIB)
    with pytest.raises(ImageError):
        copy.copy(Unreadable([(MIB, "data")]), disk, ignore)
    assert disk.log == []


def test_no_image_leaves_the_disk_alone() -> None:
    disk = MemoryDisk(MIB)
    copy.copy(MemoryImage([]), disk, ignore)
    copy.verify(MemoryImage([]), disk, ignore)
    assert disk.log == []


def test_progress_is_paced_and_ends_with_the_total() -> None:
    image = MemoryImage([(10 * MIB, "data")])
    often: list[tuple[int, int]] = []
    copy.copy(image, MemoryDisk(12 * MIB), lambda *where: often.append(where), interval=0)
    assert often == sorted(often)
    assert len(often) > 1
    assert often[-1] == (image.size, image.size)
    seldom: list[tuple[int, int]] = []
    copy.copy(image, MemoryDisk(12 * MIB), lambda *where: seldom.append(where), interval=3600)
    assert seldom == [(image.size, image.size)]


def test_an_interrupted_copy_leaves_no_partition_table() -> None:
    def interrupt(_position: int, _total: int) -> None:
        raise InterruptedDeploymentError("told to stop")

    image = MemoryImage([(10 * MIB, "data")])
    disk = MemoryDisk(12 * MIB)
    with pytest.raises(InterruptedDeploymentError):
        copy.copy(image, disk, interrupt, interval=0)
    assert not any(disk.content[:MIB])
    assert not any(disk.content[-MIB:])


@pytest.mark.parametrize("where", [0, 446, 3 * MIB + 7, 6 * MIB, 9 * MIB, 12 * MIB - 1])
def test_verify_names_the_first_byte_that_differs(where: int) -> None:
    image = MemoryImage([(5 * MIB, "data"), (3 * MIB, "hole"), (2 * MIB, "zeros")])
    disk = MemoryDisk(12 * MIB)
    copy.copy(image, disk, ignore)
    disk.content[where] ^= 0x01
    with pytest.raises(DiskError, match=rf"/dev/memory .*byte {where} differs"):
        copy.verify(image, disk, ignore)


class MemoryFile(OpenDisk):
    """What is exported: data where the content is not zero, holes elsewhere."""

    def __init__(self, content: bytes, size: int = 0) -> None:
        self.path = Path("/dev/memory")
        self.descriptor = os.memfd_create("disk")
        self.size = size or len(content)
        os.ftruncate(self.descriptor, len(content))
        for offset in range(0, len(content), 4096):
            if any(page := content[offset : offset + 4096]):
                os.pwrite(self.descriptor, page, offset)

    def close(self) -> None:
        os.close(self.descriptor)


def _through_pipe(source: OpenDisk, target: DiskWriter, size_fd: int | None = None) -> None:
    reader, writer = os.pipe()

    def send() -> None:
        with os.fdopen(writer, "wb"):
            stream.export(source, writer, size_fd)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        stream.import_(reader, target)
    finally:
        os.close(reader)
        sender.join()


@settings(max_examples=15)
@given(images, spares)
def test_export_then_import_is_the_same_disk(image: MemoryImage, spare: int) -> None:
    content = image.content + bytes(-image.size % SECTOR)
    target = MemoryDisk(len(content) + spare)
    with MemoryFile(content) as source:
        _through_pipe(source, target)
    assert target.content == content + bytes(spare)
    assert target.log[-1] == ("flush", 0, 0)


def test_export_tells_the_size_first() -> None:
    reader, writer = os.pipe()
    with MemoryFile(b"x" * (3 * MIB + 512)) as source:
        _through_pipe(source, MemoryDisk(source.size), writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as told:
        assert told.read() == b"3146240\n"


def _pipe_with(data: bytes) -> int:
    reader, writer = os.pipe()

    def send() -> None:
        with os.fdopen(writer, "wb") as pipe:
            pipe.write(data)

    threading.Thread(target=send).start()
    return reader


def test_import_of_too_much_is_refused_and_leaves_no_partition_table() -> None:
    reader = _pipe_with(b"x" * (2 * MIB + 1))
    disk = MemoryDisk(2 * MIB)
    with os.fdopen(reader, "rb"), pytest.raises(DiskError, match="larger than disk /dev/memory"):
        stream.import_(reader, disk)
    assert not any(disk.content[:MIB])


def test_import_of_what_breaks_off_is_refused_and_leaves_no_partition_table() -> None:
    reader = _pipe_with(b"x" * (2 * MIB + 100))
    disk = MemoryDisk(4 * MIB)
    with os.fdopen(reader, "rb"), pytest.raises(DiskError, match="breaks off after 2097252 bytes"):
        stream.import_(reader, disk)
    assert not any(disk.content[:MIB])


def test_import_of_nothing_is_refused_before_anything_is_written() -> None:
    reader = _pipe_with(b"")
    disk = MemoryDisk(2 * MIB)
    with os.fdopen(reader, "rb"), pytest.raises(DiskError, match="nothing was given"):
        stream.import_(reader, disk)
    assert disk.log == []


def test_import_of_zeros_writes_nothing() -> None:
    reader = _pipe_with(bytes(3 * MIB))
    disk = MemoryDisk(4 * MIB)
    with os.fdopen(reader, "rb"):
        stream.import_(reader, disk)
    assert not any(disk.content)
    assert disk.written == 0


def test_export_to_nobody_is_an_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with (
        os.fdopen(writer, "wb"),
        MemoryFile(bytes(MIB)) as disk,
        pytest.raises(DiskError, match=r"Broken pipe.*standard output"),
    ):
        stream.export(disk, writer)


@pytest.mark.parametrize("content", [b"", bytes(MIB), b"x" * MIB], ids=["none", "hole", "data"])
def test_export_of_a_disk_that_became_shorter_is_an_error(content: bytes) -> None:
    with (
        open(os.devnull, "wb") as out,
        MemoryFile(content, size=2 * MIB) as disk,
        pytest.raises(DiskError, match=r"/dev/memory cannot be exported: it has become shorter"),
    ):
        stream.export(disk, out.fileno())


def test_export_goes_to_any_kind_of_file(tmp_path: Path) -> None:
    """sendfile(2) refuses files that are appended to, and is not needed."""
    content = bytes(MIB) + b"x" * (MIB + 7) + bytes(3 * MIB)
    reading, writing = socket.socketpair()
    received = bytearray()

    def receive() -> None:
        while more := reading.recv(MIB):
            received.extend(more)

    receiver = threading.Thread(target=receive)
    receiver.start()
    with MemoryFile(content) as disk:
        for mode in ("wb", "ab"):
            with (tmp_path / mode).open(mode) as out:
                stream.export(disk, out.fileno())
            assert (tmp_path / mode).read_bytes() == content
        with writing:
            stream.export(disk, writing.fileno())
    receiver.join()
    reading.close()
    assert received == content


def test_import_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(DiskError, match="cannot read what is to be imported"):
            stream.import_(directory, MemoryDisk(MIB))
    finally:
        os.close(directory)
