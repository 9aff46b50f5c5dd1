"""Variants: made from what snf-image-creator writes, which is not believed unseen."""

from __future__ import annotations

import json
import logging
import os
import stat
import threading
from pathlib import Path

import pytest

from snf_core.config import Config
from snf_core.errors import ConfigError, ImageError, InvalidValueError, SnfError, UnsupportedError
from snf_core.ganeti import glue, installation, variant
from snf_core.ganeti.variant import Variant
from snf_core.image import parameters
from tests.locks import until_waiting

PROPERTIES = {"OSFAMILY": "linux", "USERS": "root debian", "DESCRIPTION": 'it\'s "$x" `y` #1'}
META = {"properties": PROPERTIES, "disk-format": "diskdump", "made-by": ["somebody"]}
VARIANT = """IMG_ID=/home/maker/out/debian.diskdump
IMG_FORMAT=diskdump
IMG_PROPERTIES='{"OSFAMILY": "linux", "GUI": "it'"'"'s"}'
"""


class Place:
    """A node with an image directory and a configuration."""

    def __init__(self, top: Path) -> None:
        self.images = top / "images"
        self.images.mkdir()
        self.root = top / "root"
        self.root.mkdir()
        self.variants = self.root / "etc/snf/variants"
        (self.images / "debian.diskdump").write_bytes(b"x")
        self.file = top / "snf.conf"
        self.file.write_text(f"[image.source.local]\ndirectory = {self.images}\n")

    @property
    def config(self) -> Config:
        """As the node has it."""
        return Config([self.file])

    def meta(self, document: object = META) -> None:
        """Describe the image."""
        text = document if isinstance(document, str) else json.dumps(document)
        (self.images / "debian.diskdump.meta").write_text(text)

    def add(self, image: str = "debian.diskdump", **more: object) -> dict[str, str]:
        """Make the variant ``bookworm``; what its file says."""
        path, lines = variant.add("bookworm", image, self.config, self.root, **more)  # type: ignore[arg-type]
        assert path == self.variants / "bookworm.conf"
        assert [line for line in path.read_text().splitlines() if line[0] != "#"] == lines
        return parameters.assignments(path)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.mark.parametrize(
    "image",
    ["debian.diskdump", "local://debian.diskdump", "/debian.diskdump", "{}/debian.diskdump",
     "{}/debian.diskdump.meta", "{}/../images/debian.diskdump"],
)  # fmt: skip
def test_from_an_image_and_what_stands_beside_it(place: Place, image: str) -> None:
    place.meta()
    values = place.add(image.format(place.images))
    named = values.pop("img_id")
    assert named.removeprefix("local://").lstrip("/") == "debian.diskdump"
    assert json.loads(values.pop("img_properties")) == PROPERTIES
    assert values == {"img_format": "diskdump"}


def test_what_it_is_made_into_is_what_a_deployment_reads(place: Place) -> None:
    place.meta()
    place.add()
    place.file.write_text(place.file.read_text() + f"[image]\nvariants = {place.variants}\n")
    checked = parameters.check(parameters.collect(place.config, {"OS_VARIANT": "bookworm"}))
    assert checked.img_id == "debian.diskdump"
    assert {name: checked.properties.get(name) for name in PROPERTIES} == PROPERTIES
    assert variant.listing(place.config, Path("/")) == [
        Variant("bookworm", "debian.diskdump (diskdump)")
    ]


def test_from_a_variant_file_beside_its_image(place: Place) -> None:
    file = place.images / "debian.diskdump.variant"
    file.write_text(VARIANT)
    values = place.add(str(file))
    assert values["img_id"] == "local://debian.diskdump", "not where it was made"
    assert json.loads(values["img_properties"]) == {"OSFAMILY": "linux", "GUI": "it's"}


def test_from_a_variant_file_elsewhere(place: Place, tmp_path: Path) -> None:
    file = tmp_path / "elsewhere.variant"
    file.write_text("IMG_ID=local://debian.diskdump\nIMG_FORMAT=diskdump\n")
    assert place.add(str(file)) == {"img_id": "local://debian.diskdump", "img_format": "diskdump"}
    file.write_text(VARIANT)
    with pytest.raises(ImageError, match=r"there is no image '/home/maker/out/debian.diskdump'"):
        place.add(str(file), force=True)


def test_of_an_image_that_is_a_link(place: Place) -> None:
    """Operators point a stable name at the image of the week."""
    (place.images / "latest").symlink_to("debian.diskdump")
    assert place.add(f"{place.images}/latest", image_format="diskdump") == {
        "img_id": "local://latest", "img_format": "diskdump"
    }  # fmt: skip


