"""What setups may ask of the node: its links, each read once."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from snf_core.errors import NetworkError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from snf_core.network.links import Links

_TABLE_DIRECTORIES = (Path("/usr/share/iproute2"), Path("/etc/iproute2"))
_RESERVED_TABLES = {"default": 253, "main": 254, "local": 255}  # linux/rtnetlink.h


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
    vlan_aware: bool = False
    """A bridge that tells the VLANs of its ports apart."""
    group_fwd_mask: int = 0
    """Of a bridge's port: which link-local groups (01:80:c2:00:00:0x) it passes on, as bits."""


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

    def table(self, name: str) -> int:
        """The number of a routing table, given as such or by its name (ip-route(8)).

        Raises NetworkError for a name that this node does not know.
        """
        if re.fullmatch("[0-9]{1,10}", name):
            number: int | None = int(name)
        else:
            number = table_names(_TABLE_DIRECTORIES).get(name)
        if number is None:
            raise NetworkError(
                f"routing table {name!r} is not known on this node",
                remedy=f'add the line "NUMBER {name}" to /etc/iproute2/rt_tables.d/snf.conf, or '
                "correct the NIC's link",
            )
        if not 0 < number < 1 << 32:
            raise NetworkError(
                f"{number} is not the number of a routing table",
                remedy="they go from 1 to 4294967295",
            )
        return number

    def uplink(self, table: int, family: str) -> Link | None:
        """The interface of the default route of a routing table, None where it has none.

        ``family`` is ``inet`` or ``inet6``. Raises NetworkError.
        """
        name = self._links.default_route(table, family)
        return self.link(name) if name is not None else None

    @property
    def ipv6(self) -> bool:
        """Whether the kernel has IPv6."""
        return Path("/proc/sys/net/ipv6").is_dir()

    def sysctl(self, path: str) -> str | None:
        """The kernel parameter at ``path`` below /proc/sys, None where there is none.

        Raises NetworkError.
        """
        try:
            return Path("/proc/sys", path).read_text().strip()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise NetworkError(f"sysctl {path} cannot be read: {error.strerror}") from error


def table_names(directories: Iterable[Path]) -> dict[str, int]:
    """The numbers of routing tables by their names, of iproute2's files in ``directories``.

    Those are ``rt_tables`` and ``rt_tables.d/*.conf``; of what is named twice, the last counts.
    Lines that are none are passed over, as iproute2 does.
    """
    names = dict(_RESERVED_TABLES)
    for directory in directories:
        for path in (directory / "rt_tables", *sorted(directory.glob("rt_tables.d/*.conf"))):
            if path.is_file():
                names |= _table_names(path.read_text(errors="replace"))
    return names


def _table_names(text: str) -> dict[str, int]:
    names = {}
    for line in text.splitlines():
        match line.partition("#")[0].split():
            case [number, name]:
                with contextlib.suppress(ValueError):
                    names[name] = int(number, 16 if number.startswith("0x") else 10)
    return names
