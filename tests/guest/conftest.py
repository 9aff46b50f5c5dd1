"""Two appliances for all tests here, as deployments start them: one booted, one resumed from its
saved state. Each is started once, with two blank disks that tests lay out anew.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from snf_core import config
from snf_core.appliance import held
from tests import appliances
from tests.images.debian import cache_directory
from tests.images.windows import Built, build

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from snf_core.appliance import Appliance, Launcher
    from snf_core.config import Config
    from snf_core.image.guest import Guest
    from tests.images.windows import Image

DISK_BYTES = 2 << 30
DISKS = ("/dev/sda", "/dev/sdb")

LINUX_TYPE = "0fc63daf-8483-4772-8e79-3d69d8477de4"


@dataclass(frozen=True)
class Laboratory:
    """The guest, and the guestfs handle under it, for what only tests do: making file systems."""

    guest: Guest
    handle: Any
    disks: Mapping[str, Path]
    """Device in the appliance -> the file behind it."""

    def blank(self, *devices: str) -> None:
        """Empty disks, all of them if none is named."""
        self.guest.unmount_all()
        for device in devices or DISKS:
            # From outside: zeroing from inside would take long, and nothing is mounted.
            os.truncate(self.disks[device], 0)
            os.truncate(self.disks[device], DISK_BYTES)
            self.guest.reread(device)
        self.guest.unmount_all()  # before which the tables are read: ``handle`` would not see to it

    def partition(self, device: str, label: str, sizes: Sequence[int]) -> list[str]:
        """A blank disk with partitions of so many MiB; returns their devices."""
        self.blank(device)
        self.handle.part_init(device, label)
        start = 2048
        for size in sizes:
            self.handle.part_add(device, "p", start, start + size * 2048 - 1)
            start += size * 2048
        return [f"{device}{number}" for number in range(1, len(sizes) + 1)]

    def write_tree(self, device: str, files: Mapping[str, str]) -> None:
        """Files, and the directories they lie in, in a file system that is not mounted."""
        self.handle.mount(device, "/")
        for path, content in files.items():
            self.handle.mkdir_p(os.path.dirname(path))
            self.handle.write(path, content.encode(errors="surrogateescape"))
        self.handle.umount_all()


@pytest.fixture(scope="session")
def configuration(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """That of a node which emulates, whatever it could do, with the tests' shared appliance."""
    directory = tmp_path_factory.mktemp("config")
    (directory / "snf.conf").write_text(
        f"[directories]\nstate = {cache_directory()}\nruntime = {directory}\n"
        "[hypervisor.kvm]\naccelerator = tcg\n"
    )
    return config.load(directory / "snf.conf")


@pytest.fixture(scope="session")
def appliance(configuration: Config) -> Iterator[Appliance]:
    """A fixed appliance made of this machine's packages, kept in the tests' cache."""
    appliances.provide(configuration)
    with held(configuration) as found:
        yield found


@pytest.fixture(scope="session", params=["booted", "resumed"])
def launcher(
    request: pytest.FixtureRequest, configuration: Config, appliance: Appliance
) -> Launcher:
    """How deployments start the appliance, and what they fall back on."""
    resuming = appliances.kvm_launcher(configuration, appliance)
    assert resuming.fallback, resuming.warning
    return resuming if request.param == "resumed" else resuming.fallback


@pytest.fixture(scope="session")
def laboratory(
    appliance: Appliance, launcher: Launcher, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Laboratory]:
    """The appliance that tests share. What a test needs of it, it makes itself."""
    directory = tmp_path_factory.mktemp("appliance")
    with started(appliance, launcher, directory, len(DISKS)) as laboratory:
        yield laboratory


@dataclass(frozen=True)
class Shelf:
    """Copies of disks on which an image of Windows was made, for who wants the same."""

    directory: Path
    images: dict[str, tuple[Path, Built]]
    """By what they are."""


@pytest.fixture(scope="session")
def shelf() -> Iterator[Shelf]:
    """For all tests; it is gone afterwards."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="snf-windows-") as directory:
        yield Shelf(Path(directory), {})


@pytest.fixture
def windows(laboratory: Laboratory, shelf: Shelf) -> Iterator[Callable[[Image], Built]]:
    """Puts an image of Windows on /dev/sda; nothing is mounted before or afterwards."""

    def provided(image: Image) -> Built:
        disk = laboratory.disks["/dev/sda"]
        laboratory.blank("/dev/sda")
        if repr(image) not in shelf.images:
            built = build(laboratory.handle, "/dev/sda", image)
            laboratory.handle.sync()
            copy = shelf.directory / f"{len(shelf.images)}.raw"
            _copy(disk, copy)
            shelf.images[repr(image)] = (copy, built)
        else:
            copy, built = shelf.images[repr(image)]
            _copy(copy, disk)
        laboratory.guest.reread("/dev/sda")
        laboratory.guest.unmount_all()  # before which the tables are read, for ``handle``
        return built

    yield provided
    laboratory.guest.unmount_all()


def _copy(source: Path, target: Path) -> None:
    """A sparse copy, into the file that is there if one is."""
    argv = ["cp", "--sparse=always", "--no-preserve=all", str(source), str(target)]
    subprocess.run(argv, check=True)


@contextlib.contextmanager
def started(
    appliance: Appliance, launcher: Launcher, directory: Path, count: int
) -> Iterator[Laboratory]:
    """A running appliance with blank, sparse disks of DISK_BYTES each."""
    disks = {device: directory / f"{os.path.basename(device)}.raw" for device in DISKS[:count]}
    for disk in disks.values():
        with disk.open("wb") as file:
            file.truncate(DISK_BYTES)
    with appliances.opened(appliance, launcher, directory, list(disks.values())) as guest:
        yield Laboratory(guest, guest._handle, disks)
