"""How much memory a whole deployment holds beside QEMU's.

Sampled while it runs: the proportional set sizes (smaps_rollup in proc(5)) of the script's process
and of all that descend from it, QEMU excepted, added up; a page that several share counts once.
Files that were read into the page cache belong to nobody, and are not in it.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.place import fresh

if TYPE_CHECKING:
    from tests.bench.place import Place

INTERVAL = 0.01
"""Seconds between samples, beside what a sample takes: phases last some hundredths."""


def peak(place: Place) -> float:
    """MiB: the largest sum of one deployment."""
    disk = fresh(place.disks / "disk0")
    script = place.node.script("create", place.environment(disk))
    largest = 0
    while script.poll() is None:
        largest = max(largest, sum(_held(pid) for pid in _family(script.pid)))
        time.sleep(INTERVAL)
    _, said = script.communicate()
    if script.returncode != 0:
        raise RuntimeError(f"the deployment failed: {said.decode()}")
    return largest / 1024


def _family(pid: int) -> list[int]:
    """A process and its descendants, without QEMU."""
    found = [pid]
    for entry in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in _read(entry).split():
            found += _family(int(child))
    return [member for member in found if "qemu" not in _read(Path(f"/proc/{member}/comm"))]


def _held(pid: int) -> int:
    """KiB that a process holds: its own pages, and its part of those that it shares."""
    lines = _read(Path(f"/proc/{pid}/smaps_rollup")).splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def _read(file: Path) -> str:
    """The text of a file of proc(5); empty where the process has ended."""
    try:
        return file.read_text()
    except OSError:
        return ""
