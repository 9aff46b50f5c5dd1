"""Letting NTFS fill the partition that grew with the disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from snf_core.contract import Stage, Task
from snf_core.errors import GuestError
from snf_core.image import layout
from snf_os_windows import batch, cloudbase, first_boot, inspection
from snf_os_windows.first_boot import Fragment, Host

if TYPE_CHECKING:
    from collections.abc import Iterator

    from snf_core.image.customization import Customization
    from snf_core.image.guest import Guest

_EXTEND = {
    Host.POWERSHELL: first_boot.read_script("extend.ps1"),
    Host.CMD: batch.BEGIN + first_boot.read_script("extend.cmd"),
}

OFFLINE = "OFFLINE_NTFSRESIZE"
_NO_CHECK = "OFFLINE_NTFSRESIZE_NOCHECK"


def grows_offline(request: Customization) -> bool:
    """Whether NTFS grows before Windows starts: Windows XP and 2003 cannot do it themselves."""
    return request.facts["family"] == "windows-legacy" or request.properties.flag(OFFLINE)


class FilesystemResizeMounted(Task):
    """Have Windows let the file system of its own volume fill its partition, at its first boot."""

    api_version = "1.0"
    after = ("InstallUnattend",)
    needs = ("InstallUnattend",)
    resizes = True
    properties = {OFFLINE: "grow NTFS before Windows starts, and not at its first boot"}

    def run(self, guest: Guest, request: Customization) -> Iterator[str]:
        """Leave it to the first boot, where it is not done before; warn of what grew instead."""
        if grows_offline(request) or cloudbase.seeded(guest, request):
            return
        partition = layout.last_data_partition(guest.table(request.device))
        if f"{request.device}{partition.number}" != request.facts["root"]:
            yield (
                f"partition {partition.number}, which is not that of Windows, may grow with the "
                f"disk, and its file system does not: set the property {OFFLINE} to yes"
            )
        facts = inspection.facts(guest)
        first_boot.add(guest, facts, Fragment("extend", 10, _EXTEND[first_boot.host(facts)]))


class FilesystemResizeAfterUmount(Task):
    """Let NTFS fill its partition, before Windows starts."""

    api_version = "1.0"
    stage = Stage.AFTER_UNMOUNT
    resizes = True
    properties = {
        OFFLINE: "grow NTFS before Windows starts, and not at its first boot",
        _NO_CHECK: "after that, have Windows not check the file system at its first boot",
    }

    def run(self, guest: Guest, request: Customization) -> Iterator[str]:
        """Grow NTFS; warn that Windows checks it then, or that it does not.

        Raises GuestError for a volume that is to be checked before it is changed.
        """
        partition = layout.last_data_partition(guest.table(request.device))
        device = f"{request.device}{partition.number}"
        # cloudbase-init grows a file system only with its partition, which has grown already.
        offline = grows_offline(request) or cloudbase.was_seeded(guest)
        if not offline or guest.filesystem(device) != "ntfs":
            return
        volume = guest.ntfs(device)
        if volume.fills(partition.size):
            return
        if volume.dirty:
            raise GuestError(
                f"the NTFS file system on partition {partition.number} is to be checked by "
                "Windows before it can be grown",
                remedy="start the template, which checks its volume, and run sysprep again; or set "
                "the property EXCLUDE_TASK_FilesystemResizeAfterUmount, and it stays as large as "
                "it is",
            )
        guest.grow_ntfs(device)
        grown = guest.ntfs(device)
        if not grown.fills(partition.size):
            raise GuestError(
                f"the NTFS file system on partition {partition.number} has {grown.size} bytes "
                f"after it was grown to {partition.size}",
                remedy="check the image's file system (chkdsk), and whether ntfsresize grows it",
            )
        if request.properties.flag(_NO_CHECK):
            guest.mark_ntfs(device, dirty=False)
            yield (
                f"Windows does not check the file system on partition {partition.number}, which "
                f"was grown before its first boot: property {_NO_CHECK}"
            )
        else:
            yield (
                f"Windows checks the file system on partition {partition.number} at its first "
                "boot, since it was grown before"
            )
