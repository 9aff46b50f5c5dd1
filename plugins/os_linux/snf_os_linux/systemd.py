"""What a guest's systemd would start, read from its unit directories (systemd.unit(5))."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snf_core.image.guest import Guest

UNITS = "/etc/systemd/system"
"""The administrator's units; ``systemctl enable`` makes its links here."""

_VENDOR_WANTS = (
    "/usr/lib/systemd/system/multi-user.target.wants",
    "/lib/systemd/system/multi-user.target.wants",
)
_PROGRAMS = ("/usr/lib/systemd/systemd", "/lib/systemd/systemd")


def present(guest: Guest) -> bool:
    """Whether the guest has systemd."""
    return any(guest.status(path) for path in _PROGRAMS)


def enabled(guest: Guest) -> frozenset[str]:
    """The names of the units and aliases that are enabled and not masked."""
    entries = guest.list(UNITS)
    found: set[str] = set()
    for directory in (
        *_VENDOR_WANTS,
        *(f"{UNITS}/{name}" for name in entries if name.endswith((".wants", ".requires"))),
    ):
        found.update(guest.list(directory))
    targets = guest.link_targets(f"{UNITS}/{name}" for name in entries)
    links = {posixpath.basename(path): target for path, target in targets.items()}
    masked = {name for name, target in links.items() if target == "/dev/null"}
    return frozenset(found.union(links) - masked)


def install(guest: Guest, unit: str, text: str) -> None:
    """Write a unit that is wanted by multi-user.target, and do what ``systemctl enable`` does."""
    wants = f"{UNITS}/multi-user.target.wants"
    guest.make_directory(wants)
    guest.write(f"{UNITS}/{unit}", text, mode=0o644)
    guest.symlink(f"{UNITS}/{unit}", f"{wants}/{unit}")
