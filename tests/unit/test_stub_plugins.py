"""Windows says clearly that it is not served yet, rather than do half of the work."""

from __future__ import annotations

import pytest

from snf_core import extension
from snf_core.config import Config
from snf_core.errors import UnsupportedError
from snf_core.image.customization import Customization
from snf_core.image.guest import Guest
from snf_core.image.layout import Partition
from snf_core.image.properties import Properties


class Disk(Guest):
    """A disk whose partitions hold the given file systems."""

    def __init__(self, *filesystems: str) -> None:
        self._filesystems = filesystems

    def partitions(self, device: str = "/dev/sda") -> tuple[Partition, ...]:
        return tuple(
            Partition(number, number << 20, (number << 20) + 1, "07")
            for number in range(1, len(self._filesystems) + 1)
        )

    def filesystem(self, device: str) -> str:
        return self._filesystems[int(device.removeprefix("/dev/sda")) - 1]


def test_windows_is_recognised() -> None:
    windows = extension.make(extension.GUEST, "windows", Config([]))
    assert windows.detect(Disk("ntfs", "ntfs"), None) == 1
    assert windows.detect(Disk("vfat", "ntfs"), None) == 1
    assert windows.detect(Disk("vfat", "ext4"), None) == 0
    assert windows.detect(Disk("ntfs", "ext4"), "/dev/sda2") == 0
    assert windows.detect(Disk("ext4", "ntfs"), "/dev/sda2") == 1


def test_old_windows_does_not_claim_what_is_windows() -> None:
    legacy = extension.make(extension.GUEST, "windows-legacy", Config([]))
    assert legacy.detect(Disk("ntfs"), None) == 0


@pytest.mark.parametrize("name", ["windows", "windows-legacy"])
def test_windows_is_refused(name: str) -> None:
    family = extension.make(extension.GUEST, name, Config([]))
    with pytest.raises(UnsupportedError, match=f"family {name}: Windows is not served") as caught:
        family.root(Disk("ntfs"))
    assert "EXCLUDE_ALL_TASKS" in caught.value.remedy


@pytest.mark.parametrize("name", ["windows", "windows-legacy"])
def test_windows_is_refused_where_its_root_is_given(name: str) -> None:
    mount = extension.make(extension.GUEST_TASK, f"{name}.MountImage", Config([]))
    request = Customization("vm1", properties=Properties(), facts={"family": name})
    with pytest.raises(UnsupportedError, match=f"family {name}: Windows is not served"):
        mount.run(Disk("ntfs"), request)
