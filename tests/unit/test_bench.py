"""The arithmetic and the layout of what ``make bench`` prints; what it measures is not judged."""

from __future__ import annotations

import pytest

from tests.bench.concurrency import Together
from tests.bench.deployed import Deployed, gaps, spans
from tests.bench.figures import header, line, milliseconds, ratio


def test_columns_stand_below_their_headings() -> None:
    title = header("something", "ms").splitlines()[1]
    row = line("name", [0.25, 12.0, 0.5], "a note")
    assert row.split() == ["name", "3", "0.500", "0.250", "12.0", "a", "note"]
    assert [title.index(word) + len(word) for word in ("median", "min", "max")] == [
        row.index(word) + len(word) for word in ("0.500", "0.250", "12.0")
    ]


def test_what_was_not_measured_says_so() -> None:
    assert line("name", []).endswith("not measured")
    assert line("name", [], "no saved state").endswith("no saved state")


def test_ratio_is_of_medians() -> None:
    assert ratio([8.0, 100.0, 9.0], [3.0, 3.0]) == 3.0
    assert milliseconds([0.5]) == [500.0]


@pytest.mark.parametrize(
    ("found", "seconds"),
    [
        ([], 0.0),
        ([(0.0, 1.0)], 0.0),
        ([(2.0, 3.0), (0.0, 1.0)], 1.0),
        ([(0.0, 5.0), (1.0, 2.0), (6.0, 7.0)], 1.0),
    ],
    ids=["nothing", "one", "a gap", "one inside another"],
)
def test_gaps(found: list[tuple[float, float]], seconds: float) -> None:
    assert gaps(found) == seconds


def _phase(name: str, start: float, end: float) -> list[dict[str, object]]:
    return [
        {"type": "phase-start", "phase": name, "timestamp": start},
        {"type": "phase-end", "phase": name, "timestamp": end},
    ]


def test_phases_and_what_none_covers() -> None:
    copy, appliance = _phase("copy", 11.0, 13.0), _phase("appliance", 10.5, 12.0)
    events = [copy[0], appliance[0], appliance[1], copy[1], *_phase("flush", 13.5, 14.0)]
    report = {"events": events, "phases": {"copy": 2.0, "appliance": 1.5, "flush": 0.5}}
    done = Deployed(10.0, 15.0, report)
    assert done.seconds == 5.0
    assert list(done.phases().values()) == [0.5, 2.0, 1.5, 0.5, 0.5, 1.0]


def test_a_phase_that_did_not_end_has_no_span() -> None:
    assert spans(_phase("copy", 1.0, 2.0)[:1]) == []


def test_warnings_are_found_among_the_events() -> None:
    warning = {"type": "image-helper", "subtype": "warning", "messages": ["a", "b"]}
    done = Deployed(0.0, 1.0, {"events": [warning, {"type": "image-info", "messages": ["c"]}]})
    assert done.warnings == ["a", "b"]


def test_throughput_counts_what_succeeded() -> None:
    together = Together(4, [20.0, 40.0], [10.0] * 6, failures=["no room", "no room"])
    assert together.per_minute == 6.0
    lines = str(together).splitlines()
    assert lines[0].split() == ["4", "2", "30.00", "10.00", "6.0", "0", "2"]
    assert lines[1:] == ["    no room"]


def test_nothing_succeeded() -> None:
    assert str(Together(1, [20.0], failures=["no room"])).splitlines()[0].split()[3] == "-"
