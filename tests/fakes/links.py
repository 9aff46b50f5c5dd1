"""A kernel's links in memory."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from snf_core.errors import NetworkError
from snf_core.network.links import Links
from snf_core.network.node import Link

if TYPE_CHECKING:
    from snf_core.network.state import Value


class FakeLinks(Links):
    """tap0, and br0 with an MTU of 9000. ``broken`` attributes cannot be set."""

    def __init__(self) -> None:
        super().__init__()
        self.links = {
            "tap0": Link(7, "tap0", "tun", 1500, False, "02:00:00:00:00:01"),
            "br0": Link(2, "br0", "bridge", 9000, True, "02:00:00:00:00:02"),
            "eth0": Link(1, "eth0", "", 1500, True, "02:00:00:00:00:03"),
        }
        self.calls: list[tuple[str, str, Value]] = []
        self.broken: set[tuple[str, Value]] = set()

    def get(self, name: str) -> Link | None:
        """The link."""
        return self.links.get(name)

    def set(self, name: str, attribute: str, value: Value) -> None:
        """Set it, unless it is broken or gone."""
        self.calls.append((name, attribute, value))
        if name not in self.links or (attribute, value) in self.broken:
            raise NetworkError(f"{name}: {attribute} cannot be set to {value}")
        changes: dict[str, Any] = {attribute: value}
        self.links[name] = replace(self.links[name], **changes)
