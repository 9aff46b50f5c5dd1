"""sshd_config(5) of a guest: where keys are looked for."""

from __future__ import annotations

import fnmatch
import posixpath
import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from snf_core.errors import GuestError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from snf_core.image.guest import Guest

FILES = ("/etc/ssh/sshd_config", "/usr/etc/ssh/sshd_config")
"""The main file, and the one of distributions that keep their defaults under /usr."""

DEFAULT_KEYS_FILE = ".ssh/authorized_keys"
_SETTING = re.compile(r"\s*(\w+)(?:\s*=\s*|\s+)(.*)", re.DOTALL)


@dataclass(frozen=True)
class SshdConfig:
    """What matters here of an SSH server's configuration."""

    keys_file: str = DEFAULT_KEYS_FILE
    """The first of AuthorizedKeysFile, with its tokens; ``none`` where there is none."""
    host_keys: tuple[str, ...] = ()
    """Every HostKey named."""


def read(guest: Guest) -> SshdConfig | None:
    """The configuration outside Match blocks, inclusions followed; None where there is none."""
    texts = ((path, guest.read(path)) for path in FILES)
    path, text = next((found for found in texts if found[1] is not None), ("", None))
    if text is None:
        return None
    keys_file = ""
    host_keys: list[str] = []
    for keyword, values in _settings(guest, text, {path}):
        if keyword == "authorizedkeysfile" and values:
            keys_file = keys_file or values[0]  # the first value obtained counts
        elif keyword == "hostkey" and values:
            host_keys.append(values[0])
    return SshdConfig(keys_file or DEFAULT_KEYS_FILE, tuple(dict.fromkeys(host_keys)))


def expand(pattern: str, user: str, uid: int, home: str) -> str:
    """The path that an AuthorizedKeysFile means for a user. Raises GuestError for other tokens."""
    tokens = {"h": home, "u": user, "U": str(uid), "%": "%"}
    path = ""
    rest = iter(pattern)
    for character in rest:
        token = next(rest, "") if character == "%" else character
        if character == "%" and token not in tokens:
            raise GuestError(
                f"AuthorizedKeysFile {pattern!r} in the guest holds an unknown token",
                remedy="repair the image's sshd_config",
            )
        path += tokens[token] if character == "%" else character
    return posixpath.join(home, path)


def _settings(guest: Guest, text: str, seen: set[str]) -> Iterator[tuple[str, list[str]]]:
    """The unconditional settings of a file's text: keyword in lower case, values.

    A file is read once: a second time it could not change what was obtained from it the first.
    """
    conditional = False
    for line in text.split("\n"):
        keyword, values = _parsed(line)
        if keyword == "match":
            conditional = [value.lower() for value in values] != ["all"]
        elif conditional or not keyword:
            continue
        elif keyword == "include":
            for pattern in values:
                for included in _glob(guest, posixpath.join("/etc/ssh", pattern)):
                    if included not in seen:
                        seen.add(included)
                        yield from _settings(guest, guest.read(included) or "", seen)
        else:
            yield keyword, values


def _parsed(line: str) -> tuple[str, list[str]]:
    """The keyword, in lower case, and its values; both empty for what is no setting."""
    setting = _SETTING.match(line)
    if setting is None:
        return "", []
    try:
        return setting[1].lower(), shlex.split(setting[2], comments=True)
    except ValueError:  # a quotation that does not end; sshd refuses the line too
        return "", []


def _glob(guest: Guest, pattern: str) -> list[str]:
    """The files that match; a pattern counts in the last part of a path only."""
    if ".." in pattern.split("/"):
        return []
    directory, name = posixpath.split(pattern)
    matching = fnmatch.filter(guest.list(directory), name)
    return [posixpath.join(directory, found) for found in sorted(matching)]
