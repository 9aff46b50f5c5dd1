"""How fast an image is copied onto a fresh sparse disk, against ``qemu-img convert``."""

from __future__ import annotations

import os
import random
import shutil
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

from snf_core.image import copy
from snf_core.image.destination.local import Local as Destination
from snf_core.image.source.local import Local as Source
from snf_core.model import Disk
from snf_core.run import run

IMAGE_SIZE = 4 << 30
EXTENTS = 64
EXTENT_SIZE = 16 << 20
DIRECTORY = "/var/tmp"
"""A real file system, unlike /tmp on many machines."""


@dataclass(frozen=True)
class Figures:
    """Seconds of each run, both copies being durable at the end of it."""

    ours: list[float] = field(default_factory=list)
    qemu_img: list[float] = field(default_factory=list)

    @property
    def speed(self) -> float:
        """Our speed in parts of qemu-img's, by the medians: 1.0 is as fast."""
        return statistics.median(self.qemu_img) / statistics.median(self.ours)

    def __str__(self) -> str:
        rows = [
            f"{name:<8} median {statistics.median(seconds):.2f} s, "
            f"min {min(seconds):.2f} s, max {max(seconds):.2f} s"
            for name, seconds in (("ours", self.ours), ("qemu-img", self.qemu_img))
        ]
        return "\n".join([*rows, f"speed    {self.speed:.2f} of qemu-img's (at least 0.80 wanted)"])


def measure(runs: int) -> Figures:
    """Copy a 4 GiB image with 1 GiB of data in 64 extents, ``runs`` times each way in turn."""
    directory = Path(tempfile.mkdtemp(prefix="snf-bench-", dir=DIRECTORY))
    figures = Figures()
    try:
        image, disk = directory / "image", directory / "disk"
        _make_image(image)
        _qemu_img(image, _fresh(disk))  # both find the image cached
        for _ in range(runs):
            figures.qemu_img.append(_qemu_img(image, _fresh(disk)))
            figures.ours.append(_ours(image, _fresh(disk)))
    finally:
        shutil.rmtree(directory)
    return figures


def _make_image(path: Path) -> None:
    generator = random.Random(1)
    with path.open("wb") as file:
        file.truncate(IMAGE_SIZE)
        for offset in range(0, IMAGE_SIZE, IMAGE_SIZE // EXTENTS):
            file.seek(offset)
            file.write(generator.randbytes(EXTENT_SIZE))


def _fresh(path: Path) -> Path:
    path.unlink(missing_ok=True)
    path.touch()
    os.truncate(path, IMAGE_SIZE)
    os.sync()  # what an earlier run left to write is not this one's
    return path


def _ours(image: Path, disk: Path) -> float:
    started = time.perf_counter()
    source = Source(SimpleNamespace(directory=str(image.parent)))
    with (
        source.open(image.name, "diskdump") as reader,
        Destination(None).open(Disk(0, path=str(disk))) as writer,
    ):
        copy.copy(reader, writer, lambda _position, _total: None)
    return time.perf_counter() - started


def _qemu_img(image: Path, disk: Path) -> float:
    started = time.perf_counter()
    run(["qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", image, disk], timeout=600)
    descriptor = os.open(disk, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return time.perf_counter() - started


if __name__ == "__main__":
    print(measure(7))
