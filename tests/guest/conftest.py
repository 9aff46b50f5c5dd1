"""One appliance for all tests here: started once, with two blank disks that tests lay out anew."""

from __future__ import annotations

import contextlib
import fcntl
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from snf_core import appliance as appliances
from snf_core import config
from snf_core.appliance import Appliance, Launcher
from snf_core.errors import ApplianceError
from snf_core.image import guest as guest_module
from tests.images.debian import cache_directory

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from snf_core.image.guest import Guest

DISK_BYTES = 2 << 30
DISKS = ("/dev/sda", "/dev/sdb")
HYPERVISOR = '#!/bin/sh\nexec qemu-system-x86_64 "$@"\n'

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
def appliance(tmp_path_factory: pytest.TempPathFactory) -> Appliance:
    """A fixed appliance made of this machine's packages, kept in the tests' cache."""
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    directory = tmp_path_factory.mktemp("config")
    (directory / "snf.conf").write_text(
        f"[directories]\nstate = {cache}\nruntime = {directory}\n[appliance]\nuser = root\n"
    )
    configuration = config.load(directory / "snf.conf")
    with (cache / "appliance.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with contextlib.suppress(ApplianceError):
            found = appliances.locate(configuration)
            if appliances.is_current(found):
                return found
        return appliances.build(configuration)


@pytest.fixture(scope="session")
def launcher() -> Launcher:
    """QEMU as it is, emulating: what a launcher adds is tested with the plugin that has it."""
    return Launcher(HYPERVISOR, memory=512, settings=("force_tcg",))


@pytest.fixture(scope="session")
def laboratory(
    appliance: Appliance, launcher: Launcher, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Laboratory]:
    """The appliance that tests share. What a test needs of it, it makes itself."""
    directory = tmp_path_factory.mktemp("appliance")
    with started(appliance, launcher, directory, len(DISKS)) as laboratory:
        yield laboratory


@contextlib.contextmanager
def started(
    appliance: Appliance, launcher: Launcher, directory: Path, count: int
) -> Iterator[Laboratory]:
    """A running appliance with blank, sparse disks of DISK_BYTES each."""
    program = directory / "hypervisor"
    program.write_text(launcher.program)
    program.chmod(0o755)
    disks = {}
    for device in DISKS[:count]:
        disks[device] = directory / f"{os.path.basename(device)}.raw"
        with disks[device].open("wb") as file:
            file.truncate(DISK_BYTES)
    guest = guest_module.start(appliance, launcher, program, directory, list(disks.values()))
    handle = guest._handle
    try:
        yield Laboratory(guest, handle, disks)
    finally:
        handle.close()
