"""MountImage: the guest's file systems, mounted as the guest would."""

from __future__ import annotations

from typing import TYPE_CHECKING

from snf_core.contract import Stage, Task
from snf_core.errors import GuestError
from snf_os_linux import fstab

if TYPE_CHECKING:
    from collections.abc import Iterator

    from snf_core.image.customization import Customization
    from snf_core.image.guest import Guest
    from snf_os_linux.fstab import Entry


class MountImage(Task):
    """Mount the root file system and those that /etc/fstab names."""

    api_version = "1.0"
    stage = Stage.MOUNT
    excludable = False

    def run(self, guest: Guest, request: Customization) -> Iterator[str]:
        """Mount. Raises GuestError naming ROOT_PARTITION or the line of /etc/fstab at fault."""
        root = request.facts["root"]
        guest.mount(root, "/")
        if not guest.is_directory("/etc"):
            raise GuestError(
                f"{root} holds no /etc directory: it is not a Linux root file system",
                remedy="give the number of the root partition in property ROOT_PARTITION",
            )
        text = guest.read("/etc/fstab")
        if text is None:
            yield "the guest has no /etc/fstab: only its root file system is mounted"
            return
        for entry in fstab.entries(text):
            try:
                _mount(guest, entry)
            except GuestError as error:
                if not entry.optional:
                    raise
                yield f"{error.message}; it is marked nofail and skipped"


def _mount(guest: Guest, entry: Entry) -> None:
    if not entry.attribute:
        raise GuestError(
            f"{entry.where}: the device has no persistent name",
            remedy="use UUID=, LABEL=, PARTUUID= or PARTLABEL= in the image's fstab",
        )
    device = guest.find_filesystem(entry.attribute, entry.value)
    if device is None:
        raise GuestError(
            f"{entry.where}: there is no such device",
            remedy="repair the image's fstab, or mark the line nofail",
        )
    try:
        guest.make_directory(entry.mountpoint)
        guest.mount(device, entry.mountpoint, _options(entry))
    except GuestError as error:
        raise GuestError(f"{entry.where}: {error.message}", remedy=error.remedy) from error


def _options(entry: Entry) -> str:
    """What of the options decides which files appear; the others are the guest's own business."""
    if entry.type not in {"btrfs", "auto"}:
        return ""
    return ",".join(o for o in entry.options if o.startswith(("subvol=", "subvolid=")))
