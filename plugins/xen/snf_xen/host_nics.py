"""The vifs of running domains, as xenstore has them."""

from __future__ import annotations

import contextlib
import logging
import re
from pathlib import PurePath
from typing import TYPE_CHECKING

from snf_core import model
from snf_core.contract import HostNic
from snf_core.errors import InvalidValueError, SnfError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from snf_xen.xenstore import Xenstore

LOG = logging.getLogger(__name__)

SCRIPTS = frozenset({"vif-ganeti", "vif-custom", "vif-snf"})
"""The scripts through which NICs are ours. The vifs of others are none of our business."""

_SCRIPT = re.compile(r"([0-9]{1,5})/([0-9]{1,3})/script")
_MOVING = ("--incoming", "--migratedaway")
"""What xl appends to the names of domains that are not, or no more, running here."""


def listed(xenstore: Xenstore, *, hvm: bool) -> Iterator[HostNic]:
    """The NICs of hardware-assisted guests (type hvm), or of all others (pv, pvh), in no order.

    A vif is one of theirs as soon as its script says that it is connected. Nothing where there is
    no Xen on this node.
    """
    try:
        keys = xenstore.tree("backend/vif")
        domains: dict[str, str] = {}
        for key, script in keys.items():
            found = _SCRIPT.fullmatch(key)
            vif = key.removesuffix("/script")
            if not found or PurePath(script).name not in SCRIPTS:
                continue
            if keys.get(f"{vif}/hotplug-status") != "connected":
                continue
            domain, device = found.groups()
            if domain not in domains:
                domains[domain] = _name(domain, xenstore, hvm=hvm)
            with contextlib.suppress(InvalidValueError):
                interface = keys.get(f"{vif}/vifname") or f"vif{domain}.{device}"
                name = model.instance_name(domains[domain])
                yield HostNic(name, int(device), model.interface_name(interface))
    except SnfError as error:
        LOG.info("Xen is not asked for its domains' NICs: %s", error)


def _name(domain: str, xenstore: Xenstore, *, hvm: bool) -> str:
    """The name of a domain; empty where it is not of the kind, or does not run here."""
    if (xenstore.read(f"/libxl/{domain}/type") == "hvm") is not hvm:
        return ""
    name = xenstore.read(f"/local/domain/{domain}/name") or ""
    return "" if name.endswith(_MOVING) else name
