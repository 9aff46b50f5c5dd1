"""Looking at a guest's files for a check, which fails nothing: what cannot be read is not there."""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING

from snf_core.errors import GuestError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from snf_core.image.guest import Guest

MOST = 32
"""Files of one directory that are read at most."""

_ASSIGNMENT = re.compile(r"\s*(\w+)(\+?)=\s*(\"[^\"]*\"|'[^']*'|\S*)")


def text(guest: Guest, path: str) -> str:
    """The text of a file; empty where there is none that can be read."""
    try:
        return guest.read(path) or ""
    except GuestError:
        return ""


def names(guest: Guest, directory: str) -> list[str]:
    """The names in a directory, sorted; none where it cannot be listed."""
    try:
        return guest.list(directory)
    except GuestError:
        return []


def present(guest: Guest, paths: Iterable[str]) -> frozenset[str]:
    """Those of the paths at which something lies, a link included."""
    try:
        return frozenset(guest.statuses(paths))
    except GuestError:
        return frozenset()


def dropins(guest: Guest, directories: Iterable[str], suffix: str = "") -> list[str]:
    """The paths of the files in directories, by name; of two of a name the later directory's."""
    found = {
        name: posixpath.join(directory, name)
        for directory in directories
        for name in names(guest, directory)
        if name.endswith(suffix)
    }
    return [found[name] for name in sorted(found)][:MOST]


def assignments(guest: Guest, paths: Iterable[str]) -> dict[str, str]:
    """What files of shell assignments set, one after the other, ``+=`` included; not evaluated."""
    values: dict[str, str] = {}
    for path in paths:
        for line in text(guest, path).split("\n"):
            if found := _ASSIGNMENT.match(line):
                name, more, value = found.groups()
                bare = value[1:-1] if value[:1] in {'"', "'"} and len(value) > 1 else value
                values[name] = values.get(name, "") + bare if more else bare
    return values
