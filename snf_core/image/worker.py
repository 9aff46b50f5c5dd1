"""The process that opens a guest: unprivileged, bounded, and gone when its deployment ends.

The parent (root) opens the disks and copies the image; this child of it gives up all privileges,
holds the libguestfs handle and so parses whatever a possibly conquered appliance answers. It can
open no disk: descriptors that the parent opened reach QEMU over a Unix socket. The appliance
starts at once, beside the copy; the guest is touched only after ``Worker.finish``.

The child is the init of a PID namespace of its own: once it has ended, the kernel has ended QEMU
and all else that was started, and nobody has the disks open (pid_namespaces(7)).

What it tells the parent while it works is read by ``snf_core.image.messages``; what it gives up
is in ``snf_core.image.confinement``.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from snf_core.errors import ApplianceError, SnfError
from snf_core.image import confinement, disk_server, features, messages
from snf_core.image import guest as guest_module
from snf_core.report import Reporter, StreamSink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from snf_core.appliance import Appliance, Launcher
    from snf_core.image.confinement import Confinement
    from snf_core.image.guest import Guest

_LAST_BREATH = 60.0
"""Seconds that what was killed may take to be gone, as when it waits for a disk."""
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@contextlib.contextmanager
def started(
    appliance: Appliance,
    launcher: Launcher,
    confined: Confinement,
    disks: Sequence[int],
    job: Callable[[Guest, Reporter], None],
) -> Iterator[Worker]:
    """Fork the child, which starts the appliance; end both when the block ends, whatever happens.

    ``disks`` are open descriptors; ``job`` is what the child does with the guest once the parent
    says so.
    """
    ours, theirs = socket.socketpair()
    # No signal between the fork and the moment at which each side knows what to do with one.
    held = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        child = confinement.fork()
    except BaseException:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
        raise
    if child == 0:
        ours.close()
        _Child(appliance, launcher, confined, tuple(disks), theirs, job).run()
    theirs.close()
    worker = Worker(child, ours, confined.timeout)
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
        yield worker
    finally:
        worker.end()
        ours.close()


class Worker:
    """The parent's side of the child."""

    def __init__(self, pid: int, channel: socket.socket, timeout: float) -> None:
        self._pid = pid
        self._channel = channel
        self._timeout = timeout
        self._ended = False

    def finish(self, reporter: Reporter) -> None:
        """Let the child do its job now; pass on what it reports; return when it succeeded.

        Raises what the child raised, DeadlineError, or ApplianceError if the child died or sent
        what it should not.
        """
        with contextlib.suppress(OSError):  # a dead child is noticed when reading
            self._channel.sendall(b"g")
        for message in messages.received(self._channel, self._timeout):
            if message.get("type") == "result":
                messages.conclude(message)
                return
            reporter.forward(messages.event(message))
        raise ApplianceError(
            "the process that customizes the guest died",
            remedy="look for killed processes in the node's kernel log, then deploy again",
        )

    def end(self) -> None:
        """Leave no process behind, and so nobody who has the disks open."""
        if self._ended:
            return
        self._ended = True
        held = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            # Nothing is to be saved: what succeeded has been flushed, the rest is deployed anew.
            os.kill(self._pid, signal.SIGKILL)
            descriptor = os.pidfd_open(self._pid)
            try:
                select.select([descriptor], [], [], _LAST_BREATH)
            finally:
                os.close(descriptor)
            os.waitpid(self._pid, os.WNOHANG)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)


@dataclass(frozen=True)
class _Child:
    """The child's side, from fork to exit."""

    appliance: Appliance
    launcher: Launcher
    confined: Confinement
    disks: tuple[int, ...]
    channel: socket.socket
    job: Callable[[Guest, Reporter], None]

    def run(self) -> NoReturn:
        """Never returns into the parent's code, whatever happens."""
        status = 1
        try:
            self._confine()
            self._work()
            status = 0
        except SnfError as error:
            self._tell(type(error).__name__, error.message, error.remedy)
        except BaseException as error:  # the last one who could report it
            traceback.print_exc()
            self._tell(
                "ApplianceError",
                f"internal error: {type(error).__name__}: {error}",
                "report it as a defect of snf or of a plugin, with the traceback above",
            )
        finally:
            os._exit(status)

    def _confine(self) -> None:
        os.setsid()  # no terminal either
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        confinement.forget([self.channel.fileno(), *self.disks])
        os.chdir("/")
        os.umask(0o022)
        confinement.isolate(self.confined)
        for index, launcher in enumerate(self.launcher.attempts()):
            self._program(index).write_text(launcher.program)
            self._program(index).chmod(0o755)
        for placeholder in self._placeholders():
            placeholder.touch()
        os.umask(0o077)
        confinement.limit(self.confined.timeout, self.launcher.memory << 20)
        confinement.become(self.confined.identity)
        confinement.die_with_parent()
        with contextlib.suppress(BlockingIOError):
            if not self.channel.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                os._exit(1)  # the parent died before
        scratch = str(self.confined.scratch)
        os.environ.update(
            PATH="/usr/sbin:/usr/bin:/sbin:/bin",
            LC_ALL="C.UTF-8",
            HOME=scratch,
            TMPDIR=scratch,
            XDG_RUNTIME_DIR=scratch,  # where libguestfs puts its sockets (guestfs(3))
            SNF_DISKS=f"{scratch}/disks",
        )

    def _program(self, index: int) -> Path:
        return self.confined.directory / f"launcher{index}"

    def _placeholders(self) -> list[Path]:
        """What libguestfs is told to be the disks."""
        return [self.confined.directory / f"disk{index}" for index in range(len(self.disks))]

    def _work(self) -> None:
        reporter = Reporter([StreamSink(os.dup(self.channel.fileno()))])
        with reporter.phase("appliance"):
            guest = self._guest(reporter)
        for disk in self.disks:
            os.close(disk)  # QEMU has its own, and nobody else needs one
        if self.channel.recv(1) != b"g":
            return
        self.job(guest, reporter)
        guest.flush()
        self._tell(None, "", "")  # the appliance ends with this process

    def _guest(self, reporter: Reporter) -> Guest:
        """Start the appliance in the best way that works. Raises ApplianceError."""
        if self.launcher.warning:
            reporter.warning(self.launcher.warning)
        for index, launcher in enumerate(self.launcher.attempts()):
            try:
                return self._start(launcher, self._program(index))
            except ApplianceError as error:
                if launcher.fallback is None:
                    raise
                reporter.warning(f"{error.message}; it is started in another way, which is slower")
        raise AssertionError  # the last attempt returned or raised

    def _start(self, launcher: Launcher, program: Path) -> Guest:
        scratch = self.confined.scratch
        placeholders = self._placeholders()
        served = dict(zip(map(str, placeholders), self.disks, strict=True))
        sizes = map(disk_server.size, self.disks)
        if launcher.feature_cache:
            features.provide(launcher.feature_cache, program, scratch)
        with disk_server.started(os.environ["SNF_DISKS"], served, launcher.patience):
            return guest_module.start(
                self.appliance,
                launcher,
                program,
                scratch,
                dict(zip(placeholders, sizes, strict=True)),
            )

    def _tell(self, error: str | None, message: str, remedy: str) -> None:
        line = json.dumps({"type": "result", "error": error, "message": message, "remedy": remedy})
        with contextlib.suppress(OSError):
            self.channel.sendall(line.encode() + b"\n")
