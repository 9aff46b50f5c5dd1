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

from snf_core.errors import ApplianceError, CommandError, DeadlineError, SnfError
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
    *,
    kept: Sequence[int] = (),
) -> Iterator[Worker]:
    """Fork the child, which starts the appliance; end both when the block ends, whatever happens.

    ``disks`` are open descriptors; ``job`` is what the child does with the guest once the parent
    says so, and ``kept`` are descriptors that it uses. Raises what a launcher's attendant raises.
    """
    with contextlib.ExitStack() as stack:
        attempts = tuple(_attended(launcher, disks, stack))
        child = _Child(appliance, attempts, confined, tuple(disks), job, tuple(kept))
        yield stack.enter_context(_forked(child))


@dataclass(frozen=True)
class _Attempt:
    """One way of starting the appliance, and why it or a better one may not do."""

    launcher: Launcher
    attendant: socket.socket | None
    error: CommandError | DeadlineError | None


def _attended(
    launcher: Launcher, disks: Sequence[int], stack: contextlib.ExitStack
) -> Iterator[_Attempt]:
    """The ways of starting the appliance, with those attendants that are there."""
    for attempt in launcher.attempts():
        attendant, failure = None, None
        if attempt.attendant:
            try:
                attendant = stack.enter_context(attempt.attendant(disks))
            except (CommandError, DeadlineError) as error:
                failure = error
        yield _Attempt(attempt, attendant, failure)


@contextlib.contextmanager
def _forked(child: _Child) -> Iterator[Worker]:
    ours, theirs = socket.socketpair()
    # No signal between the fork and the moment at which each side knows what to do with one.
    held = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        pid = confinement.fork()
    except BaseException:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
        raise
    if pid == 0:
        ours.close()
        child.run(theirs)
    theirs.close()
    for attempt in child.attempts:
        if attempt.attendant:
            attempt.attendant.close()  # an attendant hears of the child's end by this
    worker = Worker(pid, ours, child.confined.timeout)
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
    attempts: tuple[_Attempt, ...]
    confined: Confinement
    disks: tuple[int, ...]
    job: Callable[[Guest, Reporter], None]
    kept: tuple[int, ...]

    def run(self, channel: socket.socket) -> NoReturn:
        """Never returns into the parent's code, whatever happens."""
        status = 1
        try:
            self._confine(channel)
            self._work(channel)
            status = 0
        except SnfError as error:
            _tell(channel, type(error).__name__, error.message, error.remedy)
        except BaseException as error:  # the last one who could report it
            traceback.print_exc()
            _tell(
                channel,
                "ApplianceError",
                f"internal error: {type(error).__name__}: {error}",
                "report it as a defect of snf or of a plugin, with the traceback above",
            )
        finally:
            os._exit(status)

    def _confine(self, channel: socket.socket) -> None:
        os.setsid()  # no terminal either
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        attendants = [one.attendant.fileno() for one in self.attempts if one.attendant]
        confinement.forget([channel.fileno(), *self.disks, *attendants, *self.kept])
        os.chdir("/")
        os.umask(0o022)
        confinement.isolate(self.confined)
        for index, attempt in enumerate(self.attempts):
            self._program(index).write_text(attempt.launcher.program)
            self._program(index).chmod(0o755)
        for placeholder in self._placeholders():
            placeholder.touch()
        os.umask(0o077)
        memory = max(attempt.launcher.memory for attempt in self.attempts)
        confinement.limit(self.confined.timeout, memory << 20)
        confinement.become(self.confined.identity)
        confinement.die_with_parent()
        with contextlib.suppress(BlockingIOError):
            if not channel.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
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

    def _work(self, channel: socket.socket) -> None:
        reporter = Reporter([StreamSink(os.dup(channel.fileno()))])
        with reporter.phase("appliance"):
            guest = self._guest(reporter)
        for disk in self.disks:
            os.close(disk)  # QEMU has its own, and nobody else needs one
        if channel.recv(1) != b"g":
            return
        self.job(guest, reporter)
        guest.flush()
        _tell(channel, None, "", "")  # the appliance ends with this process

    def _guest(self, reporter: Reporter) -> Guest:
        """Start the appliance in the best way that works. Raises ApplianceError."""
        for index, attempt in enumerate(self.attempts):
            launcher = attempt.launcher
            if launcher.warning:
                reporter.warning(launcher.warning)
            try:
                if attempt.error:
                    raise attempt.error
                return self._start(attempt, self._program(index))
            except (ApplianceError, CommandError, DeadlineError) as error:
                if launcher.fallback is None:
                    raise
                reporter.warning(f"{error.message}; it is started in another way, which is slower")
        raise AssertionError  # the last attempt returned or raised

    def _start(self, attempt: _Attempt, program: Path) -> Guest:
        launcher, attendant = attempt.launcher, attempt.attendant
        scratch = self.confined.scratch
        placeholders = self._placeholders()
        served = dict(zip(map(str, placeholders), self.disks, strict=True))
        sizes = dict(zip(placeholders, map(disk_server.size, self.disks), strict=True))
        if launcher.feature_cache:
            features.provide(launcher.feature_cache, program, scratch)
        if attendant:
            served["attendant"] = attendant.fileno()
        try:
            with disk_server.started(os.environ["SNF_DISKS"], served, launcher.patience):
                guest = guest_module.start(self.appliance, launcher, program, scratch, sizes)
        except ApplianceError:
            if attendant:
                attendant.shutdown(socket.SHUT_WR)
                while attendant.recv(1):  # until nobody else has the disks open any more
                    pass
            raise
        if attendant:
            attendant.close()
        return guest


def _tell(channel: socket.socket, error: str | None, message: str, remedy: str) -> None:
    line = json.dumps({"type": "result", "error": error, "message": message, "remedy": remedy})
    with contextlib.suppress(OSError):
        channel.sendall(line.encode() + b"\n")
