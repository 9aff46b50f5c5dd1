"""What NIC events of Xen need on this node, for ``snf doctor``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from snf_core.contract import Finding
from snf_core.errors import SnfError
from snf_xen.helper import is_dom0

if TYPE_CHECKING:
    from collections.abc import Iterator

    from snf_xen.xenstore import Xenstore

_BACKEND = Path("sys/bus/xen-backend/drivers/vif")
"""There once the kernel can serve vifs (drivers/net/xen-netback in Linux)."""


def findings(xenstore: Xenstore, root: Path = Path("/")) -> Iterator[Finding]:
    """xenstore, the kernel's backend, and the scripts in place. Nothing else without a Xen."""
    if not is_dom0(root):
        return  # a node of another hypervisor
    try:
        there = xenstore.read("domid") is not None
        yield Finding(there, f"xenstore {'answers' if there else 'does not know this domain'}")
    except SnfError as error:
        yield Finding(False, error.message, error.remedy)
    there = (root / _BACKEND).is_dir()
    yield Finding(
        there,
        f"the kernel {'has' if there else 'lacks'} the backend of vifs",
        "modprobe xen-netback, and name it in /etc/modules",
    )
    # vif-custom is looked for with all that Ganeti calls.
    script = root / "etc/xen/scripts/vif-snf"
    there = os.access(script, os.X_OK)
    yield Finding(
        there,
        f"{script} {'is there' if there else 'is missing'}",
        'run "snf network install", for domains that are not Ganeti\'s',
        fatal=False,
    )
