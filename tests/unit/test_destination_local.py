"""Disks that are files."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from snf_core.errors import DiskError
from snf_core.image import copy
from snf_core.image.destination.local import Local
from snf_core.image.source.local import Local as Source
from snf_core.model import Disk

if TYPE_CHECKING:
    from snf_core.contract import DiskWriter

MIB = 1 << 20


def _open(path: Path) -> DiskWriter:
    return Local(None).open(Disk(0, path=str(path)))


@pytest.fixture(name="path")
def _path(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    path.write_bytes(b"\xaa" * (8 * MIB))
    return path


def test_disks_with_a_path_are_accepted() -> None:
    assert Local(None).accepts(Disk(0, path="/dev/vg/disk"))
    assert not Local(None).accepts(Disk(0, uri="rbd:pool/image"))


def test_write_read_zero_and_close(path: Path) -> None:
    with _open(path) as disk:
        assert (disk.size, disk.path) == (8 * MIB, path)
        disk.write(5, b"hello")
        disk.flush()
        assert disk.read(4, 7) == b"\xaahello\xaa"
        disk.zero(7, 3 * MIB)
        disk.flush()
        assert disk.read(4, 4) == b"\xaahe\0"
    content = path.read_bytes()
    assert content[7 : 7 + 3 * MIB] == bytes(3 * MIB)
    assert content[7 + 3 * MIB :] == b"\xaa" * (5 * MIB - 7)


def test_zeroing_frees_storage_and_keeps_the_size(path: Path) -> None:
    with _open(path) as disk:
        disk.zero(0, disk.size)
        disk.flush()
        assert disk.read(0, disk.size) == bytes(disk.size)
    assert path.stat().st_size == 8 * MIB
    assert path.stat().st_blocks * 512 < MIB


def test_zeroing_a_fresh_sparse_file_allocates_nothing(tmp_path: Path) -> None:
    path = tmp_path / "fresh"
    with path.open("wb") as file:
        file.truncate(64 << 30)
    with _open(path) as disk:
        disk.zero(0, disk.size)
        disk.flush()
    assert path.stat().st_size == 64 << 30
    assert path.stat().st_blocks * 512 < MIB


def test_a_copy_neither_grows_nor_shrinks_the_file(path: Path, tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(b"image" * 1000)
    with (
        Source(type("Conf", (), {"directory": str(tmp_path)})).open("image", "") as image,
        _open(path) as disk,
    ):
        copy.copy(image, disk, lambda _position, _total: None)
        copy.verify(image, disk, lambda _position, _total: None)
    assert path.read_bytes() == b"image" * 1000 + bytes(8 * MIB - 5000)


def test_a_missing_disk_is_named(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match=f"{tmp_path}/gone .*create or attach"):
        _open(tmp_path / "gone")


def test_a_disk_of_no_size_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(DiskError, match="empty has no size"):
        _open(tmp_path / "empty")


def test_what_is_no_disk_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    os.mknod(tmp_path / "socket", stat.S_IFSOCK | 0o600)
    for path, kind in (
        (tmp_path / "fifo", "a FIFO"),
        (tmp_path / "socket", "a socket"),
        (tmp_path, "a directory"),
        (Path("/dev/null"), "a character device"),
    ):
        with pytest.raises(DiskError, match=f"{path} is {kind}"):
            _open(path)


@pytest.mark.parametrize("operation", ["read", "zero"])
def test_a_disk_that_shrank_is_an_error_and_does_not_pass_for_zeros(
    path: Path, operation: str
) -> None:
    with _open(path) as disk:
        os.truncate(path, MIB)
        with pytest.raises(DiskError, match=f"{path} .*become shorter.*kernel's log"):
            getattr(disk, operation)(4 * MIB, MIB)
