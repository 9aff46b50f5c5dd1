"""What setups may ask of the node: its links, each read once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from snf_core.errors import NetworkError

if TYPE_CHECKING:
    from snf_core.network.links import Links


@dataclass(frozen=True)
class Link:
    """A network interface of the host, as the kernel describes it."""

    index: int
    """The kernel's number of it; never used again in this network namespace while it is up."""
    name: str
    kind: str
    """``bridge``, ``tun`` (taps too), ``veth``...; empty for hardware."""
    mtu: int
    """Bytes."""
    up: bool
    """Administratively up."""
    address: str
    """MAC address; empty where the link has none."""
    master: str | None = None
    """The bridge it is a port of."""


class Node:
    """Answers about the node this runs on. What was answered once stays the answer."""

    def __init__(self, links: Links) -> None:
        self._links = links
        self._known: dict[str, Link | None] = {}

    def link(self, name: str) -> Link | None:
        """The interface ``name``, or None where there is none. Raises NetworkError."""
        if name not in self._known:
            self._known[name] = self._links.get(name)
        return self._known[name]

    def bridge(self, name: str) -> Link:
        """The bridge ``name``. Raises NetworkError where it does not exist or is none."""
        link = self.link(name)
        if link is None:
            raise NetworkError(
                f"bridge {name} does not exist on this node",
                remedy=f"create it (ip link add {name} type bridge), or correct the NIC's link",
            )
        if link.kind != "bridge":
            raise NetworkError(
                f"{name} is not a bridge but {link.kind or 'a hardware interface'}",
                remedy="give the NIC the name of a bridge as its link",
            )
        return link
