"""Ganeti's list of taps."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from snf_core.contract import HostNic
from snf_kvm import host_nics

if TYPE_CHECKING:
    from pathlib import Path

WEB1 = "web1.gnt.test"


def write(directory: Path, place: str, content: str) -> None:
    path = directory / place
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)


def test_what_ganeti_has_written(tmp_path: Path) -> None:
    write(tmp_path, f"{WEB1}/0", "tap0")
    write(tmp_path, f"{WEB1}/1", "tap7\n")
    write(tmp_path, "web2/0", "tap1")
    assert set(host_nics.listed(tmp_path)) == {
        HostNic(WEB1, 0, "tap0"),
        HostNic(WEB1, 1, "tap7"),
        HostNic("web2", 0, "tap1"),
    }


@pytest.mark.parametrize(
    ("place", "content"),
    [
        (f"{WEB1}/0", ""),
        (f"{WEB1}/0", "tap0 tap1"),
        (f"{WEB1}/0", "../tap0"),
        (f"{WEB1}/0", "all"),
        (f"{WEB1}/0", "t" * 100),
        (f"{WEB1}/0", "gnt.com.0"),  # Ganeti's own
        (f"{WEB1}/0.new", "tap0"),
        (f"{WEB1}/-1", "tap0"),
        (f"{WEB1}/٣", "tap0"),
        (".web1/0", "tap0"),
    ],
)
def test_what_cannot_be_is_left_out(tmp_path: Path, place: str, content: str) -> None:
    write(tmp_path, place, content)
    assert list(host_nics.listed(tmp_path)) == []


def test_what_is_no_file_is_left_out(tmp_path: Path) -> None:
    write(tmp_path, f"{WEB1}/name", "tap0")
    (tmp_path / WEB1 / "0").symlink_to("name")
    os.mkfifo(tmp_path / WEB1 / "1")
    (tmp_path / WEB1 / "2").mkdir()
    assert list(host_nics.listed(tmp_path)) == []


def test_where_nothing_ever_ran(tmp_path: Path) -> None:
    assert list(host_nics.listed(tmp_path / "nic")) == []
