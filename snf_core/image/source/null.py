"""The ``null`` source: no image at all; the disk keeps what it holds (a clone, a snapshot)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from snf_core import contract
from snf_core.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from snf_core.contract import Extent, ImageReader


class Null(contract.Source):
    """Accepts exactly ``null``."""

    api_version = "1.0"
    priority = 30

    def accepts(self, image_id: str) -> bool:
        """Whether it is ``null``."""
        return image_id == "null"

    def open(self, image_id: str, image_format: str) -> ImageReader:
        """An image of no bytes."""
        return _Nothing()


class _Nothing(contract.ImageReader):
    size = 0

    def extents(self) -> Iterator[Extent]:
        yield from ()

    def read(self, offset: int, length: int) -> bytes:
        if length:
            raise ImageError("the null image holds nothing that could be read")
        return b""
