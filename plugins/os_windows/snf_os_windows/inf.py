"""Setup information files (sysprep.inf, CmdLines.txt): sections of ``Key = value``, and lines.

What is not changed stays byte for byte: comments, order, line ends, encoding. Names of sections
and keys are without regard to case; of several that state one key, the setup reads the first.
configparser keeps nothing of that.
"""

from __future__ import annotations

import codecs
import re
from typing import TYPE_CHECKING

from snf_core.errors import InvalidValueError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

LIMIT = 256 << 10
"""Bytes at most."""

_SECTION = re.compile(r"\s*\[([^\]]*)\]")
_VALUE = re.compile(r'\s*(?:"(?P<quoted>[^"]*)"|(?P<plain>[^;]*))')
_MARKS = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF8: "utf-8"}


class Inf:
    """A file, as its lines."""

    def __init__(self, lines: list[str], mark: bytes, encoding: str, what: str) -> None:
        self._lines = lines
        self._mark = mark
        self._encoding = encoding
        self._what = what

    @classmethod
    def parse(cls, content: bytes, what: str = "the file", *, remedy: str = "") -> Self:
        """Read a file: UTF-16 or UTF-8 where it begins with a mark that says so, else bytes.

        Raises InvalidValueError for what is no text, or larger than LIMIT.
        """
        if len(content) > LIMIT:
            raise InvalidValueError(f"{what} is larger than {LIMIT} bytes", remedy=remedy)
        mark = next((mark for mark in _MARKS if content.startswith(mark)), b"")
        encoding = _MARKS.get(mark, "latin-1")  # a code page of Windows: each byte as it is
        try:
            text = content.removeprefix(mark).decode(encoding)
        except UnicodeDecodeError:
            text = "\0"
        if "\0" in text:
            raise InvalidValueError(f"{what} is not text", remedy=remedy)
        # Not splitlines, which knows line ends that are none here.
        return cls([line for line in re.split(r"(?<=\n)", text) if line], mark, encoding, what)

    def serialize(self) -> bytes:
        """The file, in the encoding that it had."""
        return self._mark + "".join(self._lines).encode(self._encoding)

    def sections(self) -> list[str]:
        """The names of the sections, in lower case, in order; one may be there twice."""
        return [name for line in self._lines if (name := _section(line)) is not None]

    def get(self, section: str, key: str) -> str | None:
        """What a key states, without quotes or a comment; None where it is not there."""
        for index in self._inside(section):
            if _key(self._lines[index]) == key.lower():
                return _value(self._lines[index])
        return None

    def set(self, section: str, key: str, value: str) -> None:
        """State a key, in place where it is there, else at the end of its section.

        Raises InvalidValueError for a value that the file's encoding cannot hold.
        """
        self._check(value)
        line = f"{key}={value}"
        for index in self._inside(section):
            if _key(self._lines[index]) == key.lower():
                old = self._lines[index]
                self._lines[index] = line + old[len(old.rstrip("\r\n")) :]
                return
        self._append(section, line)

    def add_line(self, section: str, line: str) -> None:
        """Add a line to a section, once; without regard to case."""
        self._check(line)
        present = {self._lines[index].strip().lower() for index in self._inside(section)}
        if line.lower() not in present:
            self._append(section, line)

    def _append(self, section: str, line: str) -> None:
        """Put a line behind the last of its section that is not blank; make the section."""
        end = "\r\n" if not self._lines or any(x.endswith("\r\n") for x in self._lines) else "\n"
        if self._lines and not self._lines[-1].endswith("\n"):
            self._lines[-1] += end
        place = self._end_of(section)
        if not place:
            self._lines.append(f"[{section}]{end}")
            place = len(self._lines)
        self._lines.insert(place, line + end)

    def _end_of(self, section: str) -> int:
        """Where a line of a section is to be inserted; 0 where there is no such section."""
        place = 0
        for index, line in enumerate(self._lines):
            name = _section(line)
            if place and name is not None:
                break
            if name == section.lower() or (place and line.strip()):
                place = index + 1
        return place

    def _inside(self, section: str) -> Iterator[int]:
        """The lines of a section, wherever parts of it are."""
        current: str | None = None
        for index, line in enumerate(self._lines):
            name = _section(line)
            if name is not None:
                current = name
            elif current == section.lower():
                yield index

    def _check(self, value: str) -> None:
        try:
            value.encode(self._encoding if self._mark else "ascii")
        except UnicodeEncodeError:
            raise InvalidValueError(f"{self._what} cannot hold what is to be stated") from None
        if not value.isprintable():
            raise InvalidValueError(f"{self._what} cannot hold control characters")


def _section(line: str) -> str | None:
    """The section that a line begins, in lower case; None for any other line."""
    found = _SECTION.match(line)
    return found[1].strip().lower() if found else None


def _key(line: str) -> str:
    """The key that a line states, in lower case; empty for a comment."""
    key, equals, _ = line.partition("=")
    return key.strip().lower() if equals and not key.lstrip().startswith(";") else ""


def _value(line: str) -> str:
    """The value that a line states, without quotes and without the comment behind it."""
    found = _VALUE.match(line.partition("=")[2])
    return (found["quoted"] or found["plain"] or "").strip() if found else ""
