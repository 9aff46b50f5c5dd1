"""The image source "blank": ``blank:100`` is a disk of 100 MiB of zeros."""

from __future__ import annotations

from typing import TYPE_CHECKING

from snf_core.contract import Extent, ImageReader, Source
from snf_core.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Iterator


class Blank(Source):
    """Disks without an operating system."""

    api_version = "1.0"

    def accepts(self, image_id: str) -> bool:
        """By the scheme alone, so that a misspelt size is an error of this source."""
        return image_id.startswith("blank:")

    def open(self, image_id: str, image_format: str) -> ImageReader:
        """There is nothing to open, but the size to read."""
        size = image_id.removeprefix("blank:")
        if not (size.isascii() and size.isdigit() and 1 <= int(size[:8]) < 10_000_000):
            raise ImageError(
                f"image {image_id!r}: {size!r} is not a size", remedy="give a number of MiB"
            )
        return _Zeros(int(size) << 20)


class _Zeros(ImageReader):
    def __init__(self, size: int) -> None:
        self.size = size

    def extents(self) -> Iterator[Extent]:
        """One hole: nothing is copied."""
        yield Extent(0, self.size, data=False)

    def read(self, offset: int, length: int) -> bytes:
        """Asked for all the same by whoever cares for the bytes and not for holes."""
        return bytes(length)
