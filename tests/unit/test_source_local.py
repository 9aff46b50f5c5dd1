"""Images in a directory, and the identifiers that must not lead out of it."""

from __future__ import annotations

import os
import stat
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from snf_core.errors import ImageError
from snf_core.image.format.diskdump import Diskdump
from snf_core.image.source.local import Local
from snf_core.image.source.null import Null

if TYPE_CHECKING:
    from pathlib import Path

    from snf_core.contract import ImageReader

MIB = 1 << 20


@pytest.fixture(name="images")
def _images(tmp_path: Path) -> Path:
    images = tmp_path / "images"
    (images / "sub").mkdir(parents=True)
    (images / "debian.img").write_bytes(b"debian")
    (images / "sub" / "other").write_bytes(b"other")
    (images / "old.diskdump").write_bytes(b"old")
    (tmp_path / "secret").write_bytes(b"secret")
    return images


def _open(images: Path, image_id: str) -> ImageReader:
    return Local(SimpleNamespace(directory=str(images))).open(image_id, "diskdump")


def _content(images: Path, image_id: str) -> bytes:
    with _open(images, image_id) as image:
        return image.read(0, image.size)


@pytest.mark.parametrize(
    ("image_id", "accepted"),
    [
        ("debian.img", True),
        ("/a/b", True),
        ("local://debian.img", True),
        ("local://with:colon", True),
        ("file://debian.img", True),
        ("http://host/debian.img", False),
        ("pithos://a/b/c", False),
        ("local:debian.img", False),
    ],
)
def test_identifiers(image_id: str, accepted: bool) -> None:
    assert Local(SimpleNamespace(directory="/nowhere")).accepts(image_id) is accepted


@pytest.mark.parametrize(
    ("image_id", "content"),
    [
        ("debian.img", b"debian"),
        ("local://debian.img", b"debian"),
        ("local:///debian.img", b"debian"),
        ("/debian.img", b"debian"),
        ("./debian.img", b"debian"),
        ("sub/other", b"other"),
        ("sub/../debian.img", b"debian"),
        ("old", b"old"),
        ("local://old", b"old"),
    ],
)
def test_images_below_the_directory(images: Path, image_id: str, content: bytes) -> None:
    assert _content(images, image_id) == content


