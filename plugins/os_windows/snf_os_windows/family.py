"""Windows as families of guests: how the volume that it is installed on is found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar
from weakref import WeakKeyDictionary

from snf_core.contract import GuestFamily
from snf_core.errors import GuestError
from snf_os_windows import inspection, mount

if TYPE_CHECKING:
    from snf_core.image.guest import Guest

DISK = "/dev/sda"

ROOTS = frozenset(
    [
        "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7",  # basic data, of a GPT
        "07",  # of an MBR
    ]
)
"""Types of partitions on which Windows is installed; its recovery environment is on others."""

NO, GENERIC, SURE = 0, 1, 2

_REMEDY = "give the number of the partition of C: in property ROOT_PARTITION"


@dataclass(frozen=True)
class Found:
    """What lies on a volume that may hold Windows."""

    family: str = ""
    """``windows`` or ``windows-legacy`` where Windows is installed on it."""
    problem: GuestError | None = None
    """Why nothing can be told of it, or of the Windows on it, where that is so."""


NOTHING = Found()

_looked_at: WeakKeyDictionary[Guest, dict[str, Found]] = WeakKeyDictionary()


class Windows(GuestFamily):
    """Windows since Vista and Server 2008 (NT 6)."""

    api_version = "1.0"
    name: ClassVar[str] = "windows"
    plaintext_password = True
    grows = frozenset(["ntfs"])

    def detect(self, guest: Guest, root: str | None) -> int:
        """2 where a volume holds a Windows of this family, as its registry tells.

        1 where ``root``, or a volume while no root is known, may hold one, of whatever family,
        and cannot be looked into: ``root`` or MountImage then say why. A volume of NTFS without
        Windows is none: another system's data may lie on it.
        """
        devices = _candidates(guest) if root is None else [root]
        found = [_look(guest, device) for device in devices]
        if any(one.family == self.name for one in found):
            return SURE
        return self._unsure(found)

    def root(self, guest: Guest) -> str:
        """The one partition of the first disk with a Windows, of whichever family, on it.

        Raises GuestError where there is none, or more than one.
        """
        found = {device: _look(guest, device) for device in _candidates(guest)}
        roots = [device for device, one in found.items() if one.family]
        if len(roots) == 1:
            return roots[0]
        if roots:
            raise GuestError(
                f"the root partition is ambiguous: {', '.join(roots)} each hold a Windows",
                remedy=_REMEDY,
            )
        for one in found.values():
            if one.problem:
                raise one.problem
        types = {p.number: guest.filesystem(f"{DISK}{p.number}") for p in guest.partitions(DISK)}
        seen = ", ".join(f"{DISK}{n} ({t or 'nothing known'})" for n, t in types.items())
        raise GuestError(f"no Windows was found on: {seen or 'no partition'}", remedy=_REMEDY)

    def _unsure(self, found: list[Found]) -> int:
        """One of the families alone claims what neither can tell to be its own."""
        return GENERIC if any(one.problem for one in found) else NO


class WindowsLegacy(Windows):
    """Windows XP and Server 2003 (NT 5)."""

    name = "windows-legacy"

    def _unsure(self, found: list[Found]) -> int:
        del found
        return NO


def _candidates(guest: Guest) -> list[str]:
    return [f"{DISK}{p.number}" for p in guest.partitions(DISK) if p.type in ROOTS]


def _look(guest: Guest, device: str) -> Found:
    """What lies on a volume; found out once."""
    known = _looked_at.setdefault(guest, {})
    if device not in known:
        known[device] = _looked(guest, device)
    return known[device]


def _looked(guest: Guest, device: str) -> Found:
    if guest.filesystem(device) not in mount.FILESYSTEMS:
        return NOTHING
    refused = None
    try:
        state = guest.ntfs_state(device)
        refused = mount.refusal(device, state)
        if refused and state != "hibernated":
            return Found(problem=refused)
        guest.mount_windows(device, read_only=True)
        if not inspection.is_installed(guest):
            return NOTHING
        return Found(inspection.software(guest, device).family)
    except GuestError as error:
        return Found(problem=refused or error)
    finally:
        guest.unmount_all()
