"""Which distribution a guest is: os-release(5), and the older files where it is missing."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snf_core.image.guest import Guest

OS_RELEASE = ("/etc/os-release", "/usr/lib/os-release")
"""Where os-release(5) lies; the first that exists counts."""

_LEGACY = {
    "/etc/debian_version": "debian",
    "/etc/redhat-release": "rhel",
    "/etc/SuSE-release": "suse",
    "/etc/gentoo-release": "gentoo",
    "/etc/arch-release": "arch",
    "/etc/slackware-version": "slackware",
}

_ASSIGNMENT = re.compile(r"([A-Z][A-Z0-9_]*)=(.*)")
_ID = re.compile(r"[a-z0-9._-]+")


@dataclass(frozen=True)
class Distribution:
    """A distribution as it names itself."""

    id: str
    """``debian``, ``rocky``...; empty where the guest does not say."""
    like: tuple[str, ...] = ()
    """The distributions it derives from, the closest first."""
    version: str = ""

    @property
    def lineage(self) -> tuple[str, ...]:
        """Itself and what it derives from."""
        return (self.id, *self.like)


def read(guest: Guest) -> Distribution:
    """The distribution of the guest whose root file system is mounted."""
    for path in OS_RELEASE:
        text = guest.read(path)
        if text is not None:
            return _from_values(parse(text))
    found = guest.statuses(_LEGACY)
    names = (name for path, name in _LEGACY.items() if path in found and found[path].is_file)
    return Distribution(next(names, ""))


def parse(text: str) -> dict[str, str]:
    """The assignments of an os-release file, unquoted as a shell would; other lines ignored."""
    values = {}
    for line in text.splitlines():
        assignment = _ASSIGNMENT.fullmatch(line.strip())
        if assignment is None:
            continue
        try:
            words = shlex.split(assignment[2])
        except ValueError:  # a quotation that does not end
            continue
        if len(words) <= 1:
            values[assignment[1]] = words[0] if words else ""
    return values


def _from_values(values: dict[str, str]) -> Distribution:
    name = values.get("ID", "")
    like = values.get("ID_LIKE", "").split()
    return Distribution(
        # os-release(5): "linux" is what a missing ID stands for, and says as little.
        id=name if _ID.fullmatch(name) else "",
        like=tuple(word for word in like if _ID.fullmatch(word)),
        version=values.get("VERSION_ID", ""),
    )