def test_the_old_scheme_is_deprecated(images: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert _content(images, "file://debian.img") == b"debian"
    assert "deprecated" in caplog.text


def test_the_exact_name_comes_before_the_one_with_the_format(images: Path) -> None:
    (images / "old").write_bytes(b"exact")
    assert _content(images, "old") == b"exact"


@pytest.mark.parametrize(
    "image_id",
    ["../secret", "./../secret", "sub/../../secret", "local://../secret", "/../secret", ".."],
)
def test_dots_do_not_lead_out(images: Path, image_id: str) -> None:
    with pytest.raises(ImageError, match="leads out of the image directory"):
        _open(images, image_id)


def test_an_absolute_name_is_looked_up_inside(images: Path, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="there is no image"):
        _open(images, str(tmp_path / "secret"))


@pytest.mark.parametrize("target", ["../secret", "{outside}/secret", "{outside}/images/debian.img"])
def test_symbolic_links_do_not_lead_out(images: Path, tmp_path: Path, target: str) -> None:
    (images / "link").symlink_to(target.format(outside=tmp_path))
    with pytest.raises(ImageError, match="leads out of the image directory"):
        _open(images, "link")


def test_a_directory_swapped_for_a_link_does_not_lead_out(images: Path, tmp_path: Path) -> None:
    assert _content(images, "sub/other") == b"other"
    (images / "sub").rename(images / "kept")
    (images / "sub").symlink_to(tmp_path)
    with pytest.raises(ImageError, match="leads out of the image directory"):
        _open(images, "sub/secret")


def test_symbolic_links_that_stay_inside_are_followed(images: Path) -> None:
    (images / "latest").symlink_to("debian.img")
    (images / "sub" / "up").symlink_to("../debian.img")
    assert _content(images, "latest") == b"debian"
    assert _content(images, "sub/up") == b"debian"


def test_a_symbolic_link_to_itself_is_an_error(images: Path) -> None:
    (images / "loop").symlink_to("loop")
    with pytest.raises(ImageError, match=r"'loop'.*symbolic links"):
        _open(images, "loop")


@pytest.mark.parametrize("image_id", ["missing", "local://missing", "sub/missing", "debian.img/x"])
def test_a_missing_image_is_named(images: Path, image_id: str) -> None:
    with pytest.raises(ImageError) as caught:
        _open(images, image_id)
    assert repr(image_id) in str(caught.value)


def test_a_missing_image_names_the_directory(images: Path) -> None:
    with pytest.raises(ImageError, match=f"no image 'missing' in {images}"):
        _open(images, "missing")


def test_a_missing_directory_names_the_option(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"option directory of group \[image.source.local\]"):
        _open(tmp_path / "nowhere", "debian.img")


@pytest.mark.parametrize("image_id", ["", "/", "local://", "local:///", "file://"])
def test_an_empty_name_is_refused(images: Path, image_id: str) -> None:
    with pytest.raises(ImageError, match="names no file"):
        _open(images, image_id)


@pytest.mark.parametrize("image_id", ["debian.img\0", "x" * 300, "a\ud800"])
def test_hostile_names_are_errors_of_ours(images: Path, image_id: str) -> None:
    with pytest.raises(ImageError):
        _open(images, image_id)


def test_an_empty_image_is_refused(images: Path) -> None:
    (images / "empty").touch()
    with pytest.raises(ImageError, match="'empty' is empty"):
        _open(images, "empty")


def test_what_is_no_regular_file_is_refused_without_waiting(images: Path) -> None:
    os.mkfifo(images / "fifo")
    os.mknod(images / "socket", stat.S_IFSOCK | 0o600)
    for name, kind in (("fifo", "a FIFO"), ("socket", "a socket"), ("sub", "a directory")):
        with pytest.raises(ImageError, match=f"{name}' is {kind}"):
            _open(images, name)


def test_extents_are_the_holes_and_the_data(images: Path) -> None:
    with (images / "sparse").open("wb") as file:
        file.truncate(8 * MIB)
        file.seek(2 * MIB)
        file.write(b"x" * MIB)
    with _open(images, "sparse") as image:
        found = list(image.extents())
        assert image.size == 8 * MIB
        assert image.read(2 * MIB - 1, 2) == b"\0x"
    assert found == [(0, 2 * MIB, False), (2 * MIB, MIB, True), (3 * MIB, 5 * MIB, False)]


def test_an_image_cut_short_while_it_is_read_is_an_error(images: Path) -> None:
    path = images / "cut"
    path.write_bytes(b"x" * MIB)
    with _open(images, "cut") as image:
        os.truncate(path, MIB // 2)
        with pytest.raises(ImageError, match="'cut' changed while it was read"):
            image.read(0, MIB)
        with pytest.raises(ImageError, match="'cut'"):
            list(image.extents())


def test_an_image_written_while_it_is_read_is_an_error(images: Path) -> None:
    path = images / "grows"
    path.write_bytes(b"x" * MIB)
    with _open(images, "grows") as image:
        with path.open("ab") as file:
            file.write(b"more")
        with pytest.raises(ImageError, match="'grows' changed while it was read"):
            list(image.extents())


def test_the_null_image_is_nothing() -> None:
    source = Null(None)
    assert source.accepts("null")
    assert not source.accepts("null ")
    assert not source.accepts("local://null")
    with source.open("null", "diskdump") as image:
        assert image.size == 0
        assert list(image.extents()) == []
        with pytest.raises(ImageError):
            image.read(0, 1)


def test_a_diskdump_is_the_disk(images: Path) -> None:
    with _open(images, "debian.img") as image:
        assert Diskdump(None).disk(image) is image
