"""The parent's side of the confined child, which may have been conquered: bytes fed by hand."""

from __future__ import annotations

import json
import socket
import threading
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snf_core import errors
from snf_core.errors import ApplianceError, DeadlineError, GuestError, SnfError
from snf_core.image import messages
from snf_core.image.messages import LINE_LIMIT, MESSAGES_LIMIT
from snf_core.image.worker import Worker
from snf_core.report import Event, Reporter

NO_PROCESS = -1
"""Only ``Worker.end`` would need one."""
DONE = {"type": "result", "error": None, "message": "", "remedy": ""}
WARNING = {"type": "image-helper", "subtype": "warning", "messages": ["careful"]}


class Kept:
    """A sink that remembers."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def emit(self, event: Event) -> None:
        """Keep it."""
        self.events.append(event)

    def close(self) -> None:
        """Nothing to end."""


def lines(*events: object) -> bytes:
    """As the child sends them."""
    return b"".join(json.dumps(event).encode() + b"\n" for event in events)


def finish(data: bytes, *, timeout: float = 20.0, hang: bool = False) -> list[Event]:
    """What the parent makes of a child that sends ``data`` and then ends, or hangs."""
    kept = Kept()
    ours, theirs = socket.socketpair()

    def child() -> None:
        try:
            theirs.sendall(data)
            if not hang:
                theirs.shutdown(socket.SHUT_WR)
        except OSError:  # the parent has had enough
            pass

    sending = threading.Thread(target=child)
    sending.start()
    try:
        Worker(NO_PROCESS, ours, timeout).finish(Reporter([kept]))
        assert theirs.recv(1) == b"g", "the child was never told to go on"
    finally:
        ours.close()
        sending.join()
        theirs.close()
    return [{k: v for k, v in event.items() if k != "timestamp"} for event in kept.events]


def test_events_are_passed_on_until_the_result() -> None:
    events = [
        {"type": "phase-start", "phase": "tasks"},
        {"type": "image-info", "messages": ["hello"]},
        {"type": "image-helper", "subtype": "task-start", "task": "A"},
        WARNING,
        {"type": "image-helper", "subtype": "error", "messages": ["oh"]},
        {"type": "image-helper", "subtype": "task-end", "task": "A"},
        {"type": "phase-end", "phase": "tasks"},
    ]
    assert finish(lines(*events, DONE, {"type": "ignored"})) == events


def test_what_was_sent_before_the_word_is_passed_on_too() -> None:
    assert finish(lines(WARNING, DONE)) == [WARNING]


@pytest.mark.parametrize(
    "name",
    [
        n
        for n, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, SnfError)
    ],
)
def test_the_childs_errors_are_raised_as_what_they_are(name: str) -> None:
    result = {"type": "result", "error": name, "message": "what", "remedy": "do"}
    with pytest.raises(SnfError) as caught:
        finish(lines(result))
    assert type(caught.value) is getattr(errors, name)
    assert (caught.value.message, caught.value.remedy) == ("what", "do")


@pytest.mark.parametrize(
    "name", ["KeyboardInterrupt", "annotations", "__name__", "__builtins__", "", 1, True, [], {}]
)
def test_other_classes_are_not_looked_for(name: object) -> None:
    with pytest.raises(ApplianceError, match="what"):
        finish(lines({"type": "result", "error": name, "message": "what"}))


def test_a_result_with_nonsense_in_it() -> None:
    with pytest.raises(GuestError) as caught:
        finish(lines({"type": "result", "error": "GuestError", "message": [1], "remedy": None}))
    assert caught.value.message == "[1]"


@pytest.mark.parametrize("data", [b"", b'{"type": "resu', lines(WARNING), lines(WARNING)[:-1]])
def test_an_early_end_is_death(data: bytes) -> None:
    with pytest.raises(ApplianceError, match="died") as caught:
        finish(data)
    assert "kernel log" in caught.value.remedy


def test_a_reset_connection_is_death() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours, pytest.raises(ApplianceError, match="died"):
        Worker(NO_PROCESS, ours, 20.0).finish(Reporter([]))


@pytest.mark.parametrize(
    "line",
    [
        b"garbage",
        b"",
        b"\xff\xfe\x00",
        b"[]",
        b"1",
        b"null",
        b'"text"',
        b"[" * 60_000,
        b'{"a":' * 12_000,
        b'{"type": "image-info", "messages": [' + b"1" * 5000 + b"]}",
    ],
)
def test_garbage_ends_it(line: bytes) -> None:
    with pytest.raises(ApplianceError, match="sent a line that is no message"):
        finish(line + b"\n" + lines(DONE))


def test_a_line_that_is_too_long() -> None:
    padding = LINE_LIMIT - len(lines({**WARNING, "padding": ""})) + 1
    longest = lines({**WARNING, "padding": "x" * padding})
    assert len(longest) == LINE_LIMIT + 1
    assert finish(longest + lines(DONE)) == [WARNING]
    with pytest.raises(ApplianceError, match="no message"):
        finish(lines({**WARNING, "padding": "x" * (padding + 1)}, DONE))
    with pytest.raises(ApplianceError, match="endless line"):
        finish(b"x" * (4 * LINE_LIMIT))


def test_too_many_events() -> None:
    event = {"type": "phase-start", "phase": "x"}
    assert len(finish(lines(*[event] * (MESSAGES_LIMIT - 1), DONE))) == MESSAGES_LIMIT - 1
    with pytest.raises(ApplianceError, match=f"more than {MESSAGES_LIMIT} messages"):
        finish(lines(*[event] * MESSAGES_LIMIT, DONE))


def test_a_child_that_says_nothing_is_late() -> None:
    with pytest.raises(DeadlineError, match=r"did not end within 0\.05 s") as caught:
        finish(lines(WARNING) + b"{", timeout=0.05, hang=True)
    assert "[appliance] timeout" in caught.value.remedy


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"type": "image-error", "messages": ["x"]},
        {"type": "image-copy-progress", "position": 1, "total": 1, "progress": 1},
        {"type": ["image-info"], "messages": ["x"]},
        {"type": "image-info"},
        {"type": "image-info", "messages": "x"},
        {"type": "image-info", "subtype": "warning", "messages": ["x"]},
        {"type": "image-helper", "messages": ["x"]},
        {"type": "image-helper", "subtype": "warning", "task": "x"},
        {"type": "image-helper", "subtype": "task-start"},
        {"type": "image-helper", "subtype": "task-start", "task": 1},
        {"type": "image-helper", "subtype": "\x1b[31m", "task": "x"},
        {"type": "phase-start"},
        {"type": "phase-end", "phase": None},
    ],
)
def test_events_of_another_shape_end_it(event: Event) -> None:
    with pytest.raises(ApplianceError, match="unknown message"):
        finish(lines(event, DONE))


def test_events_are_reduced_to_what_they_may_hold() -> None:
    event = {**WARNING, "messages": [1, None, ["x"], *["y"] * 50], "task": "x", "other": "x"}
    found = finish(lines(event, {"type": "phase-start", "phase": "p" * 1000}, DONE))
    assert found == [
        {**WARNING, "messages": ["1", "None", "['x']", *["y"] * 17]},
        {"type": "phase-start", "phase": "p" * 100},
    ]


def test_times_are_believed_only_where_they_can_be_true() -> None:
    now = time.time()
    for stated, believed in (
        (now - 10, True),
        (now + 1000, False),
        (now - 10 * 86400, False),
        (float("nan"), False),
        (float("-inf"), False),
        (1, False),
        ("x", False),
        (None, False),
    ):
        found = messages.event({**WARNING, "timestamp": stated})["timestamp"]
        assert (found == stated) is believed
        assert now - 10 <= found <= time.time()


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["image-info", "image-helper", "phase-start"]) | JSON,
        "subtype": st.sampled_from(["warning", "task-start", ""]) | JSON,
        "timestamp": JSON,
        "task": JSON,
        "phase": JSON,
        "messages": JSON,
    },
)


@given(FIELDS)
def test_whatever_the_child_reports_it_is_an_event_or_refused(event: dict[str, Any]) -> None:
    try:
        checked = messages.event(event)
    except ApplianceError:
        return
    assert checked.keys() <= {"type", "subtype", "timestamp", "task", "phase", "messages"}
    assert all(isinstance(text, str) for text in checked.get("messages", []))
    assert isinstance(checked["timestamp"], float)


@given(st.binary(max_size=200))
def test_whatever_bytes_come_the_parent_ends_in_order(data: bytes) -> None:
    with pytest.raises(SnfError):
        finish(data)
