"""The process that opens a guest: unprivileged, bounded, and gone when its deployment ends.

The parent (root) opens the disks and copies the image; this child of it gives up all privileges,
holds the libguestfs handle and so parses whatever a possibly conquered appliance answers. It can
open no disk: descriptors that the parent opened reach QEMU over a Unix socket. The appliance
starts at once, beside the copy; the guest is touched only after ``Worker.finish``.

What it tells the parent while it works is read by ``snf_core.image.messages``.
"""

from __future__ import annotations

import contextlib
import ctypes
import grp
import json
import os
import pwd
import resource
import select
import signal
import socket
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from snf_core.errors import ApplianceError, SnfError
from snf_core.image import guest as guest_module
from snf_core.image import messages
from snf_core.report import Reporter, StreamSink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from snf_core.appliance import Appliance, Launcher
    from snf_core.image.guest import Guest

_LAST_BREATH = 60.0
"""Seconds that what was killed may take to be gone, as when it waits for a disk."""
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_PRCTL = ctypes.CDLL(None).prctl
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38


@dataclass(frozen=True)
class Identity:
    """Numbers of an unprivileged user, of its own group and of those it needs beside."""

    uid: int
    gid: int
    groups: tuple[int, ...]


@dataclass(frozen=True)
class Confinement:
    """As whom the child runs, where, and for how long."""

    identity: Identity
    directory: Path
    """Private to this deployment, made and removed by the parent."""
    timeout: float
    """Seconds from ``finish`` to the result."""
    grace: float
    """Seconds between SIGTERM and SIGKILL."""


@contextlib.contextmanager
def started(
    appliance: Appliance,
    launcher: Launcher,
    confinement: Confinement,
    disks: Sequence[int],
    job: Callable[[Guest, Reporter], None],
) -> Iterator[Worker]:
    """Fork the child, which starts the appliance; end both when the block ends, whatever happens.

    ``disks`` are open descriptors; ``job`` is what the child does with the guest once the parent
    says so.
    """
    placeholders = _furnish(confinement, launcher, len(disks))
    ours, theirs = socket.socketpair()
    _PRCTL(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    # No signal between the fork and the moment at which each side knows what to do with one.
    held = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    parent, child = os.getpid(), os.fork()
    if child == 0:
        ours.close()
        parts = _Child(
            appliance,
            launcher,
            confinement,
            dict(zip(map(str, placeholders), disks, strict=True)),
            theirs,
            job,
            parent,
        )
        parts.run()
    theirs.close()
    _lead_group(child)
    worker = Worker(child, ours, confinement)
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
        yield worker
    finally:
        worker.end()
        ours.close()


class Worker:
    """The parent's side of the child."""

    def __init__(self, pid: int, channel: socket.socket, confinement: Confinement) -> None:
        self._pid = pid
        self._channel = channel
        self._confinement = confinement
        self._ended = False

    def finish(self, reporter: Reporter) -> None:
        """Let the child do its job now; pass on what it reports; return when it succeeded.

        Raises what the child raised, DeadlineError, or ApplianceError if the child died or sent
        what it should not.
        """
        with contextlib.suppress(OSError):  # a dead child is noticed when reading
            self._channel.sendall(b"g")
        for message in messages.received(self._channel, self._confinement.timeout):
            if message.get("type") == "result":
                messages.conclude(message)
                return
            reporter.forward(messages.event(message))
        raise ApplianceError(
            "the process that customizes the guest died",
            remedy="look for killed processes in the node's kernel log, then deploy again",
        )

    def end(self) -> None:
        """Leave no process of the child's group behind, and so nobody who has the disks open."""
        if self._ended:
            return
        self._ended = True
        held = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            self._signal(signal.SIGTERM)
            self._await_child(self._confinement.grace)
            # QEMU and libguestfs's own children share the child's process group.
            self._signal(signal.SIGKILL)
            self._bury()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._pid, number)

    def _await_child(self, seconds: float) -> None:
        descriptor = os.pidfd_open(self._pid)
        try:
            select.select([descriptor], [], [], seconds)
        finally:
            os.close(descriptor)

    def _bury(self) -> None:
        """Wait for the killed: the child's children are ours now (PR_SET_CHILD_SUBREAPER)."""
        deadline = time.monotonic() + _LAST_BREATH
        with contextlib.suppress(ChildProcessError):  # nobody is left
            while time.monotonic() < deadline:
                if os.waitpid(-self._pid, os.WNOHANG)[0] == 0:
                    time.sleep(0.01)


