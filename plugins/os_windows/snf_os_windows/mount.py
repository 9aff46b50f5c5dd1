"""MountImage: the volume that Windows is installed on, if it was left as it can be written to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from snf_core.contract import Stage, Task
from snf_core.errors import GuestError
from snf_os_windows import inspection

if TYPE_CHECKING:
    from collections.abc import Iterator

    from snf_core.image.customization import Customization
    from snf_core.image.guest import Guest

FILESYSTEMS = frozenset(["ntfs", "BitLocker"])
"""As blkid(8) names what Windows may lie on."""

_REFUSALS = {
    "encrypted": (
        "is encrypted with BitLocker",
        "decrypt the template's disk (manage-bde -off C:, then wait for manage-bde -status), and "
        "take its image again",
    ),
    "hibernated": (
        "holds a hibernated Windows, or one that Fast Startup left so: what is written to it "
        "would be lost, or destroy it",
        "switch that off in the template (powercfg /h off), shut it down fully (shutdown /s /t 0), "
        "and take its image again",
    ),
    "damaged": (
        "is damaged",
        "check the template's disk (chkdsk C: /f), shut it down fully, and take its image again",
    ),
}
"""State of a volume -> what is wrong with it, and the remedy."""


class MountImage(Task):
    """Mount the system volume, and see that a Windows of the family is on it."""

    api_version = "1.0"
    stage = Stage.MOUNT
    excludable = False

    def run(self, guest: Guest, request: Customization) -> Iterator[str]:
        """Mount. Warns of what Windows itself will repair.

        Raises GuestError for volumes that are encrypted, hibernated or damaged, for one without a
        Windows that is served, and where OSFAMILY names the wrong family.
        """
        root = request.facts["root"]
        kind = guest.filesystem(root)
        if kind not in FILESYSTEMS:
            raise GuestError(
                f"{root} holds {kind or 'no file system'}, and Windows lies on NTFS",
                remedy="give the number of the partition of C: in property ROOT_PARTITION",
            )
        state = guest.ntfs_state(root)
        refused = refusal(root, state)
        if refused:
            raise refused
        if state == "unclean":
            if request.update:
                raise GuestError(
                    f"{root} was not unmounted by Windows",
                    remedy="start the instance, and shut it down from inside",
                )
            yield (
                f"{root} was not unmounted by Windows: its journal is dropped, and with it what "
                "was written last, and Windows checks it when it starts; shut the template down "
                "fully before its image is taken"
            )
            guest.mark_ntfs(root, dirty=True)
        elif guest.ntfs(root).dirty:
            yield f"{root} is due for a check, for which Windows will take its time when it starts"
        guest.mount_windows(root, recover=state == "unclean")
        if not inspection.is_installed(guest):
            raise GuestError(
                f"{root} holds no Windows",
                remedy="give the number of the partition of C: in property ROOT_PARTITION",
            )
        found = inspection.software(guest, root)
        if found.family != request.facts["family"]:
            major, minor = found.version
            raise GuestError(
                f"the guest is {found.product[:80]!r} (NT {major}.{minor}), which is not of family "
                f"{request.facts['family']}",
                remedy=f"set the property OSFAMILY to {found.family}, or leave it out",
            )
        # For those that come later, and to say what is broken before anything is written.
        inspection.facts(guest, root)


def refusal(device: str, state: str) -> GuestError | None:
    """Why a volume in such a state (``Guest.ntfs_state``) is not written to, if it is not."""
    if state not in _REFUSALS:
        return None
    problem, remedy = _REFUSALS[state]
    return GuestError(f"{device} {problem}", remedy=remedy)
