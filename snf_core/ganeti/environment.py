"""What Ganeti's OS interface says in the environment (man ganeti-os-interface, API version 20).

Every value is validated; an error names its variable.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from snf_core import model
from snf_core.errors import InvalidValueError
from snf_core.ganeti.variables import Variables, named, nic
from snf_core.model import Disk, Instance, Nic

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

API_VERSION = "20"
_MOST = 64
"""Disks or NICs that are believed: Ganeti allows 16 disks and 8 NICs."""


@dataclass(frozen=True)
class Request:
    """An instance, its disks and its NICs."""

    instance: Instance
    disks: tuple[Disk, ...]
    nics: tuple[Nic, ...]


def request(environ: Mapping[str, str]) -> Request:
    """What a create or rename script is about. Raises InvalidValueError."""
    check_version(environ)
    told = Variables(environ)
    instance = Instance(
        name=told.need("INSTANCE_NAME", model.instance_name),
        hypervisor=told.need("HYPERVISOR", str),
        uuid=told.get("INSTANCE_UUID", model.uuid) or "",
    )
    disks = tuple(
        _disk(told.below(f"DISK_{index}_"), index)
        for index in range(told.need("DISK_COUNT", _count))
    )
    if not disks:
        raise InvalidValueError(
            "DISK_COUNT: the instance has no disk to deploy to",
            remedy="create the instance with a disk",
        )
    nics = tuple(
        _nic(told.below(f"NIC_{index}_"), index)
        for index in range(told.get("NIC_COUNT", _count) or 0)
    )
    return Request(instance, disks, nics)


def check_version(environ: Mapping[str, str]) -> None:
    """Raise InvalidValueError unless the caller speaks our version of the OS interface."""
    version = environ.get("OS_API_VERSION", "")
    if version != API_VERSION:
        raise InvalidValueError(
            f"OS_API_VERSION is {version!r}",
            remedy=f"this OS definition speaks version {API_VERSION}, to be called by Ganeti",
        )


def os_disk(
    environ: Mapping[str, str], disks: Sequence[Disk], disk_name: Callable[[Disk], str]
) -> Disk:
    """The disk that the operating system is on: the first, unless Ganeti says otherwise.

    Its only mark is the root device of an instance whose kernel is the node's (the hypervisor
    parameters kernel_path and root_path, see gnt-instance(8)). ``disk_name`` names a disk as the
    guest sees it. A root device that is on no disk by that name marks none.
    """
    root = environ.get("INSTANCE_HV_root_path", "")
    if environ.get("INSTANCE_HV_kernel_path") and root.startswith("/dev/"):
        for disk in disks[1:]:
            if re.fullmatch(re.escape(disk_name(disk)) + "(p?[0-9]{1,3})?", root):
                return disk
    return disks[0]


def device(environ: Mapping[str, str], direction: str) -> Disk:
    """The disk that an export or import script streams; ``direction`` is EXPORT or IMPORT.

    Nothing else of the instance matters to it. Raises InvalidValueError.
    """
    told = Variables(environ, f"{direction}_")
    path = told.get("DEVICE", str) or told.get("DISK_PATH", str) or ""
    uri = told.get("DISK_URI", str) or ""
    if not path and not uri:
        told.need("DEVICE", str)
    index = told.get("INDEX", _count) or 0
    return named(told.full("DEVICE"), lambda: Disk(index, path, uri))


def _disk(told: Variables, index: int) -> Disk:
    path, uri = told.get("PATH", str) or "", told.get("URI", str) or ""
    if not path and not uri:
        told.need("PATH", str)
    name = told.get("NAME", model.name) or ""
    uuid = told.get("UUID", model.uuid) or ""
    frontend = told.get("FRONTEND_TYPE", str) or ""
    return named(told.full("PATH"), lambda: Disk(index, path, uri, name, uuid, frontend))


def _nic(told: Variables, index: int) -> Nic:
    return replace(nic(told, index), frontend=told.get("FRONTEND_TYPE", str) or "")


def _count(value: str) -> int:
    if not re.fullmatch("[0-9]{1,3}", value) or int(value) > _MOST:
        raise InvalidValueError(
            f"{value!r} is not a number from 0 to {_MOST}", remedy="let Ganeti call this script"
        )
    return int(value)
