"""Linux as a family of guests: how its root file system is found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from snf_core.contract import GuestFamily
from snf_core.errors import GuestError
from snf_os_linux.distribution import OS_RELEASE

if TYPE_CHECKING:
    from snf_core.image.guest import Guest

FILESYSTEMS = frozenset(["ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "jfs", "reiserfs"])
"""Types, as blkid(8) names them, of which a root file system can be."""

CONTAINERS = {"crypto_LUKS": "encrypted (LUKS)", "LVM2_member": "a physical volume of LVM"}
"""What can hold a root file system that is not served yet."""

NO, GENERIC, SURE = 0, 1, 2


class Linux(GuestFamily):
    """Any guest with the Linux kernel and an /etc."""

    api_version = "1.0"

    def detect(self, guest: Guest, root: str | None) -> int:
        """2 where a root file system with an os-release(5) is found, without a full inspection.

        1 where ``root`` is a Linux file system with an /etc only, or where what may hold a root
        file system cannot be opened: ``root`` then says why.
        """
        if root is not None:
            return _score(guest, root) if guest.filesystem(root) in FILESYSTEMS else NO
        types = _types(guest)
        if _roots(guest, types):
            return SURE
        return GENERIC if CONTAINERS.keys() & set(types.values()) else NO

    def root(self, guest: Guest) -> str:
        """The one partition of the first disk that holds an os-release(5) and an /etc."""
        types = _types(guest)
        roots = _roots(guest, types)
        if len(roots) == 1:
            return roots[0]
        remedy = "give the number of the root partition in property ROOT_PARTITION"
        if roots:
            raise GuestError(
                f"the root partition is ambiguous: {', '.join(roots)} each hold a Linux system",
                remedy=remedy,
            )
        shut = [f"{name} is {CONTAINERS[t]}" for name, t in types.items() if t in CONTAINERS]
        if shut:
            raise GuestError(
                f"no Linux root file system lies directly on a partition: {', '.join(shut)}",
                remedy="use an image whose root file system is neither encrypted nor inside LVM",
            )
        seen = ", ".join(f"{name} ({t or 'nothing known'})" for name, t in types.items())
        raise GuestError(
            f"no Linux root file system was found on: {seen or 'no partition'}", remedy=remedy
        )


def _types(guest: Guest) -> dict[str, str]:
    """The partitions of the first disk and their file systems' types, in the disk's order."""
    devices = [f"/dev/sda{partition.number}" for partition in guest.partitions()]
    return {device: guest.filesystem(device) for device in devices}


def _roots(guest: Guest, types: dict[str, str]) -> list[str]:
    candidates = [device for device, kind in types.items() if kind in FILESYSTEMS]
    return [device for device in candidates if _score(guest, device) == SURE]


def _score(guest: Guest, device: str) -> int:
    """How much a file system looks like a Linux root. One that cannot be mounted does not."""
    try:
        guest.mount(device, "/", read_only=True)
    except GuestError:
        return NO
    try:
        if not guest.is_directory("/etc"):
            return NO
        # A link is as good: /usr, to which it leads, may be a file system of its own.
        return SURE if any(guest.status(path) for path in OS_RELEASE) else GENERIC
    finally:
        guest.unmount_all()
