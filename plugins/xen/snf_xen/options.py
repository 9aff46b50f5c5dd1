"""Options of the helper domain in which guests are opened; see ``snf_xen.helper``."""

from __future__ import annotations

from oslo_config import cfg

APPLIANCE = [
    cfg.IntOpt(
        "appliance_memory",
        default=384,
        min=256,
        max=8192,
        help="Memory of the helper domain in which guests are opened, in MiB of Xen's free memory.",
    ),
    cfg.IntOpt(
        "appliance_patience",
        default=120,
        min=5,
        help="Seconds after which a helper domain that is not ready is destroyed, and the guest "
        "opened in an emulated machine.",
    ),
    cfg.IntOpt(
        "memory_timeout",
        default=300,
        min=0,
        help="Seconds that a deployment waits for the helper domains of others where Xen has no "
        "memory for one more.",
    ),
    cfg.BoolOpt(
        "memory_from_dom0",
        default=False,
        help="Let xl take the helper domain's memory from dom0 where Xen has none free "
        "(autoballoon in xl.conf(5)).",
    ),
]
