"""What lies at a path in a guest, and which paths are plain ones."""

from __future__ import annotations

import posixpath
import stat
from dataclasses import dataclass

from snf_core.errors import GuestError


@dataclass(frozen=True)
class Status:
    """What lstat(2) says of a path in the guest."""

    mode: int
    uid: int
    gid: int
    size: int

    @property
    def is_file(self) -> bool:
        """A regular file."""
        return stat.S_ISREG(self.mode)

    @property
    def is_directory(self) -> bool:
        """A directory."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_symlink(self) -> bool:
        """A symbolic link."""
        return stat.S_ISLNK(self.mode)


def absolute(path: str) -> str:
    """A normal absolute path, or GuestError."""
    unusable = "\0" in path or any("\ud800" <= character <= "\udfff" for character in path)
    if not path.startswith("/") or unusable or ".." in path.split("/"):
        raise GuestError(f"{path!r} is not a plain absolute path in the guest")
    return posixpath.normpath("/" + path.lstrip("/"))
