"""AssignHostname and ChangeMachineId: what tells one machine from the others of its image."""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING

from snf_core.contract import Task
from snf_core.errors import InvalidValueError, TaskError
from snf_core.image.customization import File
from snf_os_linux import distribution, hosts, systemd

if TYPE_CHECKING:
    from collections.abc import Iterator

    from snf_core.image.customization import Customization
    from snf_core.image.guest import Guest

HOSTNAME = "/etc/hostname"
HOSTS = "/etc/hosts"
MACHINE_ID = "/etc/machine-id"
DBUS_MACHINE_ID = "/var/lib/dbus/machine-id"

SHARED_SEEDS = (
    "/var/lib/systemd/random-seed",
    "/var/lib/systemd/credential.secret",
    "/var/lib/urandom/random-seed",
    "/var/lib/misc/random-seed",
)
"""Secrets that all copies of an image would share (https://systemd.io/BUILDING_IMAGES)."""

_KEEPS_HOSTNAME = frozenset(
    ["alpine", "arch", "debian", "fedora", "flatcar", "gentoo", "rhel", "suse", "ubuntu", "void"]
)
"""Distributions that read /etc/hostname whatever their init is, even if it is not there yet."""

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.IGNORECASE)
_LONGEST_NAME = 64
"""HOST_NAME_MAX of Linux (gethostname(2))."""


class AssignHostname(Task):
    """Write the instance's name to /etc/hostname and /etc/hosts."""

    api_version = "1.0"

    def run(self, guest: Guest, request: Customization) -> Iterator[str]:
        """Write. Raises InvalidValueError for a name that RFC 1123 does not allow, TaskError for
        a guest of which it is not known where it keeps its name.
        """
        name = _checked(request.hostname)
        path = _hostname_file(guest)
        old = guest.read(path) if guest.is_file(path) else None
        own = name
        if len(name) > _LONGEST_NAME:
            own = name.partition(".")[0]
            yield f"{name} is too long for Linux: the host name is {own}"
        text = hosts.with_name(guest.read(HOSTS), name, (old or "").strip())
        guest.write_files([File(path, f"{own}\n"), File(HOSTS, text)])


class ChangeMachineId(Task):
    """Take away the image's machine-id(5), so that the guest gets one of its own."""

    api_version = "1.0"

    def run(self, guest: Guest, request: Customization) -> Iterator[str]:
        """Write the id that was asked for, else leave what makes the guest take one."""
        has_id = guest.status(MACHINE_ID) is not None
        if has_id:
            guest.write(MACHINE_ID, _machine_id(guest, request.machine_id))
        else:
            yield f"the guest has no {MACHINE_ID}"
        # systemd prefers an id that it finds here to a new one, unless it is a link: a file left
        # by the image would give all its copies the same id again.
        if guest.is_file(DBUS_MACHINE_ID):
            if has_id:
                guest.symlink(MACHINE_ID, DBUS_MACHINE_ID)
            else:
                guest.remove(DBUS_MACHINE_ID)
        for path, found in guest.statuses(SHARED_SEEDS).items():
            if found.is_file:
                guest.remove(path)


def _checked(name: str) -> str:
    labels = name.split(".")
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise InvalidValueError(
            f"{name!r} cannot be a host name",
            remedy="use letters, digits and hyphens, 63 of them at most between two dots",
        )
    return name


def _hostname_file(guest: Guest) -> str:
    if guest.status(HOSTNAME) is not None or systemd.present(guest):
        return HOSTNAME
    system = distribution.read(guest)
    if _KEEPS_HOSTNAME.intersection(system.lineage):
        return HOSTNAME
    if "slackware" in system.lineage:
        return "/etc/HOSTNAME"
    raise TaskError(
        f"the guest has no {HOSTNAME}, and where {system.id or 'its distribution'} keeps its "
        "name is not known",
        remedy=f"create {HOSTNAME} in the image, or set property EXCLUDE_TASK_ASSIGNHOSTNAME",
    )


def _machine_id(guest: Guest, wanted: str) -> str:
    """The content of machine-id(5).

    An empty file has systemd make an id and save it, without this being a first boot, on which
    an image's presets and its first boot wizard would run. No other init fills the file.
    """
    if not wanted and systemd.present(guest):
        return ""
    return f"{wanted or uuid.uuid4().hex}\n"
