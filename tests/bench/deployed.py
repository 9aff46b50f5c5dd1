"""One deployment that succeeded, and where its time went."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    Span = tuple[float, float]


@dataclass(frozen=True)
class Deployed:
    """Times are in seconds since the epoch; ``report`` is what ``--report`` wrote."""

    began: float
    ended: float
    report: Mapping[str, Any]

    @property
    def seconds(self) -> float:
        """From the start of the script's process to its end."""
        return self.ended - self.began

    @property
    def warnings(self) -> list[str]:
        """What the deployment complained about, a fallback to a slower way among it."""
        return [
            text
            for event in self.report["events"]
            if event.get("subtype") == "warning"
            for text in event["messages"]
        ]

    def phases(self) -> dict[str, float]:
        """Seconds of each phase, and of what no phase covers: before, between and after them."""
        found = sorted(spans(self.report["events"]))
        return {
            "before: processes, imports, checks": found[0][0] - self.began,
            **self.report["phases"],
            "between phases": gaps(found),
            "after: clean-up, exit": self.ended - max(end for _, end in found),
        }

    def tasks(self) -> dict[str, float]:
        """Seconds of each task."""
        return dict(self.report["tasks"])


def spans(events: Iterable[Mapping[str, Any]]) -> list[Span]:
    """Beginning and end of each phase that ended."""
    starts: dict[str, float] = {}
    found = []
    for event in events:
        if event["type"] == "phase-start":
            starts[event["phase"]] = event["timestamp"]
        elif event["type"] == "phase-end":
            found.append((starts[event["phase"]], event["timestamp"]))
    return found


def gaps(found: Iterable[Span]) -> float:
    """Seconds between the first beginning and the last end that lie in no span."""
    total = 0.0
    reached: float | None = None
    for start, end in sorted(found):
        if reached is not None and start > reached:
            total += start - reached
        reached = end if reached is None else max(reached, end)
    return total
