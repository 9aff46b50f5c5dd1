"""A setup that does nothing but set the interface up, for tests that make the rest themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from snf_core.contract import Setup
from snf_core.network.state import LINK, Item, State

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from snf_core.model import NicEvent
    from snf_core.network.node import Node


class Linked(Setup):
    """For NICs of any kind."""

    api_version = "1.0"

    def applies(self, event: NicEvent) -> bool:
        """Always."""
        return event.nic is not None

    def wanted(self, event: NicEvent, node: Node) -> State:
        """Up."""
        return State((Item(LINK, event.interface, "up", True),))


def install(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let it be found as the setup "linked", until the test is over."""
    info = directory / "linked_snf-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: linked-snf\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        f"[snf.network.setup]\nlinked = {__name__}:{Linked.__name__}\n"
    )
    monkeypatch.syspath_prepend(str(directory))
