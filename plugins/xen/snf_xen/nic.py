"""NIC events as libxl delivers them to vif scripts, of NICs that Ganeti describes in files.

=============================== ================================ ============
libxl calls the script with     for                              we make it
=============================== ================================ ============
``online type_if=vif``          a vif that has appeared          up
``offline type_if=vif``         a vif that goes or is gone       down
``add type_if=tap``             the tap of an emulated NIC       refused
``remove type_if=tap``          the same, going                  nothing
=============================== ================================ ============

In the environment are ``vif`` (``vifDOMAIN.DEVICE``) and XENBUS_PATH, the vif's directory in
xenstore (libxl_linux.c in Xen's source). The domain's name is in xenstore, and all else in the
NIC's file, which Ganeti writes before it creates the domain.

That file was made to be sourced by a shell, and is parsed here.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from snf_core import model
from snf_core.errors import InvalidValueError, NetworkError, SnfError, UnsupportedError
from snf_core.ganeti.variables import Variables, parsed, script_nic
from snf_core.model import Action, NicEvent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from snf_xen.xenstore import Xenstore

NIC_DIRECTORY = Path("/var/run/ganeti/xen-hypervisor/nic")
"""Holds INSTANCE/DEVICE, one file for each NIC."""

_VIF = re.compile(r"vif([0-9]{1,5})\.([0-9]{1,3})")
_BACKEND = re.compile(r"/?(local/domain/[0-9]+/)?backend/vif/([0-9]+)/([0-9]+)")

_MOVING = re.compile(r"(.*)--(incoming|migratedaway)")
"""What xl calls a domain that migrates: on the node where it goes, and where it came from."""

_QUOTED = re.compile(r'(TAGS|NETWORK_[A-Z0-9_]+)="(.*)"')
_BARE = re.compile(r"(?!TAGS|NETWORK_)([A-Z][A-Z0-9_]*)=(.*)")
_ORDER = ["TAGS", "NETWORK_", "MAC", "IP", "INTERFACE_INDEX", "INTERFACE_NAME", "INTERFACE_UUID",
          "MODE", "LINK", "VLAN"]  # fmt: skip
"""The variables of a NIC's file; NETWORK_ stands for all that begin with it."""


class _Vif(NamedTuple):
    name: str
    domain: str
    device: str


def nic_event(
    argv: Sequence[str],
    environ: Mapping[str, str],
    xenstore: Xenstore,
    directory: Path = NIC_DIRECTORY,
) -> NicEvent | None:
    """The event of ``argv``: a word of ours, then the script's arguments as in the table above.

    None where there is nothing to do. Raises InvalidValueError naming the argument or variable
    that is missing or wrong; NetworkError where not enough is known of the NIC; UnsupportedError;
    CommandError.
    """
    match list(argv[1:]):
        case ["online"] | ["online", "type_if=vif"]:
            return _up(_vif(environ), environ, xenstore, directory)
        case ["offline"] | ["offline", "type_if=vif"]:
            return _down(_vif(environ), xenstore)
        case ["add", "type_if=tap"]:
            raise UnsupportedError(
                f"{_vif(environ).name}: emulated NICs cannot be wired",
                remedy="use paravirtual ones: gnt-instance modify -H nic_type=paravirtual INSTANCE",
            )
        case ["remove", "type_if=tap"]:
            return None
    raise InvalidValueError(
        "arguments: not those of a vif script",
        remedy="expected: online type_if=vif, or offline type_if=vif",
    )


def backend(environ: Mapping[str, str]) -> str:
    """The vif's directory in xenstore, through which Xen is answered; empty where none is named.

    Raises InvalidValueError.
    """
    path = environ.get("XENBUS_PATH", "")
    if not path:
        return ""
    found = _BACKEND.fullmatch(path)
    if not found:
        raise InvalidValueError(f"XENBUS_PATH: {path!r} is not the path of a vif in xenstore")
    vif = _vif(environ)
    if found.groups()[1:] != (vif.domain, vif.device):
        raise InvalidValueError(f"XENBUS_PATH: {path!r}, but vif is {vif.name!r}")
    return path


