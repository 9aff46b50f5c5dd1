"""A source whose method lacks a parameter."""

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

    def open(self, image_id: str) -> ImageReader:  # type: ignore[override]
        """Never asked."""
        raise NotImplementedError
