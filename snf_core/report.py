"""What a deployment says while it runs: one stream of events, shown in several ways.

An event is a JSON object with ``type`` (str) and ``timestamp`` (seconds since the epoch, float):

===================== ======================================================= ==============
type                  further fields                                          sent when
===================== ======================================================= ==============
image-info            messages: [str]                                         milestones
image-copy-progress   position, total: int (bytes), progress: float (percent) while copying
image-helper          subtype: task-start or task-end, task: str              around a task
image-helper          subtype: warning or error, messages: [str]              as it happens
image-error           messages: [str]                                         once, on failure
phase-start/phase-end phase: str                                              not to monitors
===================== ======================================================= ==============

Messages may hold names from inside a guest: what is not printable is escaped, and what is known
to be secret is blotted out, before any sink sees an event.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import sys
import time
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from snf_core.errors import InterruptedDeploymentError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

LOG = logging.getLogger(__name__)

Event = dict[str, Any]

TEXT_LIMIT = 1024
"""Characters of one message; longer ones are cut. Of a failed script's log, Ganeti shows the last
4 KiB: the reason and the remedy must be there."""

_SHORTEST_SECRET = 4
"""Blotting out shorter strings would blot out half of every message."""


class Sink(Protocol):
    """Where events go. A sink that fails never fails the deployment."""

    def emit(self, event: Event) -> None:
        """Take one event."""

    def close(self) -> None:
        """No more events come."""


def printable(text: str) -> str:
    """``text`` on one line, without control characters, cut to a bearable length."""
    return escaped(text if len(text) <= TEXT_LIMIT else text[:TEXT_LIMIT] + "...")


def escaped(text: str) -> str:
    """All of ``text`` on one line, without control characters."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class Reporter:
    """Turns what happens into events for its sinks."""

    def __init__(self, sinks: Sequence[Sink], secrets: Iterable[str] = ()) -> None:
        self._sinks = list(sinks)
        self._secrets: set[str] = set()
        for secret in secrets:
            self.conceal(secret)

    def conceal(self, secret: str) -> None:
        """Blot this out of all messages from now on."""
        lines = secret.splitlines()
        self._secrets.update(line for line in lines if len(line) >= _SHORTEST_SECRET)

    def redacted(self, text: str) -> str:
        """``text`` without what is to be concealed."""
        return _redact(text, self._secrets)

    def info(self, message: str) -> None:
        """A milestone, for everybody to see."""
        self._send("image-info", messages=[message])

    def warning(self, message: str) -> None:
        """Something the user should know, and the deployment survives."""
        self._send("image-helper", subtype="warning", messages=[message])

    def task_error(self, message: str) -> None:
        """Why a task failed."""
        self._send("image-helper", subtype="error", messages=[message])

    def error(self, message: str) -> None:
        """Why the deployment failed; sent once."""
        self._send("image-error", messages=[message])

    def copied(self, position: int, total: int) -> None:
        """How far the copy is, in bytes."""
        percent = round(100 * position / total, 2) if total else 0.0
        self._send("image-copy-progress", position=position, total=total, progress=percent)

    @contextlib.contextmanager
    def task(self, name: str) -> Iterator[None]:
        """Around a task. No task-end where it raises."""
        self._send("image-helper", subtype="task-start", task=name)
        yield
        self._send("image-helper", subtype="task-end", task=name)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Around a phase of the deployment, for its timing."""
        self._send("phase-start", phase=name)
        yield
        self._send("phase-end", phase=name)

    def forward(self, event: Event) -> None:
        """Pass on an event that another reporter made, its texts cleaned again."""
        event = {key: self._clean(value) for key, value in event.items()}
        for sink in list(self._sinks):
            try:
                sink.emit(event)
            except InterruptedDeploymentError:  # a signal arrived just then
                raise
            except Exception as error:  # no sink may fail a deployment; this one is done for
                self._sinks.remove(sink)
                LOG.warning("progress is no longer sent to %s: %s", type(sink).__name__, error)
                _close(sink)

    def close(self) -> None:
        """End all sinks."""
        for sink in self._sinks:
            _close(sink)

    def _send(self, kind: str, **fields: Any) -> None:
        self.forward({"type": kind, "timestamp": time.time(), **fields})

    def _clean(self, value: Any) -> Any:
        # Only messages are free text: a password may well be a word such as "image".
        if isinstance(value, list):
            return [printable(self.redacted(str(message))) for message in value]
        return printable(value) if isinstance(value, str) else value


class StreamSink:
    """One JSON object per line on a file descriptor, which it owns.

    ``only`` limits the types of events; ``patience`` the seconds that a reader who does not read
    may keep the deployment waiting, all events together.
    """

    def __init__(self, descriptor: int, only: str = "", *, patience: float = 10.0) -> None:
        self._descriptor = descriptor
        self._only = only
        self._patience = patience

    def emit(self, event: Event) -> None:
        """Raises OSError when the reader is gone, TimeoutError when patience is at an end."""
        if event["type"].startswith(self._only):
            line = json.dumps(event, separators=(",", ":")).encode() + b"\n"
            while line:
                self._wait()
                # Once a pipe is ready, it takes so much without blocking (pipe(7), poll(2)).
                line = line[os.write(self._descriptor, line[: select.PIPE_BUF]) :]

    def _wait(self) -> None:
        began = time.monotonic()
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        if not poll.poll(max(0.0, self._patience) * 1000):
            raise TimeoutError("its reader does not read")
        self._patience -= time.monotonic() - began

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._descriptor)


class LogSink:
    """Plain lines, as they end in a cluster manager's log of the operating system scripts."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def emit(self, event: Event) -> None:
        """Write one line, or none for events that only matter to programs."""
        text = describe(event)
        if text:
            self._stream.write(text + "\n")
            self._stream.flush()

    def close(self) -> None:
        """Nothing to end."""


