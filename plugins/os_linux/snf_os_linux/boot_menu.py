"""The boot menus of a guest: what a boot loader reads there, and what they pass to the kernel."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, NamedTuple

from snf_os_linux import inspection

if TYPE_CHECKING:
    from collections.abc import Iterator

    from snf_core.image.guest import Guest

MENUS = (
    "/boot/grub/grub.cfg",
    "/boot/grub2/grub.cfg",
    "/boot/grub/menu.lst",
    "/boot/grub/grub.conf",
    "/boot/extlinux/extlinux.conf",
    "/boot/extlinux.conf",
)
"""Where GRUB 2, GRUB 1 and EXTLINUX keep theirs, and Xen's pygrub looks for them."""

_ENTRIES = "/boot/loader/entries"
"""Boot Loader Specification entries, which GRUB's blscfg reads."""

_UNSTABLE = re.compile(r"/dev/((?:xv|[hsv])d)[a-z]+[0-9]*")
_STARTS = re.compile(r"\s*linux(16|efi)?\s", re.MULTILINE)
_BLSCFG = re.compile(r"\s*blscfg\s*$", re.MULTILINE)


class Naming(NamedTuple):
    """A place where a partition has a name that depends on the hypervisor."""

    where: str
    """File and line, for messages."""
    name: str
    """For example ``/dev/sda1``."""


def existing(guest: Guest) -> list[str]:
    """The menus that there are, links among them included."""
    found = inspection.present(guest, MENUS)
    return [path for path in MENUS if path in found]


def is_elsewhere(guest: Guest, menu: str) -> bool:
    """Whether a menu of GRUB 2 starts no kernel itself, but what blscfg finds."""
    text = inspection.text(guest, menu)
    return bool(_BLSCFG.search(text)) and not _STARTS.search(text)


def foreign(guest: Guest, disk_name: str) -> Iterator[Naming]:
    """Names of the root or the swap that the guest's kernel will not know: the first of each menu.

    ``disk_name`` is what it calls the guest's disk.
    """
    for path in (*existing(guest), *inspection.dropins(guest, [_ENTRIES], ".conf")):
        yield from itertools.islice(_in_menu(guest, path, disk_name), 1)
    for number, line in _lines(guest, "/etc/fstab"):
        fields = line.split()
        of_interest = len(fields) > 2 and (fields[1] == "/" or fields[2] == "swap")
        if of_interest and _is_foreign(fields[0], disk_name):
            yield Naming(f"/etc/fstab line {number}", fields[0])


def _in_menu(guest: Guest, path: str, disk_name: str) -> Iterator[Naming]:
    for number, line in _lines(guest, path):
        for word in line.split():
            if word.startswith("root=") and _is_foreign(word[5:], disk_name):
                yield Naming(f"{path} line {number}", word[5:])


def _lines(guest: Guest, path: str) -> Iterator[tuple[int, str]]:
    """The lines of a file that are no comments, with their numbers."""
    for number, line in enumerate(inspection.text(guest, path).split("\n"), 1):
        if not line.lstrip().startswith("#"):
            yield number, line


def _is_foreign(name: str, disk_name: str) -> bool:
    """Whether a disk is named as on another kind of bus than ``disk_name``."""
    named, known = _UNSTABLE.fullmatch(name), _UNSTABLE.fullmatch(disk_name)
    return named is not None and known is not None and named[1] != known[1]
