"""How fast a sparse disk is exported into a pipe, against ``dd bs=4M``."""

from __future__ import annotations

import random
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from snf_core.image import stream
from snf_core.image.destination.local import Local as Destination
from snf_core.model import Disk
from tests.bench.figures import header, line, ratio
from tests.bench.place import REAL_FILE_SYSTEM

DISK_SIZE = 4 << 30
EXTENTS = 30
EXTENT_SIZE = 10 << 20


@dataclass(frozen=True)
class Figures:
    """Seconds of each run."""

    ours: list[float] = field(default_factory=list)
    dd: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        return "\n".join(
            [
                header("export of a 4 GiB disk with 300 MiB of data in 30 extents, into a pipe"),
                line("ours", self.ours, f"{ratio(self.dd, self.ours):.1f} times as fast as dd"),
                line("dd bs=4M", self.dd),
            ]
        )


def measure(runs: int = 5) -> Figures:
    """Export ``runs`` times each way in turn, from what is cached, to somebody who only reads."""
    figures = Figures()
    with tempfile.TemporaryDirectory(prefix="snf-bench-", dir=REAL_FILE_SYSTEM) as directory:
        disk = Path(directory) / "disk"
        _make_disk(disk)
        _dd(disk)
        for _ in range(runs):
            figures.dd.append(_dd(disk))
            figures.ours.append(_ours(disk))
    return figures


def _make_disk(path: Path) -> None:
    generator = random.Random(1)
    with path.open("wb") as file:
        file.truncate(DISK_SIZE)
        for extent in range(EXTENTS):
            file.seek(extent * (DISK_SIZE // EXTENTS))
            file.write(generator.randbytes(EXTENT_SIZE))


def _ours(disk: Path) -> float:
    started = time.perf_counter()
    with (
        _reader() as reader,
        Destination(None).open_for_reading(Disk(0, path=str(disk))) as opened,
    ):
        assert reader.stdin
        stream.export(opened, reader.stdin.fileno())
    return time.perf_counter() - started


def _dd(disk: Path) -> float:
    started = time.perf_counter()
    with _reader() as reader:
        subprocess.run(
            ["dd", f"if={disk}", "bs=4M", "status=none"], stdout=reader.stdin, check=True
        )
    return time.perf_counter() - started


def _reader() -> subprocess.Popen[bytes]:
    """It is waited for at the end of its block."""
    return subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
