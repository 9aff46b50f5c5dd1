"""The image format "acme": a raw disk behind a header of 512 bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from snf_core.contract import Extent, Format, ImageReader
from snf_core.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Iterator

HEADER = 512
MAGIC = b"ACMEDISK"


class Headed(Format):
    """Strips the header."""

    api_version = "1.0"

    def disk(self, image: ImageReader) -> ImageReader:
        """Checks the header first: a format is stated by the user, and may be the wrong one."""
        if image.size <= HEADER or image.read(0, len(MAGIC)) != MAGIC:
            raise ImageError("the image is not of format acme", remedy="state its own format")
        return _Body(image)


class _Body(ImageReader):
    def __init__(self, image: ImageReader) -> None:
        self._image = image
        self.size = image.size - HEADER

    def extents(self) -> Iterator[Extent]:
        """Those of the image, less the header."""
        for extent in self._image.extents():
            start = max(0, extent.offset - HEADER)
            end = extent.offset + extent.length - HEADER
            if start < end:
                yield Extent(start, end - start, data=extent.data)

    def read(self, offset: int, length: int) -> bytes:
        return self._image.read(offset + HEADER, length)

    def close(self) -> None:
        self._image.close()
