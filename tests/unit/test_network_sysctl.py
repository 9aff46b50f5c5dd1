"""The gate to kernel parameters, on files that stand for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from snf_core.errors import NetworkError
from snf_core.network.state import Change, Item
from snf_core.network.sysctl import Sysctl

if TYPE_CHECKING:
    from pathlib import Path

FORWARDING = "net/ipv4/conf/tap0.5/forwarding"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, value in ((FORWARDING, "0\n"), ("b", "1\t2  3\n"), ("c", "x\n")):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(value)
    (tmp_path / "directory").mkdir()
    return tmp_path


def item(path: str, value: str = "1") -> Item:
    return Item("sysctl", path, "value", value)


def test_values_are_read_and_what_is_missing_left_out(root: Path) -> None:
    items = [item(FORWARDING), item("b"), item("missing"), item("b/missing")]
    wanted = {items[0].key: "0", items[1].key: "1 2 3"}
    assert Sysctl(root).read(items) == wanted
    assert Sysctl(root).snapshot(items) == wanted


def test_only_what_differs_is_written(root: Path) -> None:
    (root / "b").chmod(0o400)
    before = (root / "b").stat().st_mtime_ns
    changes = [Change(item(FORWARDING), "0"), Change(item("b", "1 2 3"), None)]
    assert not Sysctl(root).apply(changes)
    assert (root / FORWARDING).read_text() == "1\n"
    assert (root / "b").stat().st_mtime_ns == before


def test_all_or_nothing(root: Path) -> None:
    changes = [Change(item(FORWARDING), "0"), Change(item("c", "y"), "x")]
    for position in range(3):
        wrong = [*changes[:position], Change(item("missing"), None), *changes[position:]]
        with pytest.raises(NetworkError, match="missing cannot be set to 1: No such file"):
            Sysctl(root).apply(wrong)
        assert (root / FORWARDING).read_text().strip() == "0"
        assert (root / "c").read_text().strip() == "x"
        assert not (root / "missing").exists()


@pytest.mark.parametrize(
    "path", ["", "/etc/passwd", "../b", "net/../b", "net//b", "b/", ".", "b\0"]
)
def test_paths_stay_below(root: Path, path: str) -> None:
    for attempt in (Sysctl(root).read, Sysctl(root).snapshot):
        with pytest.raises(NetworkError, match="not the path"):
            attempt([item(path)])
    with pytest.raises(NetworkError, match="not the path"):
        Sysctl(root).apply([Change(item(path), None)])


def test_what_cannot_be_read_is_named(root: Path) -> None:
    with pytest.raises(NetworkError, match="sysctl directory cannot be read"):
        Sysctl(root).read([item("directory")])
