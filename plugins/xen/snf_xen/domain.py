"""Helper domains: made one at a time, found again by their names, destroyed whatever happened.

Each has a lock, a file in the runtime directory named for it, which those processes hold that look
after it. Where nobody does, the domain is a leftover: of a node that was killed process by process,
or of one that saved its domains when it was rebooted, and restored them.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from snf_core.errors import ApplianceError, CommandError, DeadlineError, SnfError
from snf_core.run import run
from snf_xen.store import Connection

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

PREFIX = "snf-appliance-"
OVERHEAD = 16
"""MiB that Xen takes for a domain beside its memory: page tables, rings, its own bookkeeping."""

_CREATION = 120.0
"""Seconds that xl may take to make a domain: others have to wait for one another in it, too."""
_DESTRUCTION = 60.0
_QUESTION = 20.0
_WATCH = 0.5
"""Seconds between two looks at what nobody tells."""


@dataclass(frozen=True)
class Plan:
    """A helper domain as xl is told to make it."""

    name: str
    kernel: Path
    ramdisk: Path
    memory: int
    """MiB."""
    root: str
    disks: Sequence[str]
    """Paths of block devices, which become xvdb and so on; the root is xvda."""

    def words(self) -> list[str]:
        """Lines of xl.cfg(5). No NIC, no screen, and nothing is started again."""
        paths = (self.root, *self.disks)
        # With a script of its own xl leaves it to that to say which device is behind a disk; this
        # one says nothing, and we say it. Xen's own takes seconds, most of them waiting.
        disks = [
            f'"vdev={disk_name(index)},access={"w" if index else "r"},backendtype=phy,'
            f'script=/bin/true,target={path}"'
            for index, path in enumerate(paths)
        ]
        extra = (
            "console=hvc0 quiet panic=1 selinux=0 TERM=dumb cryptomgr.notests "
            f"guestfs_channel=/dev/hvc1 snf_disks={len(self.disks)}"
        )
        return [
            f'name="{self.name}"',
            'type="pv"',
            f'kernel="{_plain(self.kernel)}"',
            f'ramdisk="{_plain(self.ramdisk)}"',
            f'extra="{extra}"',
            f"memory={self.memory}",
            f"maxmem={self.memory}",
            "vcpus=1",
            "vif=[]",
            f"disk=[{', '.join(disks)}]",
            *(f'on_{event}="destroy"' for event in ("poweroff", "reboot", "crash", "watchdog")),
        ]


def disk_name(index: int) -> str:
    """What the domain calls a disk; the root is the first."""
    return f"xvd{chr(ord('a') + index)}"


def _plain(path: Path) -> str:
    """xl.cfg(5) has no quotes within quotes."""
    if re.search(r'["\'\\\n]', str(path)):
        raise ApplianceError(f"{path}: Xen takes no such path", remedy="set [directories] state")
    return str(path)


def create(plan: Plan) -> int:
    """Make the domain, which runs then; its number. Raises CommandError, DeadlineError."""
    # Without -e a process of xl's would stay and wait for the end of the domain, as we do. Should
    # we be killed meanwhile, xl goes as well, and what it has made is destroyed by the reaper.
    words = ["setpriv", "--pdeathsig", "KILL", "--", "xl", "create", "-q", "-e", os.devnull]
    run([*words, *plan.words()], timeout=_CREATION, remedy="see /var/log/xen")
    number = listing().get(plan.name)
    if number is None:
        raise CommandError(f"domain {plan.name} died", remedy="see xl dmesg")
    return number


def listing() -> dict[str, int]:
    """The domains of this node, by their names. Raises CommandError, DeadlineError."""
    found = {}
    with Connection() as connection:
        for number in connection.names("/local/domain"):
            name = connection.read(f"/local/domain/{number}/name")
            if name and number.isdigit():
                found[name] = int(number)
    return found


def running() -> set[str]:
    """The names of the domains that have not shut down. Raises CommandError, DeadlineError."""
    return parse_running(run(["xl", "list"], timeout=_QUESTION).stdout.decode(errors="replace"))


def parse_running(text: str) -> set[str]:
    """Those in what ``xl list`` prints without s (shut down), c (crashed) or d (dying)."""
    found = (line.split() for line in text.splitlines()[1:])
    return {words[0] for words in found if len(words) >= 5 and not {"s", "c", "d"} & {*words[4]}}


def destroy(name: str) -> None:
    """Destroy a helper domain, if it is there, and all that is known of it.

    Raises CommandError, DeadlineError.
    """
    number = listing().get(name)
    if number is None:
        return
    done = run(["xl", "destroy", str(number)], timeout=_DESTRUCTION, check=False)
    if done.returncode != 0 and name in listing():
        said = done.stderr.decode(errors="replace").strip()
        raise ApplianceError(f"domain {name} cannot be destroyed: {said}", remedy="see xl dmesg")
    with Connection() as connection:
        connection.remove(f"/local/domain/0/backend/console/{number}")


def lock(file: Path) -> int:
    """A descriptor that holds the lock in ``file``; OSError EWOULDBLOCK where another does."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextlib.contextmanager
