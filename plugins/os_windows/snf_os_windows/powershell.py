"""Texts in PowerShell scripts, whatever characters they hold.

A script of ours is printable ASCII: a text that anybody else chose stands in it as base64 of its
UTF-16LE form, in which no character means anything to PowerShell, and is decoded when the script
runs (``about_Quoting_Rules`` says what the alternatives would have to get right). A secret stands
in no script, as scripts get into the event log (``about_Script_Block_Logging``): it is read from a
file.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from snf_core.errors import InvalidValueError

if TYPE_CHECKING:
    from collections.abc import Iterable


def text(value: str) -> str:
    """An expression whose value is ``value``, as it is. For PowerShell 1.0 and later.

    Raises InvalidValueError, without naming it, where it is not Unicode.
    """
    return _decoded(f"'{encoded(value)}'")


def content(path: str) -> str:
    """An expression whose value is the text that a file, below the directory of Windows, holds as
    ``encoded`` gives it. White space around it does not matter.
    """
    return _decoded(f"[IO.File]::ReadAllText((Join-Path $env:SystemRoot '{path}'))")


def encoded(value: str) -> str:
    """The base64 of a text's UTF-16LE form. Raises as ``text``."""
    try:
        return base64.b64encode(value.encode("utf-16-le")).decode("ascii")
    except UnicodeEncodeError:
        raise InvalidValueError(
            "a text for the guest holds half a character", remedy="give it in UTF-8"
        ) from None


def texts(values: Iterable[str]) -> str:
    """An expression whose value is an array of texts, however many. Raises as ``text``."""
    return f"@({', '.join(text(value) for value in values)})"


def _decoded(expression: str) -> str:
    return f"([Text.Encoding]::Unicode.GetString([Convert]::FromBase64String({expression})))"
