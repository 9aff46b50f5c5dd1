"""Many deployments at the same time on one node, each onto a disk of its own."""

from __future__ import annotations

import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.bench.place import DISK_BYTES, fresh, place

if TYPE_CHECKING:
    from pathlib import Path

    from tests.bench.deployed import Deployed
    from tests.bench.place import Place

COUNTS = (1, 4, 8, 20)


@dataclass
class Together:
    """Rounds of ``count`` deployments that ran at the same time, in seconds."""

    count: int
    rounds: list[float] = field(default_factory=list)
    """From the start of the first to the end of the last."""
    each: list[float] = field(default_factory=list)
    """Of each deployment that succeeded."""
    warnings: list[str] = field(default_factory=list)
    """A fallback to a slower start of the appliance among them."""
    failures: list[str] = field(default_factory=list)

    @property
    def per_minute(self) -> float:
        """Deployments that succeeded, per minute in which they were under way."""
        return 60 * len(self.each) / sum(self.rounds)

    def __str__(self) -> str:
        each = f"{statistics.median(self.each):8.2f}" if self.each else f"{'-':>8}"
        return "\n".join(
            [
                f"  {self.count:10} {len(self.rounds):8} {statistics.median(self.rounds):8.2f} "
                f"{each} {self.per_minute:11.1f} {len(self.warnings):8} {len(self.failures):8}",
                *[f"    {text}" for text in dict.fromkeys(self.warnings + self.failures)],
            ]
        )


@dataclass
class Figures:
    """One line for each count."""

    title: str
    counts: list[Together] = field(default_factory=list)

    def __str__(self) -> str:
        return "\n".join(
            [
                f"concurrent deployments of the {self.title}, onto {DISK_BYTES >> 30} GiB each",
                "  concurrent   rounds    all s   each s  per minute warnings   failed",
                *map(str, self.counts),
            ]
        )


def measure(runs: int = 3) -> Figures:
    """Deploy so many at a time, in ``runs`` rounds each. Root."""
    with place() as here:
        figures = Figures(here.title)
        here.deploy(fresh(here.disks / "disk"))  # all find the image cached
        for count in COUNTS:
            figures.counts.append(Together(count))
            for _ in range(runs):
                _round(here, figures.counts[-1])
    return figures


def _round(here: Place, together: Together) -> None:
    disks = [fresh(here.disks / f"disk{index}") for index in range(together.count)]
    started = time.perf_counter()
    with ThreadPoolExecutor(together.count) as pool:
        outcomes = list(pool.map(lambda disk: _deploy(here, disk), disks))
    together.rounds.append(time.perf_counter() - started)
    for outcome in outcomes:
        if isinstance(outcome, str):
            together.failures.append(outcome)
        else:
            together.each.append(outcome.seconds)
            together.warnings += outcome.warnings
    for disk in disks:
        disk.unlink()


def _deploy(here: Place, disk: Path) -> Deployed | str:
    """A deployment that succeeded, or why it did not."""
    try:
        return here.deploy(disk)
    except RuntimeError as error:
        return str(error).strip()
