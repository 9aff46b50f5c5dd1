"""Progress: exact shapes, no secrets, no control characters, and no harm from any sink."""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snf_core import report
from snf_core.errors import InterruptedDeploymentError
from snf_core.report import (
    TEXT_LIMIT,
    Event,
    LogSink,
    Reporter,
    ReportSink,
    StreamSink,
    TerminalSink,
    printable,
)

if TYPE_CHECKING:
    from pathlib import Path

BLOT = "********"


class Kept:
    """A sink that remembers; ``broken`` is raised instead."""

    def __init__(self, broken: Exception | None = None) -> None:
        self.events: list[Event] = []
        self.closed = 0
        self.broken = broken

    def emit(self, event: Event) -> None:
        """Keep it."""
        if self.broken:
            raise self.broken
        self.events.append(event)

    def close(self) -> None:
        """Count."""
        self.closed += 1
        if self.broken:
            raise self.broken

    def messages(self) -> list[str]:
        """All messages."""
        return [text for event in self.events for text in event.get("messages", [])]


def everything(reporter: Reporter) -> None:
    """One event of each kind."""
    reporter.info("Starting image copy...")
    reporter.copied(536870912, 2147483648)
    with reporter.phase("tasks"), reporter.task("AssignHostname"):
        reporter.warning("No swap partition defined")
    with contextlib.suppress(KeyError), reporter.task("ChangePassword"):
        reporter.task_error("User: `bob' does not exist")
        raise KeyError
    reporter.error("Image customization failed.")


EXPECTED: list[Event] = [
    {"type": "image-info", "messages": ["Starting image copy..."]},
    {"type": "image-copy-progress", "position": 536870912, "total": 2147483648, "progress": 25.0},
    {"type": "phase-start", "phase": "tasks"},
    {"type": "image-helper", "subtype": "task-start", "task": "AssignHostname"},
    {"type": "image-helper", "subtype": "warning", "messages": ["No swap partition defined"]},
    {"type": "image-helper", "subtype": "task-end", "task": "AssignHostname"},
    {"type": "phase-end", "phase": "tasks"},
    {"type": "image-helper", "subtype": "task-start", "task": "ChangePassword"},
    {"type": "image-helper", "subtype": "error", "messages": ["User: `bob' does not exist"]},
    {"type": "image-error", "messages": ["Image customization failed."]},
]


def timeless(events: list[Event]) -> list[Event]:
    return [{k: v for k, v in event.items() if k != "timestamp"} for event in events]


def test_exact_shapes() -> None:
    sink = Kept()
    before = time.time()
    everything(Reporter([sink]))
    assert timeless(sink.events) == EXPECTED
    assert all(before <= event["timestamp"] <= time.time() for event in sink.events)
    assert all(isinstance(event["timestamp"], float) for event in sink.events)


@pytest.mark.parametrize(
    ("position", "total", "percent"),
    [(0, 0, 0.0), (0, 10, 0.0), (10, 10, 100.0), (1, 3, 33.33), (2, 3, 66.67)],
)
def test_percentages(position: int, total: int, percent: float) -> None:
    sink = Kept()
    Reporter([sink]).copied(position, total)
    assert sink.events[0]["progress"] == percent


# -- texts ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("secrets", "text", "expected"),
    [
        (["hunter2"], "password hunter2!", f"password {BLOT}!"),
        (["hunter2"], "hunter2hunter2", BLOT),
        (["line one\nline two\r\nxyz"], "line two, line one, xyz", f"{BLOT}, {BLOT}, xyz"),
        (["abcdef", "defghi"], "x abcdefghi y", f"x {BLOT} y"),
        (["abcd", "abcdefgh"], "abcdefgh abcd", f"{BLOT} {BLOT}"),
        (["abcab"], "abcabcab", BLOT),
        (["****"], "hunter ****", f"hunter {BLOT}"),
        (["tab\there"], "a tab\there", f"a {BLOT}"),
        (["$6$x.y*"], "is $6$x.y*?", f"is {BLOT}?"),
        ([], "nothing", "nothing"),
        ([""], "nothing", "nothing"),
    ],
)
def test_secrets_are_blotted_out(secrets: list[str], text: str, expected: str) -> None:
    sink = Kept()
    reporter = Reporter([sink], secrets)
    for say in (reporter.info, reporter.warning, reporter.task_error, reporter.error):
        say(text)
    assert sink.messages() == [expected] * 4


