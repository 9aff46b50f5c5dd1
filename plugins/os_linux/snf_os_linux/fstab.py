"""fstab(5) of a guest: what it says, and what of it can be mounted outside the guest."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from snf_core.errors import GuestError

if TYPE_CHECKING:
    from collections.abc import Iterator

LOCAL = frozenset(
    ["auto", "btrfs", "ext2", "ext3", "ext4", "f2fs", "jfs", "msdos", "ntfs", "vfat", "xfs"]
)
"""Types of file systems that lie on a partition."""

_BY_DIRECTORY = {
    "/dev/disk/by-uuid/": "UUID",
    "/dev/disk/by-label/": "LABEL",
    "/dev/disk/by-partuuid/": "PARTUUID",
    "/dev/disk/by-partlabel/": "PARTLABEL",
}
_REMOVABLE = re.compile(r"/dev/(fd\d|floppy|cdrom|cdrw|dvd|scd\d|sr\d)|/(mnt|media)/(floppy|cdrom)")
_KERNEL = frozenset(["/dev", "/proc", "/run", "/sys"])
_OCTAL = re.compile(r"\\([0-7]{3})")
_UDEV_HEX = re.compile(r"\\x([0-9a-fA-F]{2})")


@dataclass(frozen=True)
class Entry:
    """One line of an fstab that names a file system on a partition, except the root's."""

    line: int
    """Counted from 1."""
    source: str
    """As written, for messages."""
    attribute: str
    """UUID, LABEL, PARTUUID or PARTLABEL; empty where the name is not a persistent one."""
    value: str
    mountpoint: str
    """Absolute and normal."""
    type: str
    options: tuple[str, ...]

    @property
    def optional(self) -> bool:
        """Whether the guest boots without it."""
        return "nofail" in self.options

    @property
    def where(self) -> str:
        """The entry, for messages."""
        return f"/etc/fstab line {self.line} ({self.source} on {self.mountpoint})"


def entries(text: str) -> list[Entry]:
    """The file systems to mount after the root, each after the one its mount point lies in.

    Left out: swap, network and kernel file systems, binds, removable media, ``noauto``.
    Raises GuestError for a hostile mount point and for two entries with the same one.
    """
    found: dict[str, Entry] = {}
    for entry in _parsed(text):
        other = found.setdefault(entry.mountpoint, entry)
        if other is not entry:
            raise GuestError(
                f"{entry.where} mounts over line {other.line}", remedy="repair the image's fstab"
            )
    return sorted(found.values(), key=lambda entry: entry.mountpoint.split("/"))


def _parsed(text: str) -> Iterator[Entry]:
    for number, line in enumerate(text.split("\n"), 1):
        words = [_unescaped(word) for word in re.split(r"[ \t]+", line.strip(" \t\r"))]
        if len(words) < 3 or words[0].startswith("#"):
            continue
        source, mountpoint, kind = words[:3]
        options = tuple((words[3] if len(words) > 3 else "defaults").split(","))
        if not _is_wanted(source, mountpoint, kind, options):
            continue
        attribute, value = _persistent(source)
        yield Entry(number, source, attribute, value, _checked(mountpoint, number), kind, options)


def _is_wanted(source: str, mountpoint: str, kind: str, options: tuple[str, ...]) -> bool:
    return (
        (source.startswith("/dev/") or "=" in source)
        and LOCAL.issuperset(kind.split(","))
        and not _REMOVABLE.match(source)
        and not _REMOVABLE.match(mountpoint)
        and not {"noauto", "bind", "rbind"}.intersection(options)
        and mountpoint not in {"/", "none", "swap"}
    )


def _checked(mountpoint: str, line: int) -> str:
    parts = mountpoint.split("/")
    normal = posixpath.normpath("/" + mountpoint.lstrip("/"))
    if not mountpoint.startswith("/") or ".." in parts or "\0" in mountpoint:
        raise GuestError(
            f"/etc/fstab line {line}: {mountpoint!r} is not a plain absolute path",
            remedy="repair the image's fstab",
        )
    if normal == "/" or "/" + normal.split("/")[1] in _KERNEL:
        raise GuestError(
            f"/etc/fstab line {line}: nothing can be mounted on {mountpoint!r}",
            remedy="repair the image's fstab",
        )
    return normal


def _persistent(source: str) -> tuple[str, str]:
    """The attribute and value by which a source is looked up; two empty strings for others."""
    for directory, attribute in _BY_DIRECTORY.items():
        if source.startswith(directory):
            # udev escapes what does not fit a file name: "\x20" for a blank
            name = source.removeprefix(directory)
            return attribute, _UDEV_HEX.sub(lambda match: chr(int(match[1], 16)), name)
    attribute, separator, value = source.partition("=")
    if separator and attribute in _BY_DIRECTORY.values():
        quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
        return attribute, value[1:-1] if quoted else value
    return "", ""


def _unescaped(word: str) -> str:
    """A field with its octal escapes (fstab(5): ``\\040`` for a blank) resolved."""
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), word)
