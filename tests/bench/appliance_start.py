"""How long the appliance takes to be ready: resumed from its saved state, and booted.

Both through the path that deployments take: our launcher's program, run by libguestfs, in the
confined child. A state that QEMU refuses is tried as well: what that costs comes before the boot
that takes its place. "Ready" is the phase ``appliance`` of a deployment's report: from an import of
libguestfs to the end of its launch(). "Disk usable" goes on until a block of the disk was read,
and counts from before the fork of the child.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from snf_core.errors import ApplianceError
from tests.bench.confined import timed
from tests.bench.figures import header, line, ratio
from tests.bench.place import fresh, place

if TYPE_CHECKING:
    from pathlib import Path

    from snf_core.appliance import Launcher
    from snf_core.image.guest import Guest
    from snf_core.report import Reporter
    from tests.bench.place import Place

MARK = b"the first block".ljust(512, b".")
SPOILT_BYTES = 64 << 20
"""Where a spoilt state ends, too early."""


@dataclass
class Ready:
    """Seconds of each start."""

    launch: list[float] = field(default_factory=list)
    disk: list[float] = field(default_factory=list)


@dataclass
class Figures:
    """Both ways; ``unsaved`` says why there is but one."""

    emulated: bool
    unsaved: str
    resumed: Ready = field(default_factory=Ready)
    normal: Ready = field(default_factory=Ready)
    refused: list[float] = field(default_factory=list)
    """Seconds until a state that ends too early was given up."""

    def __str__(self) -> str:
        kind = "emulated" if self.emulated else "with KVM"
        lines = [header(f"appliance, {kind}: time until it is ready, and until its disk is usable")]
        for name, ready in (("resumed", self.resumed), ("normal launch", self.normal)):
            missing = "" if ready.launch else f"no saved state: {self.unsaved}"
            lines += [
                line(f"{name}: launch()", ready.launch, missing),
                line(f"{name}: disk usable", ready.disk, missing),
            ]
        if self.resumed.launch:
            lines.append(line("a state that QEMU refuses: given up", self.refused))
            launch = ratio(self.normal.launch, self.resumed.launch)
            disk = ratio(self.normal.disk, self.resumed.disk)
            lines.append(f"  resumed is ready {launch:.1f} times faster, disk usable {disk:.1f}")
        return "\n".join(lines)


def measure(runs: int = 7) -> Figures:
    """Start it ``runs`` times resumed and, in turn with that, half as often normally. Root."""
    with place() as here:
        launcher = here.launcher
        figures = Figures(here.emulated, launcher.warning or "this node's launcher has none")
        disk = fresh(here.disks / "disk0")
        with disk.open("r+b") as file:
            file.write(MARK)
        for run in range(runs):
            if launcher.fallback:
                _start(here, launcher, disk, figures.resumed)
                figures.refused.append(_refused(here, launcher, disk))
            if run % 2 == 0:
                _start(here, launcher.fallback or launcher, disk, figures.normal)
    return figures


def _start(here: Place, launcher: Launcher, disk: Path, ready: Ready) -> None:
    timeline = timed(here, launcher, disk, _read)
    ready.launch.append(timeline.seconds("appliance")[0])
    ready.disk.append(timeline.until("read"))


def _refused(here: Place, launcher: Launcher, disk: Path) -> float:
    [state] = here.appliance.directory.glob("*/*/state")
    spoilt = here.node.directory / "spoilt"
    with state.open("rb") as file:
        spoilt.write_bytes(file.read(SPOILT_BYTES))
    spoilt.chmod(0o644)
    program = launcher.program.replace(str(state), str(spoilt))
    began = time.monotonic()
    try:
        timed(here, replace(launcher, program=program), disk, _read)
    except ApplianceError:
        return time.monotonic() - began
    raise RuntimeError("a spoilt state was resumed")


def _read(guest: Guest, reporter: Reporter) -> None:
    with reporter.phase("read"):
        found = guest._handle.pread_device("/dev/sda", len(MARK), 0)
    if found != MARK:
        raise RuntimeError("the appliance read something else from the disk")