@given(st.lists(st.text("abc*", min_size=4, max_size=8), max_size=4), st.text("abc*x", max_size=40))
def test_no_secret_survives(secrets: list[str], text: str) -> None:
    sink = Kept()
    Reporter([sink], secrets).info(text)
    pieces = "".join(sink.messages()).split(BLOT)
    assert not [s for s in secrets if any(s in piece for piece in pieces)]


@pytest.mark.parametrize("secret", ["image", "warning", "task-start", "AssignHostname", "phase"])
def test_a_password_that_is_one_of_our_words_changes_no_shape(secret: str) -> None:
    sink = Kept()
    everything(Reporter([sink], [secret]))
    shapes = [{k: v for k, v in e.items() if k != "messages"} for e in timeless(sink.events)]
    assert shapes == [{k: v for k, v in e.items() if k != "messages"} for e in EXPECTED]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\nb\r\x1b[31m\x00\x7f", r"a\nb\r\x1b[31m\x00\x7f"),
        ("\x9b0m\u2028\u202e\ud800", r"\x9b0m\u2028\u202e\ud800"),
        ("Jürgen 日本 'quoted' \\n", "Jürgen 日本 'quoted' \\n"),
    ],
)
def test_what_is_not_printable_is_escaped(text: str, expected: str) -> None:
    sink = Kept()
    reporter = Reporter([sink])
    reporter.warning(text)
    reporter.forward({"type": "image-helper", "subtype": text, "messages": [text]})
    assert sink.messages() == [expected, expected]
    assert sink.events[1]["subtype"] == expected


@given(st.text())
def test_printable_texts_are_one_printable_line(text: str) -> None:
    assert printable(text).isprintable()


def test_long_messages_are_cut_after_they_are_blotted() -> None:
    sink = Kept()
    Reporter([sink], ["secret-word"]).info("x" * (TEXT_LIMIT - 4) + "secret-word")
    assert sink.messages() == ["x" * (TEXT_LIMIT - 4) + "****..."]


# -- sinks ----------------------------------------------------------------------------------


def test_a_failing_sink_is_dropped_and_closed_and_the_others_go_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    failing, fine = Kept(OSError("gone")), Kept()
    reporter = Reporter([failing, fine])
    everything(reporter)
    reporter.close()
    assert timeless(fine.events) == EXPECTED
    assert (failing.closed, fine.closed) == (1, 1)
    assert caplog.text.count("progress is no longer sent to Kept: gone") == 1


def test_a_signal_is_no_failure_of_the_sink() -> None:
    interrupted = Kept(InterruptedDeploymentError("SIGTERM"))
    with pytest.raises(InterruptedDeploymentError):
        Reporter([interrupted]).info("x")


def test_a_stream_is_one_object_per_line() -> None:
    reading, writing = os.pipe()
    reporter = Reporter([StreamSink(writing, only="image-")])
    everything(reporter)
    reporter.close()
    with open(reading, encoding="ascii") as lines:
        found = [json.loads(line) for line in lines]
    assert timeless(found) == [e for e in EXPECTED if e["type"].startswith("image-")]


def test_a_reader_that_is_gone_does_no_harm(caplog: pytest.LogCaptureFixture) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    fine = Kept()
    everything(Reporter([StreamSink(writing), fine]))
    assert timeless(fine.events) == EXPECTED
    assert "StreamSink: [Errno 32]" in caplog.text
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(writing)


def _pair() -> tuple[int, int]:
    one, other = socket.socketpair()
    return one.detach(), other.detach()


@pytest.mark.parametrize("pair", [os.pipe, _pair])
def test_a_reader_that_never_reads_is_given_up(pair: Any, caplog: pytest.LogCaptureFixture) -> None:
    reading, writing = pair()
    try:
        fine = Kept()
        reporter = Reporter([StreamSink(writing, patience=0.05), fine])
        for _ in range(1000):
            reporter.info("x" * 1000)
        reporter.close()
    finally:
        os.close(reading)
    assert len(fine.events) == 1000
    assert caplog.text.count("its reader does not read") == 1


