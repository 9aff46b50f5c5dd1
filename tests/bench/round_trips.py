"""What a call into the appliance costs, and when it pays to write many files with one.

A call on a file is a message each way; one that makes the appliance run a program costs a process
on top, which is dear under emulation. Files are written one after the other, as ``Guest.write``
does it; together, each by a message of its own; and together, as one archive that the appliance
unpacks with a program. Where the last two cross is what ``files.ARCHIVED`` should be.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from snf_core.image import files
from snf_core.image.customization import File
from tests.bench.confined import timed
from tests.bench.figures import header, line, milliseconds
from tests.bench.place import fresh, place, plain_copy

if TYPE_CHECKING:
    from collections.abc import Callable

    from snf_core.image.guest import Guest
    from snf_core.report import Reporter

    Job = Callable[[Guest, Reporter], None]
    Call = Callable[[Any], object]

REPEATED = 10
"""Calls that are timed as one: taking the time costs a part of a call."""
COUNTS = (1, 10, 100, 200)
CONTENT = "one line of a small file\n" * 20
DIRECTORY = "/var/tmp"

CALLS: dict[str, Call] = {
    "nothing (ping_daemon)": lambda handle: handle.ping_daemon(),
    "status of a file (lstatns)": lambda handle: handle.lstatns("/etc/passwd"),
    "4 KiB of a file (pread)": lambda handle: handle.pread("/etc/passwd", 4096, 0),
    "4 KiB of a disk (pread_device)": lambda handle: handle.pread_device("/dev/sda", 4096, 0),
    "a program (blockdev_getss)": lambda handle: handle.blockdev_getss("/dev/sda"),
    "a program that reads (vfs_type)": lambda handle: handle.vfs_type("/dev/sda1"),
}


NEVER, ALWAYS = 10**6, 1
SINGLY = "one after the other"
WAYS = {
    SINGLY: NEVER,
    "together": NEVER,
    "together, as an archive": ALWAYS,
}
"""How files are written, and from how many on as an archive."""


@dataclass
class Figures:
    """Milliseconds: of one call, and of so many files."""

    calls: dict[str, list[float]] = field(default_factory=dict)
    written: dict[str, list[float]] = field(default_factory=dict)

    def __str__(self) -> str:
        return "\n".join(
            [
                header("calls into the appliance", "ms each"),
                *[line(name, values) for name, values in self.calls.items()],
                header("small files written into a guest", "ms for all"),
                *[line(name, values) for name, values in self.written.items()],
                f"  an archive is used for {files.ARCHIVED} files and more",
            ]
        )


def measure(runs: int = 5) -> Figures:
    """Take all figures ``runs`` times in turn, in one appliance. Root."""
    with place() as here:
        disk = fresh(here.disks / "disk0")
        plain_copy(here.image.path, disk)
        job = _job(f"/dev/sda{here.image.root_partition}", runs)
        timeline = timed(here, here.launcher, disk, job)
    calls = {name: milliseconds(timeline.seconds(name)) for name in CALLS}
    return Figures(
        {name: [value / REPEATED for value in values] for name, values in calls.items()},
        {
            _label(count, way): milliseconds(timeline.seconds(_label(count, way)))
            for count in COUNTS
            for way in WAYS
        },
    )


def _label(count: int, way: str) -> str:
    return f"{count}, {way}"


def _job(root: str, runs: int) -> Job:
    def job(guest: Guest, reporter: Reporter) -> None:
        guest.reread("/dev/sda")
        guest.mount(root, "/")
        for run in range(runs):
            for name, call in CALLS.items():
                with reporter.phase(name):
                    for _ in range(REPEATED):
                        call(guest._handle)
            for count in COUNTS:
                for way in WAYS:
                    _write(guest, reporter, f"{DIRECTORY}/bench-{run}", way, count)
        guest.unmount_all()

    return job


def _write(guest: Guest, reporter: Reporter, prefix: str, way: str, count: int) -> None:
    """Write new files into a new directory."""
    directory = f"{prefix}-{count}-{[*WAYS].index(way)}"
    guest.make_directory(directory)
    wanted = [File(f"{directory}/{index}", CONTENT) for index in range(count)]
    files.ARCHIVED = WAYS[way]  # in this process alone, which does nothing else
    with reporter.phase(_label(count, way)):
        if way == SINGLY:
            for file in wanted:
                guest.write(file.path, file.content)
        else:
            guest.write_files(wanted)
