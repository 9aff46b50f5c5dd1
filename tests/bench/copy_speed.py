"""How fast an image is copied onto a fresh sparse disk, against ``qemu-img convert``.

Both copies are durable at the end.
"""

from __future__ import annotations

import random
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

from snf_core.image import copy
from snf_core.image.destination.local import Local as Destination
from snf_core.image.source.local import Local as Source
from snf_core.model import Disk
from tests.bench.figures import header, line, ratio
from tests.bench.place import REAL_FILE_SYSTEM, fresh, plain_copy

IMAGE_SIZE = 4 << 30
EXTENTS = 64
EXTENT_SIZE = 16 << 20


@dataclass(frozen=True)
class Figures:
    """Seconds of each run."""

    ours: list[float] = field(default_factory=list)
    qemu_img: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        speed = ratio(self.qemu_img, self.ours)
        return "\n".join(
            [
                header("copy of a 4 GiB image with 1 GiB of data in 64 extents"),
                line("ours", self.ours, f"{speed:.2f} of the speed of qemu-img (0.80 wanted)"),
                line("qemu-img convert, fsync", self.qemu_img),
            ]
        )


def measure(runs: int = 7) -> Figures:
    """Copy ``runs`` times each way in turn."""
    figures = Figures()
    with tempfile.TemporaryDirectory(prefix="snf-bench-", dir=REAL_FILE_SYSTEM) as directory:
        image, disk = Path(directory) / "image", Path(directory) / "disk"
        _make_image(image)
        plain_copy(image, fresh(disk, IMAGE_SIZE))  # both find the image cached
        for _ in range(runs):
            figures.qemu_img.append(plain_copy(image, fresh(disk, IMAGE_SIZE)))
            figures.ours.append(_ours(image, fresh(disk, IMAGE_SIZE)))
    return figures


def _make_image(path: Path) -> None:
    generator = random.Random(1)
    with path.open("wb") as file:
        file.truncate(IMAGE_SIZE)
        for offset in range(0, IMAGE_SIZE, IMAGE_SIZE // EXTENTS):
            file.seek(offset)
            file.write(generator.randbytes(EXTENT_SIZE))


def _ours(image: Path, disk: Path) -> float:
    started = time.perf_counter()
    source = Source(SimpleNamespace(directory=str(image.parent)))
    with (
        source.open(image.name, "diskdump") as reader,
        Destination(None).open(Disk(0, path=str(disk))) as writer,
    ):
        copy.copy(reader, writer, lambda _position, _total: None)
    return time.perf_counter() - started
