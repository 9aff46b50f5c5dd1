"""What Ganeti's OS interface says in the environment (man ganeti-os-interface, API version 20).

Every value is validated; an error names its variable.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from snf_core import model
from snf_core.errors import InvalidValueError
from snf_core.model import Disk, Instance, Mode, Network, Nic

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")

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
    """What a create, import, export or rename script is about. Raises InvalidValueError."""
    check_version(environ)
    instance = Instance(
        name=_read(environ, "INSTANCE_NAME", model.instance_name),
        hypervisor=_required(environ, "HYPERVISOR"),
        uuid=_optional(environ, "INSTANCE_UUID", model.uuid, ""),
    )
    disks = tuple(_disk(environ, index) for index in range(_count(environ, "DISK_COUNT")))
    if not disks:
        raise InvalidValueError(
            "DISK_COUNT: the instance has no disk to deploy to",
            remedy="create the instance with a disk",
        )
    nics = tuple(
        _nic(environ, index)
        for index in range(_count(environ, "NIC_COUNT") if "NIC_COUNT" in environ else 0)
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


def device(environ: Mapping[str, str], direction: str) -> Disk:
    """The disk that an export or import script streams; ``direction`` is EXPORT or IMPORT."""
    index = _count(environ, f"{direction}_INDEX") if environ.get(f"{direction}_INDEX") else 0
    path = environ.get(f"{direction}_DEVICE") or environ.get(f"{direction}_DISK_PATH", "")
    uri = environ.get(f"{direction}_DISK_URI", "")
    if not path and not uri:
        raise InvalidValueError(
            f"{direction}_DEVICE is missing", remedy="let Ganeti call this script"
        )
    return _named(f"{direction}_DEVICE", lambda: Disk(index, path, uri))


def _disk(environ: Mapping[str, str], index: int) -> Disk:
    prefix = f"DISK_{index}_"
    name = _optional(environ, prefix + "NAME", model.name, "")
    uuid = _optional(environ, prefix + "UUID", model.uuid, "")
    return _named(
        prefix + "PATH",
        lambda: Disk(
            index=index,
            path=environ.get(prefix + "PATH", ""),
            uri=environ.get(prefix + "URI", ""),
            name=name,
            uuid=uuid,
            frontend=environ.get(prefix + "FRONTEND_TYPE", ""),
        ),
    )


def _nic(environ: Mapping[str, str], index: int) -> Nic:
    prefix = f"NIC_{index}_"
    mode = _read(environ, prefix + "MODE", _mode)
    bridged = mode is Mode.BRIDGED
    return Nic(
        index=index,
        mac=_read(environ, prefix + "MAC", model.mac_address),
        mode=mode,
        link=_read(environ, prefix + "LINK", model.interface_name)
        if bridged
        else _optional(environ, prefix + "LINK", model.name, ""),
        ip=_optional(environ, prefix + "IP", model.address, None),
        name=_optional(environ, prefix + "NAME", model.name, ""),
        uuid=_optional(environ, prefix + "UUID", model.uuid, ""),
        frontend=environ.get(prefix + "FRONTEND_TYPE", ""),
        network=_network(environ, prefix + "NETWORK_"),
    )


def _network(environ: Mapping[str, str], prefix: str) -> Network | None:
    if not environ.get(prefix + "NAME"):
        return None
    return Network(
        name=_read(environ, prefix + "NAME", model.name),
        uuid=_optional(environ, prefix + "UUID", model.uuid, ""),
        subnet=_optional(environ, prefix + "SUBNET", model.ipv4_network, None),
        gateway=_optional(environ, prefix + "GATEWAY", model.ipv4_address, None),
        subnet6=_optional(environ, prefix + "SUBNET6", model.ipv6_network, None),
        gateway6=_optional(environ, prefix + "GATEWAY6", model.ipv6_address, None),
        mac_prefix=_optional(environ, prefix + "MAC_PREFIX", model.mac_prefix, ""),
        tags=_optional(environ, prefix + "TAGS", model.tags, frozenset()),
    )


def _mode(value: str) -> Mode:
    try:
        return Mode(value)
    except ValueError:
        raise InvalidValueError(
            f"{value!r} is not a NIC mode",
            remedy="expected " + ", ".join(mode.value for mode in Mode),
        ) from None


def _count(environ: Mapping[str, str], name: str) -> int:
    text = _required(environ, name)
    if not re.fullmatch("[0-9]{1,3}", text) or int(text) > _MOST:
        raise InvalidValueError(
            f"{name}: {text!r} is not a number from 0 to {_MOST}",
            remedy="let Ganeti call this script",
        )
    return int(text)


def _required(environ: Mapping[str, str], name: str) -> str:
    if not environ.get(name):
        raise InvalidValueError(f"{name} is missing", remedy="let Ganeti call this script")
    return environ[name]


def _read(environ: Mapping[str, str], name: str, parse: Callable[[str], T]) -> T:
    text = _required(environ, name)
    return _named(name, lambda: parse(text))


def _optional(environ: Mapping[str, str], name: str, parse: Callable[[str], T], default: T) -> T:
    return _read(environ, name, parse) if environ.get(name) else default


def _named(name: str, make: Callable[[], T]) -> T:
    try:
        return make()
    except InvalidValueError as error:
        raise InvalidValueError(f"{name}: {error.message}", remedy=error.remedy) from error
