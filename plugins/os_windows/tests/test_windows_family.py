"""Which family claims which guest, and what MountImage accepts: without an appliance."""

from __future__ import annotations

from dataclasses import replace

import pytest

from snf_core import extension
from snf_core.config import Config
from snf_core.errors import GuestError
from snf_core.image.customization import Customization
from snf_core.image.layout import Partition, Table
from snf_core.image.properties import Properties
from snf_core.image.registry import Value
from snf_os_windows import paths
from snf_os_windows.family import Windows, WindowsLegacy
from snf_os_windows.mount import MountImage
from tests.fakes.guest import FakeFilesystem, FakeGuest, filesystem
from tests.images.windows import Image

MIB = 1 << 20
CURRENT_VERSION = "Microsoft\\Windows NT\\CurrentVersion"


def disk(*kinds: str, types: str = "07") -> FakeGuest:
    """A disk with such file systems, all on partitions of one type."""
    systems: list[FakeFilesystem] = [filesystem({}, kind) for kind in kinds]
    guest = FakeGuest({f"/dev/sda{i}": system for i, system in enumerate(systems, 1)})
    guest.disk = Table(
        "msdos",
        1024 * MIB,
        tuple(Partition(i, i * MIB, (i + 1) * MIB - 1, types) for i in range(1, len(kinds) + 1)),
    )
    return guest


def installed(version: str = "2022") -> FakeGuest:
    """A disk with a Windows on it, not mounted."""
    guest = FakeGuest.with_windows(Image(version))
    guest.unmount_all()
    return guest


def scores(guest: FakeGuest, root: str | None = None) -> tuple[int, int]:
    found = (Windows(None).detect(guest, root), WindowsLegacy(None).detect(guest, root))
    assert guest.mounts == {}
    return found


def mount(
    guest: FakeGuest, family: str = "windows", root: str = "/dev/sda1", *, update: bool = False
) -> list[str]:
    facts = {"family": family, "root": root}
    request = Customization("vm1", properties=Properties(), update=update, facts=facts)
    return list(MountImage(None).run(guest, request))


def test_the_families_are_installed() -> None:
    for name, family in (("windows", Windows), ("windows-legacy", WindowsLegacy)):
        made = extension.make(extension.GUEST, name, Config([]))
        assert type(made) is family
        assert made.plaintext_password
        assert made.grows == {"ntfs"}
        task = extension.make(extension.GUEST_TASK, f"{name}.MountImage", Config([]))
        assert not task.excludable


@pytest.mark.parametrize(
    ("version", "expected"), [("2022", (2, 0)), ("vista", (2, 0)), ("xp", (0, 2)), ("2003", (0, 2))]
)
def test_the_registry_tells_the_family(version: str, expected: tuple[int, int]) -> None:
    guest = installed(version)
    assert scores(guest) == expected
    assert scores(guest, "/dev/sda1") == expected
    assert Windows(None).root(guest) == WindowsLegacy(None).root(guest) == "/dev/sda1"


@pytest.mark.parametrize("kinds", [("ntfs",), ("ext4", "ntfs"), ("vfat", ""), ()])
def test_data_is_no_windows(kinds: tuple[str, ...]) -> None:
    guest = disk(*kinds)
    assert scores(guest) == (0, 0)
    with pytest.raises(GuestError, match="no Windows was found on") as caught:
        Windows(None).root(guest)
    assert "ROOT_PARTITION" in caught.value.remedy


@pytest.mark.parametrize("kind", ["27", "de94bba4-06d1-4d40-a16a-bfd50179d6ac"])
def test_recovery_environments_are_not_looked_into(kind: str) -> None:
    guest = installed()
    guest.disk = replace(
        guest.disk, partitions=tuple(replace(p, type=kind) for p in guest.disk.partitions)
    )
    assert scores(guest) == (0, 0)


def test_what_cannot_be_looked_into_is_claimed_by_one_family() -> None:
    """Or it would be ambiguous, and the reason never be said."""
    guest = disk("BitLocker")
    assert scores(guest) == (1, 0)
    with pytest.raises(GuestError, match="is encrypted with BitLocker"):
        Windows(None).root(guest)
    guest = disk("ntfs")
    guest.state = "damaged"
    assert scores(guest) == (1, 0)
    with pytest.raises(GuestError, match="is damaged"):
        Windows(None).root(guest)


def test_a_broken_hive_is_named() -> None:
    guest = installed()
    del guest.hives[paths.SOFTWARE_HIVE]
    assert scores(guest) == (1, 0)
    with pytest.raises(GuestError, match="SOFTWARE in the guest does not exist"):
        Windows(None).root(guest)


class TestMountImage:
    def test_it_is_mounted_for_writing(self) -> None:
        guest = installed()
        assert mount(guest) == []
        assert not guest.read_only
        assert guest.filesystems["/dev/sda1"].options == "norecover"
        assert guest.is_file("/WINDOWS/system32/CONFIG/sam")

    def test_a_journal_that_was_not_closed(self) -> None:
        guest = installed()
        guest.state = "unclean"
        [warning] = mount(guest)
        assert "its journal is dropped" in warning
        assert guest.filesystems["/dev/sda1"].options == "recover"
        assert guest.volume.dirty, "Windows is to check it"

    def test_and_of_an_instance_it_is_not_dropped(self) -> None:
        guest = installed()
        guest.state = "unclean"
        with pytest.raises(GuestError, match="was not unmounted by Windows") as caught:
            mount(guest, update=True)
        assert "shut it down from inside" in caught.value.remedy
        assert not guest.mounts

    def test_a_check_that_is_due(self) -> None:
        guest = installed()
        guest.volume = replace(guest.volume, dirty=True)
        [warning] = mount(guest)
        assert "due for a check" in warning

    @pytest.mark.parametrize(
        ("state", "remedy"), [("hibernated", "powercfg /h off"), ("damaged", "chkdsk C: /f")]
    )
    def test_what_must_not_be_written_to(self, state: str, remedy: str) -> None:
        guest = installed()
        guest.state = state
        with pytest.raises(GuestError, match=state) as caught:
            mount(guest)
        assert remedy in caught.value.remedy
        assert guest.mounts == {}

    def test_other_file_systems(self) -> None:
        with pytest.raises(GuestError, match="/dev/sda1 is encrypted"):
            mount(disk("BitLocker"))
        with pytest.raises(GuestError, match="/dev/sda1 holds ext4, and Windows lies on NTFS"):
            mount(disk("ext4"))
        with pytest.raises(GuestError, match="/dev/sda1 holds no file system"):
            mount(disk(""))
        with pytest.raises(GuestError, match="/dev/sda1 holds no Windows"):
            mount(disk("ntfs"))

    @pytest.mark.parametrize(
        ("version", "family", "right"),
        [("2022", "windows-legacy", "windows"), ("xp", "windows", "windows-legacy")],
    )
    def test_the_wrong_family(self, version: str, family: str, right: str) -> None:
        with pytest.raises(GuestError, match=f"is not of family {family} ") as caught:
            mount(installed(version), family)
        assert caught.value.remedy == f"set the property OSFAMILY to {right}, or leave it out"

    def test_a_name_without_end_does_not_fill_the_message(self) -> None:
        guest = installed()
        software = guest.hives[paths.SOFTWARE_HIVE][CURRENT_VERSION]
        software["ProductName"] = Value.string("x" * 10_000)
        with pytest.raises(GuestError) as caught:
            mount(guest, "windows-legacy")
        assert len(caught.value.message) < 300
