"""The other of two sources of one name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from snf_core import contract

if TYPE_CHECKING:
    from snf_core.contract import ImageReader


class Source(contract.Source):
    """Accepts nothing."""

    api_version = "1.0"

    def accepts(self, image_id: str) -> bool:
        """Never."""
        return False

    def open(self, image_id: str, image_format: str) -> ImageReader:
        """Never asked."""
        raise NotImplementedError
