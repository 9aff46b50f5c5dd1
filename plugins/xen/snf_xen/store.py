"""xenstore over the kernel's own door to it, with watches; for whoever stays connected.

The messages are those of docs/misc/xenstore.txt and xen/include/public/io/xs_wire.h in Xen's
source, through /dev/xen/xenbus.
"""

from __future__ import annotations

import os
import select
import struct
import time
from typing import TYPE_CHECKING

from snf_core.errors import CommandError, DeadlineError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

DEVICE = "/dev/xen/xenbus"

_HEADER = struct.Struct("=4I")
"""Kind of message, number of the request, transaction, bytes that follow."""
_DIRECTORY, _READ, _WATCH, _WRITE, _RM, _SET_PERMS = 1, 2, 4, 11, 13, 14
_WATCH_EVENT, _ERROR = 15, 16
_TIMEOUT = 20.0
"""Seconds within which xenstored answers."""


class Connection:
    """A connection to xenstore. A context manager.

    Its methods raise CommandError where xenstore refuses, DeadlineError where it does not answer.
    """

    def __init__(self) -> None:
        try:
            self._descriptor = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise CommandError(f"{DEVICE} cannot be opened: {error.strerror}") from error
        self._received = bytearray()
        self._events: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def fileno(self) -> int:
        """Readable when there is something for ``changed``."""
        return self._descriptor

    def read(self, path: str) -> str | None:
        """A key's value; None where there is no such key."""
        found = self._ask(_READ, path.encode() + b"\0")
        return None if found is None else found.decode("ascii", "replace")

    def names(self, path: str) -> list[str]:
        """The keys directly below another; none where that one does not exist."""
        found = self._ask(_DIRECTORY, path.encode() + b"\0") or b""
        return [name.decode("ascii", "replace") for name in found.split(b"\0") if name]

    def write(self, path: str, value: str) -> None:
        """Set a key."""
        self._ask(_WRITE, path.encode() + b"\0" + value.encode())

    def make(self, path: str, values: Mapping[str, str], owner: int, reader: int) -> None:
        """A key with others below it that belongs to one domain, and that another may read."""
        self.write(path, "")
        self._ask(_SET_PERMS, f"{path}\0n{owner}\0r{reader}\0".encode())
        for name, value in values.items():
            self.write(f"{path}/{name}", value)

    def remove(self, path: str) -> None:
        """Remove a key and all below it, if it is there."""
        self._ask(_RM, path.encode() + b"\0")

    def watch(self, path: str) -> None:
        """Hear of every change of a key, or of what is below it; and once at the beginning."""
        self._ask(_WATCH, f"{path}\0{path}\0".encode())

    def changed(self) -> list[str]:
        """The watched paths for which something has come, without waiting for more."""
        while select.select([self._descriptor], [], [], 0)[0]:
            self._receive(0)
        events, self._events = self._events, []
        return events

    def _ask(self, kind: int, payload: bytes) -> bytes | None:
        """The answer; None where there is no such key."""
        os.write(self._descriptor, _HEADER.pack(kind, 0, 0, len(payload)) + payload)
        deadline = time.monotonic() + _TIMEOUT
        while True:
            answer, content = self._receive(deadline - time.monotonic())
            if answer == kind:
                return content
            if answer == _ERROR:
                word = content.rstrip(b"\0").decode("ascii", "replace")
                if word == "ENOENT":
                    return None
                path = payload.partition(b"\0")[0].decode("ascii", "replace")
                raise CommandError(f"xenstore: {path}: {word}")

    def _receive(self, timeout: float) -> tuple[int, bytes]:
        """The next message; an event is kept as well."""
        header = self._exactly(_HEADER.size, timeout)
        kind, _, _, length = _HEADER.unpack(header)
        content = self._exactly(length, timeout)
        if kind == _WATCH_EVENT:
            self._events.append(content.split(b"\0")[1].decode("ascii", "replace"))
        return kind, content

    def _exactly(self, length: int, timeout: float) -> bytes:
        while len(self._received) < length:
            if not select.select([self._descriptor], [], [], max(0.0, timeout))[0]:
                # The kernel queues whole messages: what has begun is there.
                raise DeadlineError("xenstore does not answer", remedy="is xenstored running?")
            self._received += os.read(self._descriptor, 8192)
        taken = bytes(self._received[:length])
        del self._received[:length]
        return taken
