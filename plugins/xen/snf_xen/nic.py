"""NIC events as libxl delivers them to vif scripts.

=============================== ============================================ ======
libxl calls the script with     for                                          is
=============================== ============================================ ======
``online type_if=vif``          a vif that has appeared                      up
``offline type_if=vif``         a vif that goes or is gone                   down
``add type_if=tap``             the tap of an emulated NIC, after its vif    up
``remove type_if=tap``          the same, going                              down
=============================== ============================================ ======

With the word ``xl`` before them, the domain is none of Ganeti's (see ``description``).

In the environment are ``vif`` (``vifDOMAIN.DEVICE``), XENBUS_PATH, the vif's directory in
xenstore, and for an emulated NIC INTERFACE, its tap (libxl_linux.c in Xen's source). The domain's
name is in xenstore, and so are the keys of its configuration that xl does not act on by itself:
``vifname`` and ``mtu`` are ours to heed (xl-network-configuration(5)).
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from snf_core import model
from snf_core.errors import InvalidValueError, NetworkError, SnfError
from snf_core.ganeti.variables import parsed
from snf_core.model import Action, NicEvent, Twin
from snf_xen import description
from snf_xen.description import GANETI

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from snf_xen.description import Described
    from snf_xen.xenstore import Xenstore

XL = "xl"
"""Stands before the arguments of a script for domains that are not Ganeti's."""

EMULATED = "-emu"
"""What the name of an emulated NIC's tap has behind that of its vif (libxl__device_nic_devname)."""

_VIF = re.compile(r"vif([0-9]{1,5})\.([0-9]{1,3})")
_BACKEND = re.compile(r"/?(local/domain/[0-9]+/)?backend/vif/([0-9]+)/([0-9]+)")

_MOVING = re.compile(r"(.*)--(incoming|migratedaway)")
"""What xl calls a domain that migrates: on the node where it goes, and where it came from."""


class Vif(NamedTuple):
    """A vif's name, and the numbers in it."""

    name: str
    domain: str
    device: str


def nic_event(
    argv: Sequence[str],
    environ: Mapping[str, str],
    xenstore: Xenstore,
    own: Path,
    ganeti: Path = GANETI,
) -> NicEvent:
    """The event of ``argv``: a word of ours, then the script's arguments as in the table above.

    ``own`` and ``ganeti`` are the directories where the operator and Ganeti describe NICs. Raises
    InvalidValueError naming the argument or variable that is missing or wrong; NetworkError where
    not enough is known of the NIC; CommandError, DeadlineError.
    """
    words = list(argv[1:])
    by_xl = words[:1] == [XL]
    vif = vif_of(environ)
    match words[by_xl:]:
        case ["online"] | ["online", "type_if=vif"]:
            emulated = False
        case ["add", "type_if=tap"]:
            emulated = True
        case ["offline"] | ["offline", "type_if=vif"]:
            return _down(vif, vif.name, xenstore)
        case ["remove", "type_if=tap"]:
            return _down(vif, _tap(vif, environ), xenstore)
        case _:
            raise InvalidValueError(
                "arguments: not those of a vif script",
                remedy="expected: online type_if=vif, offline type_if=vif, add type_if=tap or "
                "remove type_if=tap",
            )
    interface = _tap(vif, environ) if emulated else vif.name
    instance, _ = _instance(vif, xenstore)
    keys = xenstore.tree(backend(environ) or f"backend/vif/{vif.domain}/{vif.device}")
    device = int(vif.device)
    if by_xl:
        described = description.by_operator(instance, device, own, keys)
    else:
        described = description.by_ganeti(instance, device, ganeti)
    twin = Twin.EMULATED if emulated else None
    if not emulated and keys.get("type") == "vif_ioemu":
        twin = Twin.PARAVIRTUAL
    return NicEvent(
        Action.UP,
        interface,
        instance,
        replace(_checked(described, vif, instance, keys), mtu=_mtu(keys)),
        described.tags,
        rename=_rename(interface, twin, keys),
        twin=twin,
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
    vif = vif_of(environ)
    if found.groups()[1:] != (vif.domain, vif.device):
        raise InvalidValueError(f"XENBUS_PATH: {path!r}, but vif is {vif.name!r}")
    return path


def vif_of(environ: Mapping[str, str]) -> Vif:
    """The vif that an event is about. Raises InvalidValueError."""
    name = environ.get("vif", "")
    found = _VIF.fullmatch(name)
    if not found:
        what = f"{name!r} is not the name of a vif" if name else "missing from the environment"
        raise InvalidValueError(f"vif: {what}", remedy="libxl sets it for vif scripts")
    return Vif(name, *found.groups())


def _tap(vif: Vif, environ: Mapping[str, str]) -> str:
    expected = f"{vif.name}{EMULATED}"
    if environ.get("INTERFACE", expected) != expected:
        raise InvalidValueError(f"INTERFACE: {environ['INTERFACE']!r}, but vif is {vif.name!r}")
    return expected


def _down(vif: Vif, interface: str, xenstore: Xenstore) -> NicEvent:
    """Whatever is known no more, the interface is to be unwired."""
    try:
        instance, moving = _instance(vif, xenstore)
    except SnfError:
        instance, moving = "", False
    return NicEvent(Action.DOWN, interface, instance, local_only=moving)


def _checked(described: Described, vif: Vif, instance: str, keys: Mapping[str, str]) -> model.Nic:
    """What is described, if it is this NIC: what was left behind may be of an earlier one."""
    nic, mac = described.nic, keys.get("mac", "").lower()
    if (nic.mac, str(nic.index)) != (mac, vif.device):
        raise NetworkError(
            f"{vif.name} is NIC {vif.device} of {instance} with MAC address {mac}, but "
            f"{described.source} describes NIC {nic.index} with {nic.mac}",
            remedy="of Ganeti's instances: stop and start it, and Ganeti describes its NICs anew; "
            "of others: correct the description",
        )
    return nic


def _mtu(keys: Mapping[str, str]) -> int | None:
    """What ``mtu=`` in the domain's configuration says. Raises InvalidValueError."""

    def parse(value: str) -> int:
        return model.mtu(int(value) if re.fullmatch("[0-9]{1,5}", value) else 0)

    return parsed("mtu", keys.get("mtu", ""), parse)


def _rename(interface: str, twin: Twin | None, keys: Mapping[str, str]) -> str:
    """The name that ``vifname=`` in the domain's configuration asks for; empty if it has it.

    Raises InvalidValueError, for the vif already where the tap could not have its.
    """
    name = keys.get("vifname", "")
    if not name:
        return ""
    of_tap = parsed("vifname", f"{name}{EMULATED}" if twin else name, model.interface_name) or ""
    name = of_tap if twin is Twin.EMULATED else name
    return "" if name == interface else name


def _instance(vif: Vif, xenstore: Xenstore) -> tuple[str, bool]:
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
