"""Growth of NTFS before Windows starts, on a disk in memory."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

import pytest

from snf_core.contract import Stage
from snf_core.errors import GuestError
from snf_core.image.customization import Customization
from snf_core.image.layout import Partition, Table
from snf_core.image.ntfs import Volume
from snf_core.image.properties import Properties
from snf_os_windows import cloudbase
from snf_os_windows.filesystem import FilesystemResizeAfterUmount
from tests.fakes.guest import FakeGuest, filesystem

if TYPE_CHECKING:
    from snf_core.image.guest import Guest

MIB = 1 << 20
OFFLINE = {"OFFLINE_NTFSRESIZE": "yes"}
NO_CHECK = {**OFFLINE, "OFFLINE_NTFSRESIZE_NOCHECK": "true"}


def windows(kind: str = "ntfs") -> FakeGuest:
    """A disk that has grown: System Reserved, C: with a volume of 100 MiB on 400, recovery."""
    guest = FakeGuest(
        {
            "/dev/sda1": filesystem({}, "ntfs"),
            "/dev/sda2": filesystem({}, kind),
            "/dev/sda3": filesystem({}, "ntfs"),
        }
    )
    guest.disk = Table(
        "msdos",
        512 * MIB,
        (
            Partition(1, MIB, 51 * MIB - 1, "07"),
            Partition(2, 51 * MIB, 451 * MIB - 1, "07"),
            Partition(3, 451 * MIB, 511 * MIB - 1, "27"),
        ),
    )
    guest.volume = Volume(100 * MIB, 4096, (3, 1), False, 2048)
    return guest


def run(
    guest: FakeGuest, properties: dict[str, str] | None = None, family: str = "windows"
) -> list[str]:
    """The warnings."""
    request = Customization(
        "web1", properties=Properties(properties), facts={"family": family, "root": "/dev/sda2"}
    )
    return list(FilesystemResizeAfterUmount(None).run(cast("Guest", guest), request))


@pytest.mark.parametrize(("family", "properties"), [("windows", OFFLINE), ("windows-legacy", {})])
def test_it_grows_what_grew_and_says_that_it_is_checked(
    family: str, properties: dict[str, str]
) -> None:
    guest = windows()
    [warning] = run(guest, properties, family)
    assert guest.calls == [("grow_ntfs", "/dev/sda2")]
    assert "Windows checks the file system on partition 2" in warning
    guest.calls.clear()
    assert run(guest, properties, family) == []
    assert guest.calls == [], "nothing is left to be done"


@pytest.mark.parametrize("family", ["windows", "windows-legacy"])
def test_without_a_check_that_is_said_too(family: str) -> None:
    guest = windows()
    [warning] = run(guest, NO_CHECK, family)
    assert guest.calls == [("grow_ntfs", "/dev/sda2"), ("mark_ntfs", "/dev/sda2", "dirty=False")]
    assert "OFFLINE_NTFSRESIZE_NOCHECK" in warning
    assert not guest.volume.dirty


@pytest.mark.parametrize(
    "properties", [{}, {"OFFLINE_NTFSRESIZE": "no"}, {"OFFLINE_NTFSRESIZE_NOCHECK": "yes"}]
)
def test_windows_grows_it_itself_unless_asked(properties: dict[str, str]) -> None:
    guest = windows()
    assert run(guest, properties) == []
    assert guest.calls == []


@pytest.mark.parametrize("service", ["", cloudbase.CONFIG_DRIVE])
def test_cloudbase_init_would_not_grow_it(service: str) -> None:
    """Its decision was made while the guest was mounted, which it is no more."""
    guest = windows()
    cloudbase._decided[cast("Guest", guest)] = cloudbase.Decision(cloudbase.Agent(), service)
    run(guest)
    assert guest.calls == ([("grow_ntfs", "/dev/sda2")] if service else [])


@pytest.mark.parametrize("kind", ["vfat", "", "BitLocker"])
def test_what_is_not_ntfs_is_left_alone(kind: str) -> None:
    guest = windows(kind)
    assert run(guest, OFFLINE) == []
    assert guest.calls == []


@pytest.mark.parametrize("properties", [OFFLINE, NO_CHECK])
def test_a_volume_to_be_checked_is_not_touched(properties: dict[str, str]) -> None:
    guest = windows()
    guest.volume = replace(guest.volume, dirty=True)
    with pytest.raises(GuestError, match="partition 2 is to be checked by Windows") as caught:
        run(guest, properties)
    assert guest.calls == []
    assert "start the template, which checks" in caught.value.remedy


def test_a_volume_that_did_not_grow_is_an_error() -> None:
    class Stuck(FakeGuest):
        def grow_ntfs(self, device: str) -> None:
            self.calls.append(("grow_ntfs", device))

    guest = Stuck(windows().filesystems)
    guest.disk, guest.volume = windows().disk, windows().volume
    with pytest.raises(GuestError, match="has 104857600 bytes after it was grown to 419430400"):
        run(guest, NO_CHECK)
    assert guest.calls == [("grow_ntfs", "/dev/sda2")]


def test_its_place_and_exclusion() -> None:
    assert FilesystemResizeAfterUmount.stage is Stage.AFTER_UNMOUNT
    assert FilesystemResizeAfterUmount.resizes
    assert FilesystemResizeAfterUmount.excludable
    assert set(NO_CHECK) == set(FilesystemResizeAfterUmount.properties)
