"""What it takes to know a guest: our detection, and libguestfs's full inspection.

Ours is what the phase ``detect`` of a deployment does, with as much told beforehand as the first
lines say. Each figure is of an appliance that was just started for it, as in a deployment: nothing
of the disk has been read there yet.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from snf_core.image import deploy, tasks
from snf_core.image.customization import Customization
from snf_core.image.properties import Properties
from tests.bench.confined import timed
from tests.bench.figures import header, line, ratio
from tests.bench.place import fresh, place, plain_copy

if TYPE_CHECKING:
    from collections.abc import Callable

    from snf_core.config import Config
    from snf_core.image.guest import Guest
    from snf_core.report import Reporter

    Job = Callable[[Guest, Reporter], None]

GIVEN = {
    "OSFAMILY and ROOT_PARTITION given": ("linux", True),
    "OSFAMILY given": ("linux", False),
    "nothing given": ("", False),
}
INSPECTION = "libguestfs: inspect_os"


@dataclass
class Figures:
    """Seconds of each run, by what was given."""

    title: str
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def __str__(self) -> str:
        full = self.seconds[INSPECTION]
        rows = [
            line(name, values, f"{ratio(full, values):.1f} times faster than inspect_os")
            for name, values in self.seconds.items()
            if values is not full
        ]
        return "\n".join([header(f"detection on the {self.title}"), *rows, line(INSPECTION, full)])


def measure(runs: int = 5) -> Figures:
    """Detect in each way, ``runs`` times in turn. Root."""
    with place() as here:
        figures = Figures(here.title)
        disk = fresh(here.disks / "disk0")
        plain_copy(here.image.path, disk)
        root = f"/dev/sda{here.image.root_partition}"
        jobs = {
            name: _detection(here.config, family, root if known else "")
            for name, (family, known) in GIVEN.items()
        }
        figures.seconds = {name: [] for name in [*jobs, INSPECTION]}
        for _ in range(runs):
            for name, job in [*jobs.items(), (INSPECTION, _inspection)]:
                timeline = timed(here, here.launcher, disk, job)
                figures.seconds[name] += timeline.seconds("detect")
    return figures


def _detection(config: Config, family: str, root: str) -> Job:
    """A deployment's own job, with no task to do."""
    families = tasks.catalogue(config, family).families
    request = Customization(
        hostname="web1.example.org",
        properties=Properties({}),
        facts={"family": family, "root": root},
    )
    return deploy._job(deploy._Prepared(request, tasks.Catalogue(families), frozenset()))


def _inspection(guest: Guest, reporter: Reporter) -> None:
    with reporter.phase("detect"):
        roots = guest._handle.inspect_os()
    if len(roots) != 1:
        raise RuntimeError(f"libguestfs found {roots}")
