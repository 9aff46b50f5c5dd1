"""Private directories of tests: theirs alone, and gone afterwards."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest

from tests import workspace

if TYPE_CHECKING:
    from pathlib import Path


def test_private_and_gone_afterwards(tmp_path: Path) -> None:
    parent = tmp_path / "deployments"
    mask = os.umask(0o077)
    try:
        with workspace.private(parent) as directory:
            assert directory.stat().st_mode & 0o777 == 0o700
            assert parent.stat().st_mode & 0o777 == 0o711
            (directory / "deep" / "er").mkdir(parents=True)
    finally:
        os.umask(mask)
    assert list(parent.iterdir()) == []


def test_gone_after_a_failure_too(tmp_path: Path) -> None:
    def fail() -> None:
        with workspace.private(tmp_path) as directory:
            (directory / "secret").write_text("x")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_those_of_the_dead_are_removed_and_those_of_the_living_are_not(tmp_path: Path) -> None:
    dead = tmp_path / "dead"
    (dead / "scratch").mkdir(parents=True)
    with workspace.private(tmp_path) as one:
        assert not dead.exists()
        (one / "mine").touch()
        with workspace.private(tmp_path) as two:
            assert (one / "mine").exists()
            assert one != two
        assert (one / "mine").exists()


def test_what_is_no_directory_is_left_alone(tmp_path: Path) -> None:
    """A symbolic link is not followed."""
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "precious").mkdir(parents=True)
    parent = tmp_path / "deployments"
    parent.mkdir()
    (parent / "file").touch()
    (parent / "link").symlink_to(elsewhere)
    with workspace.private(parent):
        pass
    assert (elsewhere / "precious").is_dir()
    assert sorted(path.name for path in parent.iterdir()) == ["file", "link"]


def test_many_at_once_never_remove_each_others(tmp_path: Path) -> None:
    """Between its making and its locking, too, a directory belongs to its maker."""
    there: list[bool] = []

    def deploy() -> None:
        for _ in range(40):
            with workspace.private(tmp_path) as directory:
                there.append(directory.is_dir())

    threads = [threading.Thread(target=deploy) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert there == [True] * 320
    assert list(tmp_path.iterdir()) == []
