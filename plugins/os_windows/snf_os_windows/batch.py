"""Arguments in batch files, for guests without PowerShell.

A program's command line passes two readers: cmd.exe, to which some characters mean something
even between quotes (``cmd /?``), and the C runtime of the program, which splits it at blanks
that are not between quotes, and takes a backslash before a quote as an escape (Microsoft, "Parsing
C command-line arguments").
"""

from __future__ import annotations

from snf_core.errors import InvalidValueError

BEGIN = "@echo off\nsetlocal EnableExtensions DisableDelayedExpansion\n"
"""How a batch file begins in which ``argument`` is used: ``!`` means nothing then."""

_META = frozenset('()!^"<>&|')
_LIMIT = 4000
"""Characters of an argument: cmd.exe takes lines of 8191, and XP's programs less."""


def argument(value: str, what: str) -> str:
    """``value`` as one argument of a program that a batch file runs with an ``.exe`` of its own.

    Not for ``call``, ``for`` or another batch file, which would read it once more. ``what`` it is
    stands in the message: InvalidValueError, where cmd.exe cannot be told it.
    """
    if not value.isascii() or not value.isprintable():
        raise InvalidValueError(
            f"{what} holds characters that a batch file cannot, and this Windows has no PowerShell",
            remedy="use printable ASCII characters, or an image of Windows 7, Server 2008 R2 or "
            "later with PowerShell",
        )
    if len(value) > _LIMIT:
        raise InvalidValueError(f"{what} is longer than {_LIMIT} characters")
    # Even the quotes are escaped: cmd.exe never is between quotes, where a caret means itself.
    return "".join(
        "%%" if char == "%" else f"^{char}" if char in _META else char for char in _quoted(value)
    )


def _quoted(value: str) -> str:
    """As the C runtime reads it: backslashes count only where a quote follows."""
    quoted, backslashes = '"', 0
    for char in value:
        if char == "\\":
            backslashes += 1
            continue
        quoted += "\\" * (2 * backslashes + 1 if char == '"' else backslashes) + char
        backslashes = 0
    return quoted + "\\" * (2 * backslashes) + '"'
