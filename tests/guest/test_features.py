"""What libguestfs asks QEMU: asked once, and not again where the answers were kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from snf_core.appliance import Launcher
from snf_core.errors import ApplianceError
from snf_core.image import features, guest

if TYPE_CHECKING:
    from pathlib import Path

    from snf_core.appliance import Appliance

LOGGED = """#!/bin/sh
echo "$@" >>{log}
for word; do [ "$word" = -drive ] && exit 1; done
exec qemu-system-x86_64 "$@"
"""
"""QEMU for all but the appliance; what it was called with is written down."""


@pytest.fixture(name="cache", scope="module")
def _cache(
    appliance: Appliance, launcher: Launcher, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    cache = tmp_path_factory.mktemp("recorded") / "features"
    features.record(appliance, launcher, cache)
    return cache


def asked(appliance: Appliance, place: Path, cache: Path | None) -> list[str]:
    """The arguments of every run of QEMU in a start that fails in the end."""
    program, log, disk = place / "program", place / "log", place / "disk"
    program.write_text(LOGGED.format(log=log))
    program.chmod(0o755)
    disk.touch()
    if cache:
        features.provide(cache, program, place)
    with pytest.raises(ApplianceError, match="did not start"):
        guest.start(appliance, Launcher("", 256, ("force_tcg",)), program, place, {disk: 0})
    return log.read_text().splitlines()


def test_only_the_appliance_is_started(appliance: Appliance, cache: Path, tmp_path: Path) -> None:
    (line,) = asked(appliance, tmp_path, cache)
    assert "-drive" in line


def test_without_answers_qemu_is_asked(appliance: Appliance, tmp_path: Path) -> None:
    assert len(asked(appliance, tmp_path, None)) > 1


@pytest.mark.parametrize("damage", ["generation", "missing", "no stat", "empty"])
def test_answers_that_do_not_fit_are_not_used(
    appliance: Appliance, cache: Path, tmp_path: Path, damage: str
) -> None:
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for file in cache.iterdir():
        (damaged / file.name).write_bytes(file.read_bytes())
    if damage == "generation":
        (damaged / "stat").write_text("1 2 3 /usr/bin/qemu\n")
    elif damage == "missing":
        (damaged / "devices").unlink()
    elif damage == "no stat":
        (damaged / "stat").unlink()
    else:
        (damaged / "stat").write_text("")
    assert len(asked(appliance, tmp_path, damaged)) > 1


def test_everybody_may_read_the_answers(cache: Path) -> None:
    assert cache.stat().st_mode & 0o777 == 0o755
    assert {file.stat().st_mode & 0o777 for file in cache.iterdir()} == {0o644}
    assert list(cache.parent.iterdir()) == [cache]


def test_a_qemu_that_cannot_be_asked(appliance: Appliance, tmp_path: Path) -> None:
    broken = Launcher("#!/bin/sh\nexit 3\n", 256, ("force_tcg",))
    with pytest.raises(ApplianceError, match="learnt nothing about QEMU"):
        features.record(appliance, broken, tmp_path / "features")
