"""A kernel's links in memory, for setups that ask the node about them."""

from __future__ import annotations

from dataclasses import replace

from snf_core.errors import NetworkError
from snf_core.network.links import Links
from snf_core.network.node import Link


class FakeLinks(Links):
    """tap0, br0 with an MTU of 9000, and eth0, the way out of routing table 100."""

    def __init__(self) -> None:
        super().__init__()
        self.links = {
            "tap0": Link(7, "tap0", "tun", 1500, False, "02:00:00:00:00:01"),
            "br0": Link(2, "br0", "bridge", 9000, True, "02:00:00:00:00:02"),
            "eth0": Link(1, "eth0", "", 1500, True, "02:00:00:00:00:03"),
        }
        self.default_routes = {(100, "inet"): "eth0", (100, "inet6"): "eth0"}

    def get(self, name: str) -> Link | None:
        """The link."""
        return self.links.get(name)

    def rename(self, old: str, new: str) -> None:
        """As the kernel does."""
        if new in self.links:
            raise NetworkError(f"{old} cannot be called {new}: another interface has that name")
        self.links[new] = replace(self.links.pop(old), name=new)

    def default_route(self, table: int, family: str) -> str | None:
        """Its device."""
        return self.default_routes.get((table, family))
