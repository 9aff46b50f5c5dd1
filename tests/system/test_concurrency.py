"""Many deployments on one node at the same time, none of which can write where another does."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.system.inspection import FileSystem
from tests.system.site import PATIENCE, processes_of, status_of

if TYPE_CHECKING:
    from tests.system.guests import Images
    from tests.system.site import Site

TOGETHER = 20
_WRITABLE = os.O_WRONLY | os.O_RDWR


def test_twenty_at_once(place: Site, images: Images) -> None:
    """All succeed, though each is halted once its appliance is there until all the others are."""
    disks = [place.disk(f"one-of-many-{index}", stale=False) for index in range(TOGETHER)]
    with contextlib.ExitStack() as stack:
        # Whoever is halted must not be taken for dead.
        stack.enter_context(place.configured("hypervisor.kvm", resume_timeout="60"))
        stack.enter_context(place.configured("appliance", timeout=str(PATIENCE)))
        running = []
        for index, disk in enumerate(disks):
            environment = place.environment(disk, "linux")
            environment["INSTANCE_NAME"] = f"web{index}.example.org"
            running.append(stack.enter_context(place.started(environment)))
        appliances = _halted(place.node.runtime)
        try:
            assert len({status_of(pid)["Uid"] for pid in appliances}) == TOGETHER
            assert len({status_of(pid)["Gid"] for pid in appliances}) == TOGETHER
            _check_nothing_writable_is_shared(appliances)
        finally:
            for pid in appliances:
                os.kill(pid, signal.SIGCONT)
        outcomes = [deployment.finish() for deployment in running]
    assert [outcome.status for outcome in outcomes] == [0] * TOGETHER, outcomes
    for index, disk in enumerate(disks):
        root = FileSystem(disk, images.root.start)
        assert root.read("/etc/hostname") == f"web{index}.example.org\n"


def _halted(runtime: Path) -> set[int]:
    """The appliances of all deployments, each stopped as soon as it was seen."""
    deadline = time.monotonic() + PATIENCE
    found: set[int] = set()
    while len(found) < TOGETHER:
        assert time.monotonic() < deadline, found
        for pid, words in processes_of(runtime).items():
            if pid not in found and "-drive" in words and words[0].endswith("qemu-system-x86_64"):
                os.kill(pid, signal.SIGSTOP)
                found.add(pid)
        time.sleep(0.01)
    return found


def _check_nothing_writable_is_shared(appliances: set[int]) -> None:
    """No file that one has open for writing is open for writing in another, and no file system
    that is mounted for writing in one is mounted so in another.
    """
    owners: dict[tuple[object, ...], int] = {}
    for pid in appliances:
        for thing in _open_for_writing(pid) | _mounted_for_writing(pid):
            assert owners.setdefault(thing, pid) == pid, thing


def _open_for_writing(pid: int) -> set[tuple[object, ...]]:
    found: set[tuple[object, ...]] = set()
    for entry in Path(f"/proc/{pid}/fdinfo").iterdir():
        flags = next(line for line in entry.read_text().splitlines() if line.startswith("flags:"))
        link = f"/proc/{pid}/fd/{entry.name}"
        # Only paths: eventfds and their like share one inode, but nothing else.
        if int(flags.split()[1], 8) & _WRITABLE and os.readlink(link) not in {"/dev/null"}:
            status = os.stat(link)
            if os.readlink(link).startswith(("/", "pipe:", "socket:")):
                found.add(("file", status.st_dev, status.st_ino, os.readlink(link)))
    return found


def _mounted_for_writing(pid: int) -> set[tuple[object, ...]]:
    lines = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    mounts = [line.split() for line in lines]
    return {("mount", words[2]) for words in mounts if "ro" not in words[5].split(",")}
