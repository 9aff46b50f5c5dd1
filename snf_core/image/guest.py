"""The Guest facade: the only door to a guest's disk, and the only module that imports guestfs.

All that is read or written goes through the isolated appliance (guestfs(3)). Files of the guest
are written atomically, keep owner, mode and SELinux label, and never go through a symbolic link
of the guest's making; the guest's programs are never run.

Every method raises GuestError if the operation fails and ApplianceError if the appliance died.
"""

from __future__ import annotations

import collections
import os
import posixpath
from typing import TYPE_CHECKING

from snf_core.errors import ApplianceError, GuestError
from snf_core.image.registry import Registry
from snf_core.image.status import absolute

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from snf_core.appliance import Appliance, Launcher

_CONSOLE_CHUNKS = 50


def start(
    appliance: Appliance,
    launcher: Launcher,
    program: Path,
    directory: Path,
    disks: Mapping[Path, int],
) -> Guest:
    """Start an appliance with ``disks`` and return the guest on the first of them.

    ``program`` is the launcher's program on disk; ``directory`` a private one for sockets and
    temporary files; ``disks`` are in the order in which the appliance sees them, with their bytes.
    The caller is expected to be unprivileged already. Takes seconds. Raises ApplianceError.
    """
    import guestfs

    handle = guestfs.GuestFS(python_return_dict=True)
    handle.set_path(str(appliance.directory))
    handle.set_backend("direct")
    for setting in launcher.settings:
        handle.set_backend_setting(setting, "1")
    handle.set_hv(str(program))
    handle.set_tmpdir(str(directory))
    handle.set_cachedir(str(directory))
    handle.set_memsize(launcher.memory)
    handle.set_smp(1)
    handle.set_network(False)
    handle.set_autosync(True)
    # libguestfs's own watchdog would outlive us by seconds; QEMU dies with this process anyway.
    handle.set_recovery_proc(False)
    handle.set_identifier("snf")
    for disk in disks:
        # Whoever hands the disks out makes them durable when all is done, and not before.
        handle.add_drive_opts(str(disk), format="raw", readonly=False, cachemode="unsafe")
    console: collections.deque[bytes] = collections.deque(maxlen=_CONSOLE_CHUNKS)
    handle.set_event_callback(
        lambda _event, _handle, chunk, _array: console.append(chunk), guestfs.EVENT_APPLIANCE
    )
    try:
        handle.launch()
    except RuntimeError as error:
        handle.close()
        # libguestfs's further lines are advice to its own users.
        words = _last_words(console) or str(error).partition("\n")[0]
        raise ApplianceError(
            f"the appliance did not start: {words}",
            remedy='run "snf doctor" on the node',
        ) from error
    names = (f"/dev/sd{chr(ord('a') + index)}" for index in range(len(disks)))
    return Guest(handle, dict(zip(names, disks.values(), strict=True)))


def _last_words(console: Iterable[bytes]) -> str:
    """The last lines of what QEMU and the appliance's console printed, if anything."""
    lines = (
        b"".join(chunk if isinstance(chunk, bytes) else str(chunk).encode() for chunk in console)
        .decode(errors="replace")
        .split("\n")
    )
    return "; ".join([line.strip() for line in lines if line.strip()][-3:])


class Guest(Registry):
    """A guest's disks and files, opened in a running appliance. ``/dev/sda`` is the first disk."""

    # -- mounting ---------------------------------------------------------------------------

    def mount(
        self, device: str, mountpoint: str, options: str = "", *, read_only: bool = False
    ) -> None:
        """Mount a file system on an existing directory, which no symbolic link leads to.

        Device nodes and set-user-id bits in it have no effect.
        """
        mountpoint = absolute(mountpoint)
        if mountpoint != "/":
            # The appliance's mount(8) would follow a link out of the guest.
            self._checked_parent(posixpath.join(mountpoint, "."))
        words = ["ro" if read_only else "rw", "nodev", "nosuid", *filter(None, [options])]
        self._mount(",".join(words), device, mountpoint)
        self._safe.clear()
        self._windows = False

    def mount_windows(self, device: str, *, read_only: bool = False, recover: bool = False) -> None:
        """Mount an NTFS volume at ``/``, where names are found without regard to case.

        Names that Windows could not use are refused. What ``ntfs_state`` finds unclean is written
        to only with ``recover``: its journal is then dropped, and with it what Windows wrote last.
        What is hibernated can be mounted ``read_only`` alone. Raises GuestError otherwise.
        """
        words = ["ro" if read_only else "rw", "nodev", "nosuid", "ignore_case", "windows_names"]
        words.append("recover" if recover else "norecover")
        # Of the drivers, it is the one that looks names up as Windows does.
        self._mount(",".join(words), device, "/", "lowntfs-3g")
        self._safe.clear()
        self._windows = True
        # What the driver would rather not write to, it mounts all the same.
        if not read_only and self._call("statvfs", "/")["flag"] & os.ST_RDONLY:
            self.unmount_all()
            raise GuestError(
                f"the NTFS file system on {device} cannot be written to: Windows was not shut "
                "down, or is hibernated",
                remedy="shut the template down fully (shutdown /s /t 0), and copy its disk again",
            )

    def unmount_all(self) -> None:
        """Unmount everything. All that was written is on the disks then: the kernel sees to it."""
        self._safe.clear()
        self._windows = False
        self._call("umount_all")