@dataclass(frozen=True)
class _Child:
    """The child's side, from fork to exit."""

    appliance: Appliance
    launcher: Launcher
    confinement: Confinement
    disks: dict[str, int]
    channel: socket.socket
    job: Callable[[Guest, Reporter], None]
    parent: int

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
            self._tell("ApplianceError", f"{type(error).__name__}: {error}", "")
        finally:
            os._exit(status)

    def _confine(self) -> None:
        _lead_group(os.getpid())
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        self._close_others()
        _forget_environment()
        os.chdir("/")
        os.umask(0o077)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.setgroups(self.confinement.identity.groups)
        os.setresgid(*[self.confinement.identity.gid] * 3)
        os.setresuid(*[self.confinement.identity.uid] * 3)
        _PRCTL(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        _die_with(self.parent)
        scratch = str(self.confinement.directory / "scratch")
        os.environ.update(
            PATH="/usr/sbin:/usr/bin:/sbin:/bin",
            LC_ALL="C.UTF-8",
            HOME=scratch,
            TMPDIR=scratch,
            XDG_RUNTIME_DIR=scratch,  # where libguestfs puts its sockets (guestfs(3))
            SNF_DISKS=str(self.confinement.directory / "scratch" / "disks"),
        )

    def _close_others(self) -> None:
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)
        kept = {0, 1, 2, self.channel.fileno(), *self.disks.values()}
        for name in os.listdir("/proc/self/fd"):
            if int(name) not in kept:
                with contextlib.suppress(OSError):
                    os.close(int(name))

    def _work(self) -> None:
        with _served(os.environ["SNF_DISKS"], self.disks):
            reporter = Reporter([StreamSink(os.dup(self.channel.fileno()))])
            with reporter.phase("appliance"):
                guest = guest_module.start(
                    self.appliance,
                    self.launcher,
                    self.confinement.directory / "launcher",
                    self.confinement.directory / "scratch",
                    [
                        self.confinement.directory / name
                        for name in map(os.path.basename, self.disks)
                    ],
                )
        if self.channel.recv(1) != b"g":
            return
        self.job(guest, reporter)
        with reporter.phase("close"):
            guest.close()
        self._tell(None, "", "")

    def _tell(self, error: str | None, message: str, remedy: str) -> None:
        line = json.dumps({"type": "result", "error": error, "message": message, "remedy": remedy})
        with contextlib.suppress(OSError):
            self.channel.sendall(line.encode() + b"\n")


@contextlib.contextmanager
def _served(address: str, disks: dict[str, int]) -> Iterator[None]:
    """Hand the disks' descriptors to the one launcher that connects, while the block runs."""
    server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    server.bind(address)
    server.listen(1)
    parent, child = os.getpid(), os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            _die_with(parent)
            connection, _ = server.accept()
            socket.send_fds(connection, ["\0".join(disks).encode()], list(disks.values()))
        os._exit(0)
    server.close()
    try:
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.unlink(address)


def identity(user: str, groups: Sequence[str]) -> Identity:
    """The numbers of an unprivileged user. Raises ApplianceError for root, and for nobody."""
    try:
        entry = pwd.getpwnam(user)
        members = tuple(grp.getgrnam(group).gr_gid for group in groups)
    except KeyError as error:
        raise ApplianceError(
            f"the appliance's user {user!r} or a group it needs ({', '.join(groups) or 'none'}) "
            "does not exist on this node",
            remedy='run "snf appliance build", which makes the user',
        ) from error
    if entry.pw_uid == 0:
        raise ApplianceError(
            f"the appliance must not run as {user!r}, which is root",
            remedy="set [appliance] user to an unprivileged user",
        )
    return Identity(entry.pw_uid, entry.pw_gid, members)


def _die_with(parent: int) -> None:
    """Be killed when the parent dies (prctl(2)), or now if it is dead already."""
    _PRCTL(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _forget_environment() -> None:
    """Empty the environment, and /proc/PID/environ with it: it may hold a password."""
    os.environ.clear()
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = int(fields[47]), int(fields[48])  # env_start and env_end in proc(5)
    ctypes.memset(start, 0, end - start)


def _lead_group(pid: int) -> None:
    """Give the child a process group of its own. Called on both sides, so that neither waits."""
    with contextlib.suppress(PermissionError, ProcessLookupError):
        os.setpgid(pid, pid)


def _furnish(confinement: Confinement, launcher: Launcher, disks: int) -> list[Path]:
    """Put the launcher, a placeholder per disk and a scratch directory into the private one."""
    directory, owner = confinement.directory, confinement.identity
    os.chown(directory, 0, owner.gid)
    directory.chmod(0o710)
    program = directory / "launcher"
    program.write_text(launcher.program)
    program.chmod(0o755)
    scratch = directory / "scratch"
    scratch.mkdir(mode=0o700)
    os.chown(scratch, owner.uid, owner.gid)
    placeholders = [directory / f"disk{index}" for index in range(disks)]
    for placeholder in placeholders:
        placeholder.touch(mode=0o644)
        placeholder.chmod(0o644)
    return placeholders
