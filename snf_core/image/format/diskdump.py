"""The ``diskdump`` format: the image is the whole disk, partition table included."""

from __future__ import annotations

from typing import TYPE_CHECKING

from snf_core import contract

if TYPE_CHECKING:
    from snf_core.contract import ImageReader


class Diskdump(contract.Format):
    """The image, byte for byte."""

    api_version = "1.0"

    def disk(self, image: ImageReader) -> ImageReader:
        """The image itself."""
        return image
