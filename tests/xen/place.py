"""dom0 as a node with a prepared appliance, and that appliance in a helper domain."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from snf_core import appliance as appliances
from snf_core import config, extension
from snf_core.ganeti import definition, glue, installation
from snf_core.image import features, identity, worker
from snf_core.image.confinement import Confinement
from snf_xen import domain, initrd
from snf_xen.store import Connection
from tests import node

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from snf_core.appliance import Appliance, Launcher
    from snf_core.config import Config
    from snf_core.contract import Hypervisor
    from snf_core.image.guest import Guest
    from snf_core.report import Event, Reporter

PLACE = Path("/var/tmp/appliance")
RUNTIME = Path("/run/snf-test")
LOCKS = RUNTIME / "xen"
STOCK = Path("/srv/appliance")
MIB = 1 << 20
PATIENCE = 600
"""Seconds after which a test gives up: no figure of anything, only no endless wait."""


@dataclass(frozen=True)
class Place:
    """A node with a prepared appliance."""

    node: node.Node
    config: Config
    appliance: Appliance
    hypervisor: Hypervisor

    @property
    def launcher(self) -> Launcher:
        """The helper domain, and nothing to fall back on."""
        return self.hypervisor.launcher(self.appliance)


@contextlib.contextmanager
def furnished(images: Path) -> Iterator[Place]:
    """The node, while the block runs; it finds its images in ``images``."""
    for directory in (PLACE, RUNTIME):
        directory.mkdir(mode=0o711)
    (PLACE / "state").mkdir()
    (PLACE / "state/appliance").symlink_to(STOCK)
    (PLACE / "disks").mkdir()
    file = PLACE / "snf.conf"
    file.write_text(
        f"[directories]\nstate = {PLACE}/state\nruntime = {RUNTIME}\n"
        f"[image.source.local]\ndirectory = {images}\n"
        "[hypervisor.kvm]\nresume = false\n"
    )
    loaded = config.load(file)
    identity.reserve(loaded.appliance.user)
    files = definition.files(PLACE / "os" / definition.NAME, (), glue.command(file))
    installation.install(installation.Installation(tuple(files)))
    made = node.Node(PLACE, file, PLACE / "os" / definition.NAME, RUNTIME)
    found = appliances.locate(loaded)
    started = time.monotonic()
    prepared = initrd.build(found)
    print(f"\nprepared in {time.monotonic() - started:.1f} s")
    hypervisor = extension.make(extension.HYPERVISOR, "xen-pvm", loaded)
    features.record(found, hypervisor.launcher(found), prepared.features)
    yield Place(made, loaded, found, hypervisor)
    shutil.rmtree(prepared.directory)
    shutil.rmtree(PLACE)
    shutil.rmtree(RUNTIME)


def remains() -> list[str]:
    """Domains, loop devices, locks, processes and keys in xenstore that should have gone."""
    left = [name for name in domain.listing() if name.startswith(domain.PREFIX)]
    left += [str(path) for path in Path("/sys/block").glob("loop*/loop/backing_file")]
    left += [str(path) for path in LOCKS.glob(f"{domain.PREFIX}*")]
    with Connection() as connection:
        for kind in ("vbd", "console"):
            left += connection.names(f"/local/domain/0/backend/{kind}")
    left += [str(path) for path in Path("/var/lib/xen").glob("userdata-[cd].[1-9]*")]
    return left


def disk(name: str, mebibytes: int = 64) -> Path:
    """A new disk of zeros."""
    path = PLACE / "disks" / name
    path.write_bytes(b"")
    os.truncate(path, mebibytes * MIB)
    return path


class Kept:
    """A sink that remembers."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def emit(self, event: Event) -> None:
        """Keep it."""
        self.events.append(event)

    def close(self) -> None:
        """Nothing to end."""

    def said(self) -> list[str]:
        """All messages, in order."""
        return [line for event in self.events for line in event.get("messages", ())]


@contextlib.contextmanager
def started(
    place: Place,
    launcher: Launcher,
    disks: Sequence[int],
    job: Callable[[Guest, Reporter], None] = lambda _guest, _to: None,
    *,
    kept: Sequence[int] = (),
) -> Iterator[worker.Worker]:
    """An appliance as deployments start it: everything of it unprivileged but its attendant.

    ``kept`` are descriptors that ``job`` uses.
    """
    identities = identity.pool(place.config.appliance.user)
    with identity.taken(identities, (), RUNTIME / "identities") as own:
        confined = Confinement(own, RUNTIME / "deployment", PATIENCE)
        with worker.started(place.appliance, launcher, confined, disks, job, kept=kept) as made:
            yield made


@contextlib.contextmanager
def opened(*paths: Path) -> Iterator[list[int]]:
    """Descriptors of disks, open as a deployment has them."""
    descriptors = [os.open(path, os.O_RDWR | os.O_CLOEXEC) for path in paths]
    try:
        yield descriptors
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