def test_what_is_given_counts_more_than_what_is_found(place: Place) -> None:
    place.meta({"properties": PROPERTIES, "disk-format": "qcow9"})
    values = place.add(image_format="diskdump", more='{"users": "root", "GUI": true}')
    assert values["img_format"] == "diskdump"
    assert json.loads(values["img_properties"]) == PROPERTIES | {"USERS": "root", "GUI": "yes"}


def test_properties_that_mean_nothing_here_are_left_out(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    place.meta({"properties": {"NEWEST": "x", "GUI": "none"}, "disk-format": "diskdump"})
    assert json.loads(place.add()["img_properties"]) == {"GUI": "none"}
    assert "left out, as no task knows them: NEWEST" in caplog.text
    with pytest.raises(InvalidValueError, match="no task knows the properties NEWEST"):
        place.add(more='{"NEWEST": "x"}', force=True)


@pytest.mark.parametrize(
    ("document", "error", "said"),
    [
        ("", InvalidValueError, "does not describe an image"),
        ("{", InvalidValueError, "does not describe an image"),
        ("[]", InvalidValueError, "does not describe an image"),
        ("[" * 100_000, InvalidValueError, "does not describe an image"),
        ({"properties": []}, InvalidValueError, "does not describe an image"),
        ({"disk-format": 7}, InvalidValueError, "does not describe an image"),
        ("\udcff".encode("utf-8", "surrogatepass").decode("latin-1"), InvalidValueError, "descr"),
        ({"properties": {"A": "x" * (1 << 20)}}, InvalidValueError, "too large"),
        ({}, InvalidValueError, "parameter img_format is missing"),
        ({"disk-format": "$(reboot)"}, InvalidValueError, "there is no format"),
        ({"disk-format": "ntfsdump"}, UnsupportedError, "ntfsdump is not served"),
        ({"properties": {"A; reboot": "x"}}, InvalidValueError, "is not a property name"),
        ({**META, "properties": {"USERS": "root;reboot"}}, InvalidValueError, "USERS"),
        ({"properties": {"USERS": {"a": 1}}}, InvalidValueError, "neither text nor"),
        ({"properties": {"GUI": "a\0b"}}, InvalidValueError, "no text can hold"),
        ({"properties": {"GUI": "a", "gui": "b"}}, InvalidValueError, "GUI is given twice"),
        ({"properties": {"OSFAMILY": "beos"}}, InvalidValueError, "no guest family 'beos'"),
        ({**META, "properties": {"ROOT_PARTITION": "../1"}}, InvalidValueError, "ROOT_PARTITION"),
    ],
)
def test_what_is_hostile_is_refused(
    place: Place, document: object, error: type[SnfError], said: str
) -> None:
    place.meta(document)
    with pytest.raises(error, match=said):
        place.add()
    assert not place.variants.exists()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("AUTH_KEYS='ssh-ed25519 AAAA maker'", "AUTH_KEYS"),
        ("IMG_PASSWD_HASH=x\nCONFIG_URL=http://maker/x", "CONFIG_URL, IMG_PASSWD_HASH"),
        ("reboot", "is not an assignment"),
        ("PATH=/tmp", "is not an assignment"),
        ("IMG_FORMAT='", "No closing quotation"),
        ("IMG_FORMAT=" + "x" * (1 << 20), "too large"),
    ],
)
def test_a_variant_file_may_say_what_its_image_is_and_no_more(
    place: Place, line: str, said: str
) -> None:
    file = place.images / "debian.diskdump.variant"
    file.write_text(f"{VARIANT}{line}\n")
    with pytest.raises((InvalidValueError, ConfigError), match=said):
        place.add(str(file))
    assert not place.variants.exists()


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "a+b", "-x", "a b", "é", "a\n"])
def test_names_that_variants_cannot_have(place: Place, name: str) -> None:
    with pytest.raises(InvalidValueError, match="is not the name of a variant"):
        variant.add(name, "debian.diskdump", place.config, place.root, image_format="diskdump")
    with pytest.raises(InvalidValueError, match="is not the name of a variant"):
        variant.remove(name, place.config, place.root)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        ("nothing", "there is no image 'nothing'"),
        ("local://../snf.conf", "leads out of the image directory"),
        ("{}/../snf.conf", "snf.conf is not in the image directory"),
        ("{}", "there is no image"),
        ("ftp://somewhere/x", "no image source accepts"),
    ],
)
def test_images_that_cannot_be_deployed(place: Place, image: str, said: str) -> None:
    with pytest.raises(SnfError, match=said):
        place.add(image.format(place.images), image_format="diskdump")
    assert not place.variants.exists()


