"""What the confined child may tell its parent, which believes none of it.

One JSON object per line: events (see ``snf_core.report``), then a result, ``{"type": "result",
"error": NAME or null, "message": str, "remedy": str}`` with the name of a class of
``snf_core.errors``. Lines, their number and their fields are bounded and checked.
"""

from __future__ import annotations

import json
import select
import time
from typing import TYPE_CHECKING

from snf_core import errors
from snf_core.errors import ApplianceError, DeadlineError, SnfError

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from snf_core.report import Event

LINE_LIMIT = 64 << 10
"""Bytes of one line from the child."""
MESSAGES_LIMIT = 10_000
"""Messages of one deployment."""
_OLDEST = 86400.0
"""Seconds: no deployment takes longer."""
_FIELDS = {
    ("image-info", ""): "messages",
    ("image-helper", "warning"): "messages",
    ("image-helper", "error"): "messages",
    ("image-helper", "task-start"): "task",
    ("image-helper", "task-end"): "task",
    ("phase-start", ""): "phase",
    ("phase-end", ""): "phase",
}
"""What the child may report, by type and subtype, and the field that says it."""


def received(channel: socket.socket, timeout: float) -> Iterator[Event]:
    """The messages that arrive within ``timeout`` seconds, until the child's end is closed.

    Raises DeadlineError, and ApplianceError for what is no message.
    """
    deadline = time.monotonic() + timeout
    pending = b""
    for _ in range(MESSAGES_LIMIT):
        while b"\n" not in pending:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([channel], [], [], left)[0]:
                raise DeadlineError(
                    f"the guest's customization did not end within {timeout:g} s",
                    remedy="raise [appliance] timeout if this node is slow",
                )
            chunk = _receive(channel)
            if not chunk:
                return
            pending += chunk
            if len(pending) > 2 * LINE_LIMIT:
                raise _misbehaviour("sent an endless line")
        line, pending = pending.split(b"\n", 1)
        yield _parsed(line)
    raise _misbehaviour(f"sent more than {MESSAGES_LIMIT} messages")


def event(message: Event) -> Event:
    """A message reduced to what an event may hold. Raises ApplianceError if it is none."""
    kind, subtype = str(message.get("type", "")), str(message.get("subtype", ""))
    field = _FIELDS.get((kind, subtype))
    value = message.get(field or "")
    if field is None or not isinstance(value, list if field == "messages" else str):
        raise _misbehaviour("sent an unknown message")
    # What the child did while nobody listened bears its own time, unless that is nonsense.
    now, stated = time.time(), message.get("timestamp")
    plausible = isinstance(stated, float) and now - _OLDEST < stated <= now
    checked: Event = {"type": kind, "timestamp": stated if plausible else now}
    if subtype:
        checked["subtype"] = subtype
    limited = [str(item) for item in value[:20]] if isinstance(value, list) else value[:100]
    return {**checked, field: limited}


def conclude(result: Event) -> None:
    """Raise the error that a result names, an ApplianceError if there is none of that name."""
    if result.get("error") is None:
        return
    kind = getattr(errors, str(result["error"]), ApplianceError)
    if not (isinstance(kind, type) and issubclass(kind, SnfError)):
        kind = ApplianceError
    raise kind(str(result.get("message", "")), remedy=str(result.get("remedy", "")))


def _receive(channel: socket.socket) -> bytes:
    try:
        return channel.recv(LINE_LIMIT)
    except ConnectionError:
        return b""


def _parsed(line: bytes) -> Event:
    try:
        message = json.loads(line) if len(line) <= LINE_LIMIT else None
    except (ValueError, RecursionError):
        message = None
    if not isinstance(message, dict):
        raise _misbehaviour("sent a line that is no message")
    return message


def _misbehaviour(what: str) -> ApplianceError:
    return ApplianceError(
        f"the process that customizes the guest {what}",
        remedy="do not trust this image: it may have taken over the appliance",
    )
