"""The appliance that all tests share, and guests opened in it without a deployment."""

from __future__ import annotations

import fcntl
import os
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from snf_core import appliance as appliances
from snf_core import extension
from snf_core.errors import ApplianceError
from snf_core.image import disk_server, features
from snf_core.image import guest as guest_module
from tests.images.debian import cache_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from snf_core.appliance import Appliance, Launcher
    from snf_core.config import Config
    from snf_core.image.guest import Guest


def provide(loaded: Config, progress: Callable[[str], None] = lambda line: None) -> None:
    """See to it that the tests' cache holds an appliance of today's packages and plugins."""
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "appliance.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _is_usable(loaded):
            progress("building the fixed appliance")
            appliances.build(loaded)


def _is_usable(loaded: Config) -> bool:
    """Whether there is one of today's packages, with a state that today's plugin resumes."""
    try:
        found = appliances.locate(loaded)
        return appliances.is_current(found) and not kvm_launcher(loaded, found).warning
    except ApplianceError:
        return False


def kvm_launcher(loaded: Config, found: Appliance) -> Launcher:
    """How instances on KVM get their guests opened."""
    return extension.make(extension.HYPERVISOR, "kvm", loaded).launcher(found)


@contextmanager
def opened(
    found: Appliance, launcher: Launcher, directory: Path, disks: Sequence[Path]
) -> Iterator[Guest]:
    """A guest with these disks, in an appliance started as deployments do, but not confined.

    However long it takes to be ready. ``directory`` is for what belongs to it.
    """
    program, address = directory / "program", directory / "disks"
    program.write_text(launcher.program)
    program.chmod(0o755)
    if launcher.feature_cache:
        features.provide(launcher.feature_cache, program, directory)
    placeholders = [directory / f"placeholder{index}" for index in range(len(disks))]
    for placeholder in placeholders:
        placeholder.touch()
    os.environ["SNF_DISKS"] = str(address)
    try:
        with ExitStack() as stack:
            descriptors = [stack.enter_context(disk.open("r+b")).fileno() for disk in disks]
            served = dict(zip(map(str, placeholders), descriptors, strict=True))
            stack.enter_context(disk_server.started(str(address), served, patience=0))
            sizes = dict(zip(placeholders, map(disk_server.size, descriptors), strict=True))
            guest = guest_module.start(found, launcher, program, directory, sizes)
    finally:
        del os.environ["SNF_DISKS"]
    try:
        yield guest
    finally:
        guest._handle.close()
