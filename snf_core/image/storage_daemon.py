"""QEMU's storage daemon: it shows a disk that only QEMU can reach as a file that only we see.

The daemon is told by QMP what to open, so that nothing of it is in its arguments and nothing is
parsed but JSON; it never guesses a format; and it shows the disk through FUSE, in a mount
namespace of its own, so that the node sees no mount (qemu-storage-daemon(1), QEMU QMP Reference
Manual).

A keeper runs it, the init of a PID namespace: when the keeper ends, the kernel has ended the
daemon. The keeper is killed with the process that started it, however that ends. It also ends the
daemon when that process is told to stop but cannot notice: whoever waits for FUSE takes no
signal, not even SIGKILL, until an answer comes, and a storage that hangs gives none.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import resource
import select
import signal
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from snf_core.errors import DiskError
from snf_core.image import confinement

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Node = dict[str, Any]
"""A block node as QEMU describes it (BlockdevOptions in the QMP reference)."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_ENDING = sum(1 << (number - 1) for number in (*_SIGNALS, signal.SIGKILL))
_WATCH = 0.5
"""Seconds between two looks at whether a signal waits; one that waits twice is not noticed."""
_GRACE = 5.0
"""Seconds that the daemon may take to give the disk back: locks on it, above all."""
_LAST_BREATH = 10.0
"""Seconds that what was killed may take to be gone."""
_PLACE = Path("/mnt")
"""A directory that every system has (FHS), and that the daemon has no business with: in its
namespace the file is there."""
_WORDS = 64 << 10
"""Bytes of what the daemon writes on standard error that are kept: the first."""


class Daemon:
    """A storage daemon that shows one disk."""

    descriptor: int
    """Of the disk, for reading and, where that was asked for, writing. Not closed here."""

    def __init__(self, program: str, node: Node, *, writable: bool, timeout: float) -> None:
        """Start ``program``, let it open ``node``, and open what it shows.

        ``timeout``: seconds until the disk must be open. Raises DiskError with QEMU's words,
        ApplianceError where this process may not make namespaces.
        """
        self._said = _memory(_WORDS)
        self._channel, theirs = socket.socketpair()
        self._lines = self._channel.makefile("rb", 0)
        self._deadline = time.monotonic() + timeout
        status = os.open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)
        try:
            with _signals_held():
                self._keeper = confinement.fork()
                if self._keeper == 0:
                    _keep(program, theirs, self._said, status)
        finally:
            os.close(status)
            theirs.close()
        try:
            self._ask("qmp_capabilities")
            self._ask("blockdev-add", **node, **{"node-name": "disk"})
            self._ask(
                "block-export-add",
                **{"type": "fuse", "id": "disk", "node-name": "disk"},
                mountpoint=str(_PLACE / "disk"),
                writable=writable,
            )
            shown = f"/proc/{self._keeper}/root{_PLACE}/disk"
            flags = os.O_RDWR if writable else os.O_RDONLY
            self.descriptor = os.open(shown, flags | os.O_CLOEXEC)
        except BaseException:
            self.close()
            raise

    def said(self) -> str:
        """The last line that the daemon wrote on standard error."""
        text = os.pread(self._said, _WORDS, 0).strip(b"\0").decode(errors="replace")
        return (text.strip().splitlines() or [""])[-1]

    def close(self) -> None:
        """End the daemon, which gives the disk back if it can."""
        with _signals_held(), contextlib.ExitStack() as stack:
            stack.callback(os.close, self._said)
            stack.callback(self._channel.close)
            stack.callback(self._lines.close)
            keeper = os.pidfd_open(self._keeper)
            stack.callback(os.close, keeper)
            with contextlib.suppress(OSError):
                self._channel.sendall(b'{"execute": "quit"}\n')
            if not select.select([keeper], [], [], _GRACE)[0]:
                os.kill(self._keeper, signal.SIGKILL)
                select.select([keeper], [], [], _LAST_BREATH)
            os.waitpid(self._keeper, os.WNOHANG)

    def _ask(self, command: str, **arguments: Any) -> None:
        request = {"execute": command, "arguments": arguments}
        with contextlib.suppress(OSError):  # a daemon that has ended is noticed when reading
            self._channel.sendall(json.dumps(request).encode() + b"\n")
        while True:
            answer = self._answer()
            if "error" in answer:
                raise DiskError(str(answer["error"].get("desc")))
            if "return" in answer:
                return  # what else comes are events, and a greeting

    def _answer(self) -> Mapping[str, Any]:
        line = b""
        while not line.endswith(b"\n"):
            left = max(0.0, self._deadline - time.monotonic())
            if not select.select([self._lines], [], [], left)[0]:
                raise DiskError("its storage does not answer")
            more = b""
            with contextlib.suppress(ConnectionError):
                more = self._lines.readline()
            if not more:
                raise DiskError(self.said() or "QEMU's storage daemon died")
            line += more
        answer: Mapping[str, Any] = json.loads(line)
        return answer


def _keep(program: str, channel: socket.socket, said: int, status: int) -> NoReturn:
    """The keeper, from fork to exit."""
    try:
        os.setsid()
        confinement.forget([channel.fileno(), said, status])
        confinement.die_with_parent()
        os.dup2(said, 2)
        confinement.hide_mounts(_PLACE)
        (_PLACE / "disk").touch()
        daemon = os.fork()
        if daemon == 0:
            _become(program, channel)
        channel.close()
        _watch(os.pidfd_open(daemon), status)
    except BaseException as error:  # nothing of the parent's code may run here
        os.write(2, f"{error}\n".encode())
    finally:
        os._exit(1)


def _become(program: str, channel: socket.socket) -> NoReturn:
    """Replace this process by the daemon, its monitor on the channel."""
    os.dup2(channel.fileno(), 0)
    os.dup2(channel.fileno(), 1)
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # The driver for SSH looks there for its keys and known hosts.
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/root"}
    arguments = [program, "--chardev", "stdio,id=monitor", "--monitor", "chardev=monitor"]
    try:
        os.execve(program, arguments, environment)
    except OSError as error:
        os.write(2, f"{program} cannot be run: {error.strerror}\n".encode())
        os._exit(1)


def _watch(daemon: int, status: int) -> None:
    """Return when the daemon has ended, or is to: the process of ``status`` is as good as dead."""
    unnoticed = 0
    while not select.select([daemon], [], [], _WATCH)[0]:
        waiting = _waiting(status)
        if waiting is None or unnoticed & waiting:
            return
        unnoticed = waiting


def _waiting(status: int) -> int | None:
    """Which signals to end wait to be taken, as a mask; None where the process is gone."""
    try:
        text = os.pread(status, 1 << 16, 0).decode()
    except OSError:
        return None
    masks = [
        int(line.split()[1], 16)
        for line in text.splitlines()
        if line.startswith(("SigPnd:", "ShdPnd:"))  # proc(5)
    ]
    return (masks[0] | masks[1]) & _ENDING


def _memory(size: int) -> int:
    """A file in memory that cannot grow beyond ``size`` bytes (memfd_create(2))."""
    descriptor = os.memfd_create("said", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, size)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW)
    return descriptor


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Signals that would end this process wait until the block has ended."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
