"""Choosing among plugins that distributions bring, broken ones among them."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import pytest

from snf_core import extension
from snf_core.config import Config
from snf_core.errors import DiskError, ImageError
from snf_core.image.selection import choose_destination, choose_source
from snf_core.model import Disk

if TYPE_CHECKING:
    from pathlib import Path

MODULE = """
    from snf_core import contract

    class Low(contract.Source):
        api_version = "1.0"
        priority = 20

        def accepts(self, image_id):
            return image_id.startswith(("chosen:", "low:"))

        def open(self, image_id, image_format):
            raise AssertionError("nothing is opened here")

    class High(Low):
        priority = 60

        def accepts(self, image_id):
            return image_id.startswith("chosen:")

    class Equal(High):
        pass

    class Raises(Low):
        priority = 99

        def accepts(self, image_id):
            raise RuntimeError("cannot think")

    class Misfit(Low):
        api_version = "7.0"
"""

ENTRY_POINTS = """
    [snf.image.source]
    testing-equal = selection_plugins:Equal
    testing-high = selection_plugins:High
    testing-low = selection_plugins:Low
    testing-misfit = selection_plugins:Misfit
    testing-missing = selection_plugins:NoSuchThing
    testing-raises = selection_plugins:Raises
"""


@pytest.fixture(name="plugins")
def _plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution on sys.path, as an installation leaves it."""
    info = tmp_path / "selection_plugins-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: selection-plugins\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(textwrap.dedent(ENTRY_POINTS))
    (tmp_path / "selection_plugins.py").write_text(textwrap.dedent(MODULE))
    monkeypatch.syspath_prepend(tmp_path)


def _class_of(image_id: str) -> str:
    return type(choose_source(image_id, Config([]))).__name__


@pytest.mark.usefixtures("plugins")
def test_highest_priority_then_first_name_wins_and_broken_ones_are_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert _class_of("chosen:x") == "Equal"
    assert _class_of("low:x") == "Low"
    for name in ("testing-misfit", "testing-missing", "testing-raises"):
        assert f"{name!r} is left out" in caplog.text


@pytest.mark.usefixtures("plugins")
def test_no_source_names_those_there_are_and_those_broken() -> None:
    with pytest.raises(ImageError) as caught:
        choose_source("nobody:x", Config([]))
    text = str(caught.value)
    assert "'nobody:x'" in text
    assert text.index("testing-low") < text.index("broken:") < text.index("testing-raises")
    assert "cannot think" in text


def test_the_built_in_ones() -> None:
    for image_id, name in (("debian.img", "local"), ("local://x", "local"), ("null", "null")):
        source = choose_source(image_id, Config([]))
        assert type(source) is extension.load(extension.IMAGE_SOURCE, name)
    destination = choose_destination(Disk(0, path="/dev/vg/disk"), Config([]))
    assert type(destination) is extension.load(extension.IMAGE_DESTINATION, "local")


def test_no_destination_names_the_disk() -> None:
    with pytest.raises(DiskError, match=r"unknown:disk.*installed:.*local"):
        choose_destination(Disk(0, uri="unknown:disk"), Config([]))