def turn(directory: Path, deadline: float) -> Iterator[None]:
    """One process of this node at a time looks for memory and takes it.

    So nobody counts on memory that somebody else is about to take. ``deadline`` as time.monotonic()
    has it. Raises DeadlineError.
    """
    directory.mkdir(parents=True, exist_ok=True)
    while True:
        try:
            descriptor = lock(directory / "turn")
            break
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise DeadlineError(
                    "no helper domain could be made: others are being made all the time",
                    remedy="deploy again, or less at a time",
                ) from None
            time.sleep(0.1)
    try:
        yield
    finally:
        os.close(descriptor)


def held(directory: Path) -> set[str]:
    """The names of helper domains that somebody looks after. Forgets those of which nobody does."""
    found = set()
    for file in directory.glob(f"{PREFIX}*"):
        try:
            os.close(lock(file))
            file.unlink()
        except OSError as error:
            if error.errno == errno.EWOULDBLOCK:
                found.add(file.name)
    return found


def sweep(directory: Path) -> list[str]:
    """Destroy the helper domains that nobody looks after; their names.

    To be called in one's ``turn``: nobody else begins to look after one meanwhile. Raises
    CommandError, DeadlineError.
    """
    names = left_over(listing(), held(directory))
    for name in names:
        destroy(name)
    return names


def swept(directory: Path) -> list[str]:
    """``sweep``, once it is one's turn, if that is soon. Raises CommandError, DeadlineError."""
    with turn(directory, time.monotonic() + _QUESTION):
        return sweep(directory)


def left_over(domains: Iterable[str], looked_after: set[str]) -> list[str]:
    """Those of ``domains`` that are helpers and that nobody looks after."""
    return [name for name in domains if name.startswith(PREFIX) and name not in looked_after]


def await_memory(needed: int, directory: Path, deadline: float) -> None:
    """Return when Xen has ``needed`` MiB free.

    Waits while other helper domains are there, which will give theirs back. Raises ApplianceError
    where there are none, or at ``deadline``; CommandError.
    """
    while (free := free_memory()) < needed:
        waiting = held(directory)
        if not waiting or time.monotonic() > deadline:
            others = f", and {len(waiting)} of our domains have the rest" if waiting else ""
            raise ApplianceError(
                f"Xen has {free} MiB of memory free, and the appliance needs {needed}{others}",
                remedy="shut guests down, give dom0 less (dom0_mem= on Xen's command line, or "
                "xl mem-set Domain-0), or set memory_from_dom0 if xl may take it from dom0",
            )
        time.sleep(_WATCH)


def free_memory() -> int:
    """MiB that Xen can give to domains. Raises CommandError, DeadlineError."""
    said = run(["xl", "info", "free_memory"], timeout=_QUESTION).stdout.decode().strip()
    if not said.isdigit():
        raise SnfError(f"xl info free_memory said {said!r}")
    return int(said)
