"""Those who look after a helper domain with the node's rights: a keeper and a reaper.

The keeper moves bytes between the domain's second console and the connection that the launcher's
program (``snf_xen.launcher``), which has no rights at all, hands it; it understands none of them.
When the program has gone, for whatever reason, it destroys the domain. The reaper is there for when
the keeper and the deployment were killed: then it does. Should it be killed, too, the domain is
found by its lock, which nobody holds (``snf_xen.domain``).
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from snf_core.errors import SnfError
from snf_xen import domain, loop, usage
from snf_xen.pump import Pump
from snf_xen.store import Connection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

_LAST_BREATH = 90.0
"""Seconds that a keeper may take to destroy its domain."""
_REAPING = 10
"""How often the reaper looks for a domain that xl, killed, may have been about to make."""
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(frozen=True)
class Helper:
    """A helper domain that can be had on this node."""

    kernel: Path
    ramdisk: Path
    root: Path
    memory: int
    """MiB."""
    directory: Path
    """Where the locks are."""
    patience: float
    """Seconds to wait for memory that other helper domains have."""
    ballooning: bool
    """Whether xl may take the memory from dom0."""

    @contextlib.contextmanager
    def attend(self, disks: Sequence[int]) -> Iterator[socket.socket]:
        """A helper domain with these open disks, while the block runs.

        What is yielded is for the launcher's program. Raises DiskError where a guest has one of the
        disks, or had at the end; ApplianceError where there is no memory; CommandError or
        DeadlineError where Xen does not make the domain.
        """
        name = f"{domain.PREFIX}{os.urandom(6).hex()}"
        deadline = time.monotonic() + self.patience
        with contextlib.ExitStack() as stack:
            with domain.turn(self.directory, deadline), Connection() as connection:
                domain.sweep(self.directory)
                usage.refuse(disks, connection)
                if not self.ballooning:
                    needed = self.memory + domain.OVERHEAD
                    domain.await_memory(needed, self.directory, deadline)
                guard = stack.enter_context(_guarded(name, self.directory / name))
                loops = stack.enter_context(_loops(self.root, disks))
                stack.callback(_destroy, name)
                paths = [made.path for made in loops]
                number = domain.create(
                    domain.Plan(name, self.kernel, self.ramdisk, self.memory, paths[0], paths[1:])
                )
                _connect(connection, number, loops)
            theirs = stack.enter_context(_kept(name, number, guard))
            yield theirs
            with Connection() as connection:
                usage.refuse(disks, connection, number)


@contextlib.contextmanager
def _guarded(name: str, file: Path) -> Iterator[int]:
    """Hold the domain's lock, and have a reaper, which is told here that the domain is gone."""
    lock = domain.lock(file)
    there, ours = os.pipe()
    reaper = _process([there, lock], lambda: _reap(name, there))
    os.close(there)
    try:
        yield ours
    finally:
        with _signals_held():
            with contextlib.suppress(OSError, SnfError):
                if name not in domain.listing():
                    os.write(ours, b"d")  # else the reaper tries once more
            os.close(ours)
            _wait(reaper)
            file.unlink(missing_ok=True)
            os.close(lock)


def _destroy(name: str) -> None:
    with _signals_held():
        domain.destroy(name)


def _reap(name: str, there: int) -> None:
    if os.read(there, 1):
        return
    for _ in range(_REAPING):
        with contextlib.suppress(SnfError):
            domain.destroy(name)
        time.sleep(0.3)


@contextlib.contextmanager
def _loops(root: Path, disks: Sequence[int]) -> Iterator[list[loop.Loop]]:
    """Loop devices of the appliance's root, to be read only, and of the disks."""
    with contextlib.ExitStack() as stack:
        opened = os.open(root, os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, opened)
        made = []
        for descriptor in (opened, *disks):
            made.append(loop.attach(descriptor))
            stack.callback(made[-1].close)
        yield made


def _connect(connection: Connection, number: int, loops: Sequence[loop.Loop]) -> None:
    """Say which devices are behind the domain's disks, and offer it a second console."""
    backends = f"/local/domain/0/backend/vbd/{number}"
    devices = {connection.read(f"{backends}/{x}/dev"): x for x in connection.names(backends)}
    for index, made in enumerate(loops):
        device = devices[domain.disk_name(index)]
        connection.write(f"{backends}/{device}/physical-device", made.number)
    ours = f"/local/domain/0/backend/console/{number}/1"
    theirs = f"/local/domain/{number}/device/console/1"
    # xenbus states 1 and 4: initialising, connected (xen/include/public/io/xenbus.h).
    values = {"frontend": theirs, "frontend-id": str(number), "online": "1", "state": "1"}
    connection.make(ours, values, owner=0, reader=number)
    values = {"backend": ours, "backend-id": "0", "state": "1"}
    connection.make(theirs, values, owner=number, reader=0)


@contextlib.contextmanager
def _kept(name: str, number: int, guard: int) -> Iterator[socket.socket]:
    """Have a keeper; a connection to it. Ends with the keeper, and so with the domain."""
    ours, theirs = socket.socketpair()
    keeper = _process([ours.fileno(), guard], lambda: _keep(name, number, ours, guard))
    ours.close()
    try:
        yield theirs
    finally:
        with _signals_held():
            theirs.close()
            _wait(keeper)


def _keep(name: str, number: int, connection: socket.socket, guard: int) -> None:
    try:
        Pump(name, number, connection).run()
    finally:
        domain.destroy(name)
        os.write(guard, b"d")


def _process(kept: Sequence[int], work: Callable[[], None]) -> int:
    """A process in a session of its own that has these descriptors and no others; its pid."""
    with _signals_held():
        child = os.fork()
        if child == 0:
            _become(kept, work)
    return child


def _become(kept: Sequence[int], work: Callable[[], None]) -> NoReturn:
    status = 1
    try:
        os.setsid()
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        null = os.open(os.devnull, os.O_RDWR)
        for standard in range(3):
            os.dup2(null, standard)
        for descriptor in set(map(int, os.listdir("/proc/self/fd"))) - {0, 1, 2, *kept}:
            with contextlib.suppress(OSError):
                os.close(descriptor)
        os.chdir("/")
        work()
        status = 0
    finally:
        os._exit(status)


def _wait(child: int) -> None:
    """Until a child has ended; kill it if it does not."""
    opened = os.pidfd_open(child)
    try:
        if not select.select([opened], [], [], _LAST_BREATH)[0]:
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    finally:
        os.close(opened)


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    held = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
