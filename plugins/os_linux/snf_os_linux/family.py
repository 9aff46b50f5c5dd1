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

DISK = "/dev/sda"

ROOTS = frozenset(
    [
        "44479540-f297-41b2-9af7-d131d5f0458a",  # x86
        "4f68bce3-e8cd-4db1-96e7-fbcaf984b709",  # x86-64
        "69dad710-2ce4-4e3c-b16c-21a1d49abed3",  # arm
        "b921b045-1df0-41c3-af44-4c6f280d3fae",  # arm64
        "c31c45e6-3f39-412e-80fb-4809c4980599",  # ppc64le
        "72ec70a6-cf74-40e6-bd49-4bda08e8f224",  # riscv64
    ]
)
"""GPT types that say: the root file system of a Linux (Discoverable Partitions Specification)."""

NEVER_ROOTS = frozenset(
    [
        "21686148-6449-6e6f-744e-656564454649",  # GRUB's second stage on a GPT
        "9e1a2d38-c612-4316-aa26-8b49521e5a8b",  # the same on PowerPC
        "c12a7328-f81f-11d2-ba4b-00a0c93ec93b",  # EFI system partition
        "bc13c2ff-59e6-4262-a352-b275fd6f7172",  # boot loader (XBOOTLDR)
        "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f",  # swap
        "e3c9e316-0b5c-4db8-817d-f92df00215ae",  # reserved by Microsoft
        *("41", "82", "ef"),  # of an MBR: PowerPC's boot loader, swap, EFI system partition
    ]
)
"""Types of partitions that hold no root file system. Those that could, as LUKS, are not here."""

NO, GENERIC, SURE = 0, 1, 2


class Linux(GuestFamily):
    """Any guest with the Linux kernel and an /etc."""

    api_version = "1.0"

    def detect(self, guest: Guest, root: str | None) -> int:
        """2 where a root file system with an os-release(5) is found, without a full inspection.

        1 where ``root`` is a Linux file system with an /etc only, where the one partition that
        can hold a system has a Linux file system, which is not looked into, or where what may
        hold a root file system cannot be opened: ``root`` then says why.
        """
        if root is not None:
            return _score(guest, root) if guest.filesystem(root) in FILESYSTEMS else NO
        types = _types(guest)
        if _roots(guest, types):
            return SURE if len(types) > 1 or _declared(guest) else GENERIC
        return GENERIC if CONTAINERS.keys() & set(types.values()) else NO

    def root(self, guest: Guest) -> str:
        """The one partition of the first disk that can hold a root file system, by its type.

        Where that leaves several: the one that holds an os-release(5) and an /etc.
        """
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


def _declared(guest: Guest) -> list[str]:
    """The partition that is a Linux root by its own type, if there is exactly one."""
    found = [p.number for p in guest.partitions(DISK) if p.type in ROOTS]
    return [f"{DISK}{found[0]}"] if len(found) == 1 else []


def _types(guest: Guest) -> dict[str, str]:
    """The partitions that can hold the root by their own types, and their file systems' types.

    In the disk's order.
    """
    table = guest.table(DISK)
    possible = [
        f"{DISK}{partition.number}"
        for partition in table.partitions
        if partition.type not in NEVER_ROOTS and not table.is_extended(partition)
    ]
    return {device: guest.filesystem(device) for device in _declared(guest) or possible}


def _roots(guest: Guest, types: dict[str, str]) -> list[str]:
    candidates = [device for device, kind in types.items() if kind in FILESYSTEMS]
    if len(types) == 1:  # it is looked into when it is mounted for good
        return candidates
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
        return SURE if guest.statuses(OS_RELEASE) else GENERIC
    finally:
        guest.unmount_all()
