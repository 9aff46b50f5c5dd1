"""How figures are shown: a line per thing measured, with median, least and most of its runs."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

MISSING = "not measured"


def header(title: str, unit: str = "s") -> str:
    """What the lines below it are about, and what their columns hold."""
    return f"{title}\n  {f'({unit})':40} runs  median     min     max"


def line(name: str, values: Sequence[float], note: str = "") -> str:
    """One thing's figures, in three significant places or so; ``note`` is a remark or a ratio."""
    if not values:
        return f"  {name:40} {note or MISSING}"
    shown = " ".join(
        f"{value:7.{_places(value)}f}"
        for value in (statistics.median(values), min(values), max(values))
    )
    return f"  {name:40} {len(values):4} {shown}  {note}".rstrip()


def ratio(large: Sequence[float], small: Sequence[float]) -> float:
    """How many times the median of ``small`` goes into that of ``large``."""
    return statistics.median(large) / statistics.median(small)


def milliseconds(seconds: Sequence[float]) -> list[float]:
    """The same in milliseconds."""
    return [1000 * value for value in seconds]


def _places(value: float) -> int:
    """Digits after the point: more would be noise."""
    return 3 if value < 1 else 2 if value < 10 else 1
