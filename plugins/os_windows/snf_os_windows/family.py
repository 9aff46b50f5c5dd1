"""Windows guests, which are not served yet: they are recognised, and refused clearly."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from snf_core.contract import GuestFamily, Stage, Task
from snf_core.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from snf_core.image.customization import Customization
    from snf_core.image.guest import Guest

NTFS = frozenset(
    [
        "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7",  # basic data, of a GPT
        "de94bba4-06d1-4d40-a16a-bfd50179d6ac",  # recovery, of a GPT
        *("07", "17", "27"),  # of an MBR: plain, hidden, recovery
    ]
)
"""Types of partitions in which Windows looks for NTFS; it asks nothing of others."""


class Windows(GuestFamily):
    """Windows since Vista and Server 2008 (NT 6)."""

    api_version = "1.0"
    family: ClassVar[str] = "windows"

    def detect(self, guest: Guest, root: str | None) -> int:
        """1 where the root, or any partition while no root is known, is NTFS.

        A data partition of another system may be NTFS as well; that system is surer of itself.
        """
        partitions = guest.partitions() if root is None else ()
        ours = [f"/dev/sda{part.number}" for part in partitions if part.type in NTFS]
        devices = ours if root is None else [root]
        return int(any(guest.filesystem(device) == "ntfs" for device in devices))

    def root(self, guest: Guest) -> str:
        """Raises UnsupportedError."""
        raise _unsupported(self.family)


class WindowsLegacy(Windows):
    """Windows XP and Server 2003 (NT 5)."""

    family = "windows-legacy"

    def detect(self, guest: Guest, root: str | None) -> int:
        """0: only the registry tells it from later versions. It is there for OSFAMILY to name."""
        return 0


class MountImage(Task):
    """Refuses guests that are Windows because OSFAMILY and ROOT_PARTITION say so."""

    api_version = "1.0"
    stage = Stage.MOUNT
    excludable = False

    def run(self, guest: Guest, request: Customization) -> Iterable[str]:
        """Raises UnsupportedError."""
        raise _unsupported(request.facts["family"])


def _unsupported(family: str) -> UnsupportedError:
    return UnsupportedError(
        f"guest family {family}: Windows is not served by this version of snf-os-windows",
        remedy="deploy an image of a Linux system, or set the property EXCLUDE_ALL_TASKS to yes "
        "to copy the image as it is",
    )