def untouched(file: Path) -> tuple[int, ...]:
    """What stays as long as nobody writes to it: whoever reads it changes its access time."""
    found = file.lstat()
    return found.st_ino, found.st_mode, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def test_another_is_replaced_by_force_alone(place: Place) -> None:
    place.add(image_format="diskdump")
    file = place.variants / "bookworm.conf"
    file.write_text("# the operator's note\n" + file.read_text())
    before = untouched(file)
    place.add(image_format="diskdump")
    assert untouched(file) == before, "it says the same"
    with pytest.raises(SnfError, match="there is another variant 'bookworm'") as caught:
        place.add(image_format="diskdump", more='{"GUI": "x"}')
    assert "--force" in caught.value.remedy
    assert untouched(file) == before
    place.add(image_format="diskdump", more='{"GUI": "x"}', force=True)
    assert "GUI" in file.read_text()


@pytest.mark.parametrize("make", [lambda file: file.symlink_to("nowhere"), Path.mkdir, os.mkfifo])
def test_whatever_has_its_name_is_another(place: Place, make: object) -> None:
    assert callable(make)
    place.variants.mkdir(parents=True)
    make(place.variants / "bookworm.conf")
    before = untouched(place.variants / "bookworm.conf")
    with pytest.raises(SnfError, match="there is another variant"):
        place.add(image_format="diskdump")
    assert untouched(place.variants / "bookworm.conf") == before


def test_whatever_the_umask(place: Place) -> None:
    before = os.umask(0o077)
    try:
        place.add(image_format="diskdump")
    finally:
        os.umask(before)
    assert stat.S_IMODE((place.variants / "bookworm.conf").stat().st_mode) == 0o644
    assert stat.S_IMODE(place.variants.stat().st_mode) == 0o755
    assert [path.name for path in place.variants.iterdir()] == ["bookworm.conf"]


def test_published_and_withdrawn(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    library = place.root / "usr/lib/ganeti"
    library.mkdir(parents=True)
    (library / "daemon-util").touch()
    place.add(image_format="diskdump")
    assert "Ganeti does not see it before the OS definition is there" in caplog.text
    caplog.clear()
    glue.install(place.config, place.root, place.file)
    names = place.root / "usr/share/ganeti/os/snf-image/variants.list"
    assert names.read_text() == "bookworm\ndefault\n"
    variant.remove("bookworm", place.config, place.root)
    assert names.read_text() == "default\n"
    place.add(image_format="diskdump")
    assert names.read_text() == "bookworm\ndefault\n"
    assert glue.check(place.config, place.root, place.file) == []
    assert caplog.messages == []


def test_somebody_elses_definition_is_not_touched(place: Place) -> None:
    names = place.root / "usr/share/ganeti/os/snf-image/variants.list"
    names.parent.mkdir(parents=True)
    names.write_text("default\n")
    (names.parent / "create").write_text("#!/bin/sh\n")
    place.add(image_format="diskdump")
    assert names.read_text() == "default\n"


def test_broken_ones_are_listed_with_their_error(place: Place) -> None:
    place.variants.mkdir(parents=True)
    (place.variants / "broken.conf").write_text("IMG_ID=x\nIMG_FORMAT=vhd\n")
    (place.variants / "dangling.conf").symlink_to("nowhere")
    place.add(image_format="diskdump")
    found = {one.name: one for one in variant.listing(place.config, place.root)}
    assert found.keys() == {"bookworm", "broken", "dangling"}
    assert "there is no format 'vhd'" in found["broken"].error
    assert "No such file" in found["dangling"].error
    assert not found["bookworm"].error


@pytest.mark.parametrize("act", ["add", "remove", "install", "uninstall"])
def test_one_at_a_time(place: Place, act: str) -> None:
    """Nobody publishes a list of variants that has become another one meanwhile."""
    library = place.root / "usr/lib/ganeti"
    library.mkdir(parents=True)
    (library / "daemon-util").touch()
    glue.install(place.config, place.root, place.file)
    names = place.root / "usr/share/ganeti/os/snf-image/variants.list"
    if act == "remove":
        place.add(image_format="diskdump")
    acts = {
        "add": lambda: place.add(image_format="diskdump"),
        "remove": lambda: variant.remove("bookworm", place.config, place.root),
        "install": lambda: glue.install(place.config, place.root, place.file),
        "uninstall": lambda: glue.uninstall(place.config, place.root),
    }
    thread = threading.Thread(target=acts[act])
    before = names.read_text()
    with installation.locked(place.root):
        thread.start()
        until_waiting(place.root, lambda: not thread.is_alive())
        assert thread.is_alive()
        assert names.read_text() == before
        place.variants.mkdir(parents=True, exist_ok=True)
        (place.variants / "meanwhile.conf").write_text("IMG_ID=debian.diskdump\n")
    thread.join()
    after = {"add": ["bookworm", "default", "meanwhile"], "uninstall": []}
    found = names.read_text().split() if names.exists() else []
    assert found == after.get(act, ["default", "meanwhile"])
