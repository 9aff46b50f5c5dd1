"""EnableConsole: a login on the console that Xen gives its guests."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from snf_core.contract import Task
from snf_os_linux import inspection, systemd
from snf_os_linux.boot import XEN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from snf_core.image.customization import Customization
    from snf_core.image.guest import Guest

CONSOLE = "hvc0"
"""Xen's paravirtual console in Linux; hardware-assisted guests have it, too."""

SECURETTY = "/etc/securetty"
INITTAB = "/etc/inittab"

_GETTYS = ("/sbin/getty", "/sbin/agetty", "/usr/sbin/getty", "/usr/sbin/agetty")
_GENERATOR = "systemd-getty-generator"
_MASKS = (
    f"/etc/systemd/system-generators/{_GENERATOR}",
    f"{systemd.UNITS}/serial-getty@.service",
    f"{systemd.UNITS}/serial-getty@{CONSOLE}.service",
)
_OTHERS = (f"/etc/init/{CONSOLE}.conf", f"/etc/runit/runsvdir/default/agetty-{CONSOLE}")
"""What upstart and runit start a login on the console by."""


class EnableConsole(Task):
    """See to it that guests of Xen ask for a login on their console, root's included."""

    api_version = "1.0"

    def run(self, guest: Guest, request: Customization) -> Iterator[str]:
        """Add it where init's table or securetty(5) lacks it; warn where none is to be had."""
        if request.hypervisor not in XEN:
            return
        if systemd.present(guest):
            yield from _masked(guest)
        elif not guest.statuses(_OTHERS) and not _added(guest):
            yield f"it is not known how this guest asks for a login on its console, {CONSOLE}"
        _admit_root(guest)


def _masked(guest: Guest) -> Iterator[str]:
    """systemd-getty-generator(8) asks on hvc0 wherever there is one, if it is let."""
    targets = guest.link_targets(_MASKS)
    masked = [path for path in _MASKS if targets.get(path) == "/dev/null"]
    if masked:
        yield (
            f"the guest will not ask for a login on its console, {CONSOLE}: {masked[0]} is masked; "
            "remove that link from the image"
        )


def _added(guest: Guest) -> bool:
    """Whether inittab(5) starts a login there, now at least. An upstart's starts nothing."""
    table = inspection.text(guest, INITTAB)
    active = [line for line in table.split("\n") if not line.lstrip().startswith("#")]
    if not any(":respawn:" in line for line in active):
        return False
    if any(re.search(rf"\b{CONSOLE}\b", line) for line in active):
        return True
    found = guest.statuses(_GETTYS)
    getty = next((path for path in _GETTYS if path in found), "")
    if not getty or not guest.is_file(INITTAB):
        return False
    ending = "" if table.endswith("\n") else "\n"
    # The identifier is that of sysvinit, and the terminal of busybox's init.
    line = f"{CONSOLE}:2345:respawn:{getty} -L 115200 {CONSOLE} vt100\n"
    guest.write(INITTAB, table + ending + line)
    return True


def _admit_root(guest: Guest) -> None:
    """Name the console in securetty(5), where that names any terminal."""
    text = inspection.text(guest, SECURETTY) if guest.is_file(SECURETTY) else ""
    names = [line.strip() for line in text.split("\n")]
    if any(names) and CONSOLE not in names:
        ending = "" if text.endswith("\n") else "\n"
        guest.write(SECURETTY, f"{text}{ending}{CONSOLE}\n")
