"""A whole deployment of the Debian image: beside a plain copy of it, and beside guestfs-tools.

All runs begin with an equally fresh sparse disk, in turn. Ours and the plain copy end with all of
it durable on the disk (fsync); the peers' do not. One run of each starts with nothing of the node
cached: neither the image nor the appliance, nor any program.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.bench import memory, peers
from tests.bench.figures import header, line, ratio
from tests.bench.place import DISK_BYTES, cold, fresh, place, plain_copy

if TYPE_CHECKING:
    from tests.bench.deployed import Deployed

PEER_RUNS = 3
MEMORY_RUNS = 3


@dataclass
class Figures:
    """Seconds of each run; memory in MiB."""

    title: str
    ours: list[float] = field(default_factory=list)
    as_is: list[float] = field(default_factory=list)
    """Ours, onto a disk of the image's size: nothing grows."""
    copied: list[float] = field(default_factory=list)
    cold_ours: list[float] = field(default_factory=list)
    cold_copied: list[float] = field(default_factory=list)
    peer_grown: list[float] = field(default_factory=list)
    peer_as_is: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    phases: list[dict[str, float]] = field(default_factory=list)
    tasks: list[dict[str, float]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return "\n".join(
            [
                header(f"deployment of the {self.title}, onto {DISK_BYTES >> 30} GiB"),
                line("ours, all tasks", self.ours),
                line("ours, as is: a disk of its size", self.as_is),
                line(
                    "qemu-img convert, fsync",
                    self.copied,
                    f"ours takes {ratio(self.ours, self.copied):.1f} times this",
                ),
                line("ours, cold caches", self.cold_ours),
                line(
                    "qemu-img convert, fsync, cold caches",
                    self.cold_copied,
                    f"ours takes {ratio(self.cold_ours, self.cold_copied):.1f} times this",
                ),
                line(
                    "virt-resize, virt-customize",
                    self.peer_grown,
                    f"{ratio(self.peer_grown, self.ours):.1f} times ours",
                ),
                line(
                    "qemu-img convert, virt-customize, as is",
                    self.peer_as_is,
                    f"{ratio(self.peer_as_is, self.as_is):.1f} times ours, as is",
                ),
                line("peak memory beside QEMU's (MiB)", self.memory),
                *[f"  warning: {text}" for text in dict.fromkeys(self.warnings)],
                "  ours by phase (the appliance starts beside the copy):",
                *[line(f"  {name}", values) for name, values in _columns(self.phases)],
                "  ours by task:",
                *[line(f"  {name}", values) for name, values in _columns(self.tasks)],
            ]
        )

    def add(self, done: Deployed) -> None:
        """Take the figures of a deployment with growth and warm caches."""
        self.ours.append(done.seconds)
        self.phases.append(done.phases())
        self.tasks.append(done.tasks())
        self.warnings += done.warnings


def measure(runs: int = 7) -> Figures:
    """Deploy ``runs`` times by us, in turn with the plain copy and the peers. Root."""
    with place() as here:
        figures = Figures(here.title)
        disk = here.disks / "disk0"
        here.deploy(fresh(disk))  # so that all that follow find everything cached
        for run in range(runs):
            figures.copied.append(plain_copy(here.image.path, fresh(disk)))
            figures.add(here.deploy(fresh(disk)))
            figures.as_is.append(here.deploy(fresh(disk, here.image.disk_bytes)).seconds)
            if run < PEER_RUNS:
                figures.peer_grown.append(peers.grown(here))
                figures.peer_as_is.append(peers.plain(here))
        for _ in range(min(runs, MEMORY_RUNS)):
            figures.memory.append(memory.peak(here))
        fresh(disk)
        cold()
        figures.cold_copied.append(plain_copy(here.image.path, disk))
        fresh(disk)
        cold()
        figures.cold_ours.append(here.deploy(disk).seconds)
    return figures


def _columns(rows: list[dict[str, float]]) -> list[tuple[str, list[float]]]:
    """From one mapping per run to the runs of each name, in the order of the first run."""
    return [(name, [row[name] for row in rows]) for name in rows[0]]
