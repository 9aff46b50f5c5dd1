"""An appliance started as deployments start it, in the confined child, and timed from outside."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from snf_core.image import identity, worker
from snf_core.image.confinement import Confinement
from snf_core.report import Reporter
from tests.bench.deployed import spans

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from snf_core.appliance import Launcher
    from snf_core.image.guest import Guest
    from snf_core.report import Event
    from tests.bench.place import Place


@dataclass
class Timeline:
    """What was reported by phases, and when: a sink of reports. ``began`` is before the fork."""

    began: float = 0.0
    events: list[Event] = field(default_factory=list)

    def emit(self, event: Event) -> None:
        """Keep it."""
        self.events.append(event)

    def close(self) -> None:
        """Nothing to end."""

    def seconds(self, phase: str) -> list[float]:
        """How long each phase of this name lasted, in their order."""
        of_phase = [event for event in self.events if event.get("phase") == phase]
        return [end - start for start, end in spans(of_phase)]

    def until(self, phase: str) -> float:
        """Seconds from just before the fork of the child to the end of a phase."""
        of_phase = [event for event in self.events if event.get("phase") == phase]
        return spans(of_phase)[-1][1] - self.began


def timed(
    place: Place, launcher: Launcher, disk: Path, job: Callable[[Guest, Reporter], None]
) -> Timeline:
    """Start the appliance with one disk, let it do ``job``, end it.

    A launcher that fails has no second chance here: the fallback would be timed in its place.
    """
    launcher = replace(launcher, fallback=None)
    settings, runtime = place.config.appliance, place.config.runtime()
    timeline = Timeline()
    reporter = Reporter([timeline])
    descriptor = os.open(disk, os.O_RDWR | os.O_CLOEXEC)
    try:
        identities = identity.pool(settings.user)
        with identity.taken(identities, launcher.groups, runtime / "identities") as own:
            confinement = Confinement(own, runtime / "deployment", settings.timeout)
            timeline.began = time.time()
            with worker.started(
                place.appliance, launcher, confinement, [descriptor], job
            ) as started:
                started.finish(reporter)
    finally:
        os.close(descriptor)
    return timeline