def _vif(environ: Mapping[str, str]) -> _Vif:
    name = environ.get("vif", "")
    found = _VIF.fullmatch(name)
    if not found:
        what = f"{name!r} is not the name of a vif" if name else "missing from the environment"
        raise InvalidValueError(f"vif: {what}", remedy="libxl sets it for vif scripts")
    return _Vif(name, *found.groups())


def _down(vif: _Vif, xenstore: Xenstore) -> NicEvent:
    """Whatever is known no more, the vif is to be unwired."""
    try:
        instance, moving = _instance(vif, xenstore)
    except SnfError:
        instance, moving = "", False
    return NicEvent(Action.DOWN, vif.name, instance, local_only=moving)


def _up(vif: _Vif, environ: Mapping[str, str], xenstore: Xenstore, directory: Path) -> NicEvent:
    instance, _ = _instance(vif, xenstore)
    keys = backend(environ) or f"backend/vif/{vif.domain}/{vif.device}"
    if xenstore.read(f"{keys}/vifname"):
        raise UnsupportedError(
            f"{vif.name}: interfaces are not renamed",
            remedy="remove vifname= from the domain's configuration",
        )
    path = directory / instance / vif.device
    text = _read_file(path, vif)
    try:
        variables = Variables(_values(text))
        nic = script_nic(variables)
        tags = variables.get("TAGS", model.tags) or frozenset()
    except InvalidValueError as error:
        raise InvalidValueError(f"{path}: {error.message}", remedy=error.remedy) from error
    # A file that was left behind may be of a NIC that this one once was.
    mac = (xenstore.read(f"{keys}/mac") or "").lower()
    if (nic.mac, str(nic.index)) != (mac, vif.device):
        raise NetworkError(
            f"{vif.name} is NIC {vif.device} of {instance} with MAC address {mac}, but {path} "
            f"describes NIC {nic.index} with {nic.mac}",
            remedy="stop and start the instance: Ganeti then writes the file anew",
        )
    return NicEvent(Action.UP, vif.name, instance, nic, tags)


def _instance(vif: _Vif, xenstore: Xenstore) -> tuple[str, bool]:
    """The instance's name, by that of its domain, and whether it is migrating.

    Raises InvalidValueError where it is none; NetworkError.
    """
    name = xenstore.read(f"/local/domain/{vif.domain}/name") or ""
    moving = _MOVING.fullmatch(name)
    what = f"the name of domain {vif.domain}"
    found = parsed(what, moving[1] if moving else name, model.instance_name)
    if found is None:
        raise NetworkError(f"{vif.name}: {what} is not in xenstore")
    return found, moving is not None


def _read_file(path: Path, vif: _Vif) -> str:
    try:
        return path.read_bytes().decode()
    except FileNotFoundError as error:
        raise NetworkError(
            f"{vif.name}: Ganeti has not described this NIC on this node: there is no {path}",
            remedy="it writes the file where it starts an instance, and not where it migrates one "
            "to: use gnt-instance failover",
        ) from error
    except (OSError, ValueError) as error:
        raise NetworkError(f"{path} cannot be read: {error}") from error


def _values(text: str) -> dict[str, str]:
    """The variables of a NIC's file.

    As Ganeti writes them: TAGS and NETWORK_* in double quotes, all else bare, nothing escaped but
    the blanks in TAGS, which no shell needs inside quotes. A NIC's name may hold line ends, and
    then whatever it likes: hence the order, in which nothing optional follows the name.
    """
    values: dict[str, str] = {}
    for line in text.removesuffix("\n").split("\n"):
        found = _QUOTED.fullmatch(line) or _BARE.fullmatch(line)
        if not found or found[1] in values:
            raise InvalidValueError(f"{line!r} is not what Ganeti writes there")
        values[found[1]] = found[2]
    kinds = ["NETWORK_" if name.startswith("NETWORK_") else name for name in values]
    places = [_ORDER.index(kind) for kind in kinds if kind in _ORDER]
    if places != sorted(places):
        raise InvalidValueError(f"not in Ganeti's order: {', '.join(values)}")
    values["TAGS"] = values.get("TAGS", "").replace("\\ ", " ")
    return values