def test_patience_is_for_all_events_together() -> None:
    """A reader may be slow; it may not slow a deployment down for ever."""
    reading, writing = os.pipe()
    sink = StreamSink(writing, patience=0.2)
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, bytes(4096))
    os.set_blocking(writing, True)
    began = time.monotonic()

    def read() -> None:
        while os.read(reading, 4096):
            time.sleep(0.02)

    def write() -> None:
        for _ in range(10_000):
            sink.emit({"type": "x" * 2000})

    reader = threading.Thread(target=read)
    reader.start()
    try:
        with pytest.raises(TimeoutError):
            write()
        waited = time.monotonic() - began
    finally:
        sink.close()
        reader.join()
        os.close(reading)
    assert waited >= 0.2


def test_a_slow_reader_gets_everything_even_long_lines() -> None:
    reading, writing = os.pipe()
    got = bytearray()

    def read() -> None:
        while chunk := os.read(reading, 10_000):
            got.extend(chunk)

    reader = threading.Thread(target=read)
    reader.start()
    event: Event = {"type": "image-info", "messages": ["x" * 300_000]}
    sink = StreamSink(writing)
    sink.emit(event)
    sink.close()
    reader.join()
    os.close(reading)
    assert json.loads(got) == event


def test_the_log_has_what_matters_to_people() -> None:
    stream = io.StringIO()
    reporter = Reporter([LogSink(stream)])
    everything(reporter)
    reporter.close()
    assert stream.getvalue().splitlines() == [
        "[INFO] Starting image copy...",
        "[INFO] Task AssignHostname ...",
        "[WARNING] No swap partition defined",
        "[INFO] Task ChangePassword ...",
    ], "why it failed is said by the command line"


def test_the_terminal_keeps_progress_on_one_line() -> None:
    stream = io.StringIO()
    reporter = Reporter([TerminalSink(stream)])
    reporter.copied(0, 2 << 20)
    reporter.copied(1 << 20, 2 << 20)
    reporter.info("done")
    reporter.copied(2 << 20, 2 << 20)
    reporter.close()
    assert stream.getvalue() == (
        "\r    0.0 %  0 of 2 MiB \r   50.0 %  1 of 2 MiB \n[INFO] done\n\r  100.0 %  2 of 2 MiB \n"
    )


def test_the_report_of_a_failure(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    reporter = Reporter([ReportSink(path)], ["hunter2"])
    reporter.warning("hunter2")
    everything(reporter)
    reporter.close()
    document = json.loads(path.read_text())
    assert document.keys() == {"result", "seconds", "phases", "tasks", "events"}
    assert document["result"] == "failure"
    assert timeless(document["events"][1:]) == EXPECTED
    assert document["phases"].keys() == {"tasks"}
    assert document["tasks"].keys() == {"AssignHostname"}, "a failed task never ended"
    assert "hunter2" not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_report_of_a_success_adds_up(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    sink = ReportSink(path)
    times = {"phase-start": 100.0, "task-start": 100.5, "task-end": 102.0, "phase-end": 103.25}
    for kind, timestamp in times.items():
        task = {"type": "image-helper", "subtype": kind, "task": "A"}
        what = {"type": kind, "phase": "tasks"} if "phase" in kind else task
        sink.emit({**what, "timestamp": timestamp})
    sink.close()
    document = json.loads(path.read_text())
    assert document["result"] == "success"
    assert document["seconds"] == document["phases"]["tasks"] == 3.25
    assert document["tasks"] == {"A": 1.5}


def test_an_empty_report_is_a_report(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    ReportSink(path).close()
    assert json.loads(path.read_text())["events"] == []


def test_a_report_that_cannot_be_written_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        ReportSink(tmp_path / "none" / "report.json")


def test_the_screen_without_a_terminal_is_a_log() -> None:
    assert isinstance(report.screen(), LogSink)