class TerminalSink:
    """The same lines for a person, with the copy's progress kept on one line."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._pending = False

    def emit(self, event: Event) -> None:
        """Show one event."""
        if event["type"] == "image-copy-progress":
            done, total = event["position"] >> 20, event["total"] >> 20
            self._stream.write(f"\r  {event['progress']:5.1f} %  {done} of {total} MiB ")
            self._pending = True
        elif describe(event):
            self._stream.write(("\n" if self._pending else "") + describe(event) + "\n")
            self._pending = False
        self._stream.flush()

    def close(self) -> None:
        """Leave the cursor on a line of its own."""
        if self._pending:
            self._stream.write("\n")


class ReportSink:
    """A JSON document of the whole run, written when it ends.

    ``{"result": "success" | "failure", "seconds": float, "phases": {name: seconds},
    "tasks": {name: seconds}, "events": [...]}``; mode 0600 where it is new.
    """

    def __init__(self, path: Path) -> None:
        """Raises OSError where the file cannot be made: better now than after the work."""
        self._path = path
        self._events: list[Event] = []
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        self._file = os.fdopen(descriptor, "w", encoding="utf-8")

    def emit(self, event: Event) -> None:
        """Keep it."""
        self._events.append(event)

    def close(self) -> None:
        """Write the document."""
        failed = any(event["type"] == "image-error" for event in self._events)
        times = [event["timestamp"] for event in self._events] or [0.0]
        document = {
            "result": "failure" if failed else "success",
            "seconds": round(times[-1] - times[0], 3),
            "phases": _durations(self._events, "phase", "phase-start", "phase-end"),
            "tasks": _durations(self._events, "task", "task-start", "task-end"),
            "events": self._events,
        }
        with self._file:
            json.dump(document, self._file, indent=1)
            self._file.write("\n")


def screen() -> Sink:
    """What suits standard error: a display on a terminal, plain lines elsewhere."""
    return TerminalSink(sys.stderr) if sys.stderr.isatty() else LogSink(sys.stderr)


def describe(event: Event) -> str:
    """An event as a line of text; empty where there is nothing to say to a person.

    Why a task or the deployment failed is said by the command line, with a remedy, as the last of
    all: of a log Ganeti shows few lines, and twice the same would drive others out.
    """
    what = event.get("subtype") or event["type"]
    text = "; ".join(event.get("messages", []))
    return {
        "image-info": f"[INFO] {text}",
        "warning": f"[WARNING] {text}",
        "task-start": f"[INFO] Task {event.get('task')} ...",
    }.get(what, "")


def _close(sink: Sink) -> None:
    try:
        sink.close()
    except Exception as error:  # no sink may fail a deployment
        LOG.warning("%s: %s", type(sink).__name__, error)


def _redact(text: str, secrets: Iterable[str]) -> str:
    """``text`` without secrets; where they overlap, without all that any of them covers."""
    covered: set[int] = set()
    for secret in secrets:
        found = text.find(secret)
        while found >= 0:
            covered.update(range(found, found + len(secret)))
            found = text.find(secret, found + 1)
    kept = []
    for index, character in enumerate(text):
        if index not in covered:
            kept.append(character)
        elif index - 1 not in covered:
            kept.append("********")
    return "".join(kept)


def _durations(events: list[Event], key: str, start: str, end: str) -> dict[str, float]:
    started: dict[str, float] = {}
    lasted: dict[str, float] = {}
    for event in events:
        kind = event.get("subtype") or event["type"]
        if kind == start:
            started[event[key]] = event["timestamp"]
        elif kind == end and event[key] in started:
            lasted[event[key]] = round(event["timestamp"] - started[event[key]], 3)
    return lasted
