"""xenstore, through Xen's own tools xenstore-read(1), xenstore-ls(1) and xenstore-write(1).

A path without a slash in front is below the directory of the calling domain, dom0 as a rule.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from snf_core.errors import CommandError
from snf_core.run import run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_PLACES = ("/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin")
"""Where distributions' packages of Xen have the tools, and what is built from its source."""

_TIMEOUT = 5
"""Seconds. A script that libxl calls is killed after 40."""

_REMEDY = "is xenstored running on this node?"


class Xenstore:
    """The xenstore of this node."""

    def __init__(self, places: Sequence[str] = _PLACES) -> None:
        """``places``: the directories where the tools may be."""
        self._places = places

    def read(self, path: str) -> str | None:
        """A key's value, or None where there is no such key.

        What is not printable ASCII is as the tool shows it, after backslashes. Raises
        CommandError, DeadlineError.
        """
        found = self._asked("xenstore-read", path, absent="couldn't read path")
        return None if found is None else found.removesuffix("\n")

    def tree(self, path: str) -> dict[str, str]:
        """All keys below ``path``, as they are called from there on, and their values.

        Empty where there are none. Values are as with ``read``. Raises CommandError,
        DeadlineError.
        """
        found = self._asked("xenstore-ls", "-f", path, absent="xs_directory")
        values = {}
        for line in (found or "").split("\n"):
            key, separator, value = line.removeprefix(f"{path.rstrip('/')}/").partition(' = "')
            if separator:
                values[key] = value.removesuffix('"')
        return values

    def write(self, values: Mapping[str, str]) -> None:
        """Set keys, in their order. Raises CommandError, DeadlineError."""
        words = [word for path, value in values.items() for word in (path, _quoted(value))]
        run([self._tool("xenstore-write"), "--", *words], timeout=_TIMEOUT, remedy=_REMEDY)

    def _asked(self, name: str, *words: str, absent: str) -> str | None:
        """What a tool says, None where it says that what it is asked for is ``absent``."""
        done = run([self._tool(name), *words], timeout=_TIMEOUT, check=False)
        if done.returncode == 0:
            return done.stdout.decode("ascii", "replace")
        said = done.stderr.decode(errors="replace").strip()
        if absent in said:
            return None
        raise CommandError(f"xenstore: {name} {words[-1]} failed: {said}", remedy=_REMEDY)

    def _tool(self, name: str) -> str:
        for place in self._places:
            path = f"{place}/{name}"
            if os.access(path, os.X_OK):
                return path
        raise CommandError(
            f"{name} is in none of {', '.join(self._places)}",
            remedy="install Xen's tools for xenstore (package xenstore-utils)",
        )


def _quoted(value: str) -> str:
    """The tool understands escapes such as ``\\n`` in what it is to write."""
    return value.replace("\\", "\\\\")
