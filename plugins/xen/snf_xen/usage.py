"""Which guests of this node have a disk, as the backends of their disks say in xenstore.

A disk is known by what it is and not by its name: the number of a block device, or device and inode
of a file; and loop devices by what they are made of.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from snf_core.errors import DiskError
from snf_xen import loop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from snf_xen.store import Connection

_BACKENDS = "/local/domain/0/backend"
_KINDS = ("vbd", "qdisk", "vbd3")
"""Linux's block backend, QEMU's, and that of tapdisk."""


class Identity(NamedTuple):
    """What a disk is: the number of a block device, or device and inode of a file; others 0."""

    number: int
    device: int = 0
    inode: int = 0


def identity(status: os.stat_result) -> Identity:
    """Of what has that status."""
    if stat.S_ISBLK(status.st_mode):
        return Identity(status.st_rdev)
    return Identity(0, status.st_dev, status.st_ino)


def refuse(disks: Iterable[int], connection: Connection, domid: int | None = None) -> None:
    """Raise DiskError where one of the open ``disks`` is that of a domain other than ``domid``."""
    ours = {found for disk in disks for found in known_as(identity(os.fstat(disk)))}
    for kind in _KINDS:
        for domain in connection.names(f"{_BACKENDS}/{kind}"):
            if domain == str(domid):
                continue
            for device in connection.names(f"{_BACKENDS}/{kind}/{domain}"):
                place = f"{_BACKENDS}/{kind}/{domain}/{device}"
                number = connection.read(f"{place}/physical-device") or ""
                parameters = connection.read(f"{place}/params") or ""
                if ours.intersection(identities(number, parameters)):
                    name = connection.read(f"/local/domain/{domain}/name") or f"number {domain}"
                    raise DiskError(
                        f"the disk is in use: it is disk {device} of domain {name}",
                        remedy="shut the guest down first (xl shutdown, or Ganeti's gnt-instance)",
                    )


def known_as(
    found: Identity, made_of: Callable[[int], tuple[int, int, int]] = loop.made_of
) -> Iterator[Identity]:
    """The disk itself and, if it is a loop device, what that is made of."""
    yield found
    if os.major(found.number) == 7:  # Documentation/admin-guide/devices.txt in Linux
        with contextlib.suppress(OSError):
            device, inode, number = made_of(found.number)
            yield from known_as(Identity(number) if number else Identity(0, device, inode), made_of)


def identities(number: str, parameters: str) -> set[Identity]:
    """What a backend uses: ``physical-device`` (major:minor, in hexadecimal), and ``params``.

    The latter is a path, with a driver and a colon in front for QEMU (``aio:/srv/disk``).
    """
    found: set[Identity] = set()
    major, colon, minor = number.partition(":")
    with contextlib.suppress(ValueError):
        if colon:
            found.update(known_as(Identity(os.makedev(int(major, 16), int(minor, 16)))))
    path = parameters[parameters.find("/") :] if "/" in parameters else ""
    with contextlib.suppress(OSError, ValueError):
        if path:
            found.update(known_as(identity(os.stat(path))))
    return found
