"""Speaking to a QEMU that connects to sockets of ours: its monitor, and a serial console."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from snf_core.run import Process

PATIENCE = 180.0
"""Seconds that each step may take: emulation on a busy node is slow."""


class Console:
    """The appliance's serial console."""

    def __init__(self, terminal: socket.socket) -> None:
        self._terminal = terminal
        self._said = b""

    def send(self, line: bytes) -> None:
        """Type a line."""
        self._terminal.sendall(line + b"\n")

    def wait(self, marker: bytes) -> str:
        """What was said before ``marker``. Raises EOFError if the machine ends before."""
        while marker not in self._said:
            chunk = self._terminal.recv(65536)
            if not chunk:
                last = self._said.decode(errors="replace").strip()[-300:]
                raise EOFError(f"the machine ended after saying {last!r}")
            self._said += chunk
        before, _, self._said = self._said.partition(marker)
        return before.decode(errors="replace")


class Monitor:
    """QEMU's monitor, spoken to in QMP (QEMU's documentation, "QMP protocol specification")."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._lines = line.makefile("rb")
        self._answer()
        self("qmp_capabilities")

    def __call__(self, command: str, *descriptors: int, **arguments: str | int) -> Any:
        """Run a command; return what it returns. Raises OSError with QEMU's words."""
        named = {key.replace("_", "-"): value for key, value in arguments.items()}
        request = json.dumps({"execute": command, "arguments": named})
        socket.send_fds(self._line, [request.encode()], descriptors)
        while True:
            answer = self._answer()
            if "error" in answer:
                raise OSError(f"{command}: {answer['error'].get('desc')}")
            if "return" in answer:
                return answer["return"]

    def save(self, file: Path) -> None:
        """Migrate the running machine's state into a new file, whole: it goes on from there."""
        self("migrate-set-parameters", max_bandwidth=1 << 40)
        with file.open("xb") as opened:
            self("getfd", opened.fileno(), fdname="state")
        self("migrate", uri="fd:state")
        deadline = time.monotonic() + PATIENCE
        while (status := self("query-migrate").get("status")) != "completed":
            if status == "failed" or time.monotonic() > deadline:
                raise OSError(f"saving the state: {status}")
            time.sleep(0.02)

    def _answer(self) -> Any:
        text = self._lines.readline()
        if not text:
            raise EOFError("QEMU ended")
        return json.loads(text)


@contextlib.contextmanager
def listening(path: Path, kind: socket.SocketKind = socket.SOCK_STREAM) -> Iterator[socket.socket]:
    """A socket to which a program that is started in the block shall connect."""
    with socket.socket(socket.AF_UNIX, kind) as door:
        door.bind(str(path))
        door.listen(1)
        yield door


@contextlib.contextmanager
def accepted(door: socket.socket, process: Process) -> Iterator[socket.socket]:
    """The connection of ``process``. Raises EOFError if it ends, TimeoutError if it hangs."""
    ending = os.pidfd_open(process.pid)
    try:
        readable = select.select([door.fileno(), ending], [], [], PATIENCE)[0]
    finally:
        os.close(ending)
    if door.fileno() not in readable:
        raise EOFError("it ended") if readable else TimeoutError("it did not get that far")
    connection, _ = door.accept()
    with connection:
        connection.settimeout(PATIENCE)
        yield connection
