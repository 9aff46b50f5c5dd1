"""FilesystemResizeMounted: growth that the first boot does."""

from __future__ import annotations

import pytest

from snf_core.image.layout import Partition, Table
from snf_core.image.properties import Properties
from snf_os_windows import first_boot, inspection, paths
from snf_os_windows.filesystem import FilesystemResizeMounted
from tests.fakes.guest import FakeGuest
from tests.fakes.task import run
from tests.images.windows import VERSIONS, Image
from tests.scripts.powershell import check

MIB = 1 << 20


def prepared(version: str, *, cloudbase: bool = False) -> FakeGuest:
    guest = FakeGuest.with_windows(Image(version, cloudbase=cloudbase))
    first_boot.install(guest, inspection.facts(guest))
    return guest


def facts(version: str, root: str = "/dev/sda1") -> dict[str, str]:
    return {"family": VERSIONS[version].family, "root": root}


def fragments(guest: FakeGuest) -> list[str]:
    return [name for name in guest.list(paths.SCRIPTS) if name[0].isdigit()]


@pytest.mark.parametrize("version", [name for name, one in VERSIONS.items() if not one.legacy])
def test_the_volume_of_windows_by_its_letter(version: str) -> None:
    """Not by a number: those of volumes are not those of partitions."""
    guest = prepared(version)
    assert run(FilesystemResizeMounted, guest, facts=facts(version)) == []
    kind = "ps1" if VERSIONS[version].powershell else "cmd"
    assert fragments(guest) == [f"10-extend.{kind}"]
    text = guest.read(f"{paths.SCRIPTS}/10-extend.{kind}") or ""
    assert "extend filesystem" in text
    assert "select disk" not in text
    if kind == "ps1":
        check(text)
        assert "select volume $($env:SystemDrive[0])" in text
    else:
        assert "select volume %SystemDrive:~0,1%" in text


@pytest.mark.parametrize("version", ["xp", "2003"])
def test_before_vista_it_is_done_offline(version: str) -> None:
    guest = prepared(version)
    assert run(FilesystemResizeMounted, guest, facts=facts(version)) == []
    assert fragments(guest) == []


def test_not_both() -> None:
    guest = prepared("2022")
    offline = Properties({"OFFLINE_NTFSRESIZE": "yes"})
    assert run(FilesystemResizeMounted, guest, facts=facts("2022"), properties=offline) == []
    assert fragments(guest) == []


def test_what_the_first_boot_does_not_grow_is_said() -> None:
    guest = prepared("2022")
    guest.disk = Table(
        "gpt", 900 * MIB, (*guest.disk.partitions, Partition(2, 512 * MIB, 800 * MIB - 1, "07"))
    )
    [warning] = run(FilesystemResizeMounted, guest, facts=facts("2022"))
    assert "partition 2, which is not that of Windows" in warning
    assert fragments(guest) == ["10-extend.ps1"]


def test_a_seed_leaves_nothing_to_our_first_boot() -> None:
    guest = prepared("2022", cloudbase=True)
    assert run(FilesystemResizeMounted, guest, facts=facts("2022")) == []
    assert fragments(guest) == []
