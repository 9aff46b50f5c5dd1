"""Whether and how guests are opened in a helper domain of this node's Xen: the plugin's half of
starting the appliance.

The appliance runs as a paravirtual domain without a NIC, with the tenant's disks and nothing else
of the node's: dom0 has no hardware virtualization to offer to QEMU. See ``snf_xen.keeper`` for who
looks after it, and ``snf_xen.initrd`` for what it boots.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snf_core.appliance import Launcher
from snf_core.contract import Finding
from snf_core.errors import ApplianceError, SnfError, UnsupportedError
from snf_core.run import PATH
from snf_xen import initrd

if TYPE_CHECKING:
    from collections.abc import Iterator

    from snf_core.appliance import Appliance

_CAPABILITIES = Path("proc/xen/capabilities")
_DEVICES = ("xenbus", "gntdev", "evtchn")
_LOCKS = "xen"
"""The directory of locks in that of what belongs to this boot."""


def launcher(appliance: Appliance, conf: Any) -> Launcher:
    """The appliance in a helper domain. Raises ApplianceError where there can be none here."""
    check_node()
    prepared = initrd.Prepared(appliance)
    prepared.check()
    from snf_xen import keeper, launcher

    helper = keeper.Helper(
        kernel=prepared.kernel,
        ramdisk=prepared.ramdisk,
        root=appliance.root,
        memory=conf.appliance_memory,
        directory=appliance.boot_cache / _LOCKS,
        patience=conf.memory_timeout,
        ballooning=conf.memory_from_dom0,
    )
    return Launcher(
        program="#!/usr/bin/python3 -IS\n" + Path(launcher.__file__).read_text(),
        memory=conf.appliance_memory,
        patience=conf.appliance_patience,
        feature_cache=prepared.features,
        attendant=helper.attend,
    )


def check_node() -> None:
    """Raises ApplianceError where this is not a Xen dom0 with all that is used of it."""
    if not is_dom0():
        raise ApplianceError(
            "this node does not run as Xen's dom0", remedy="boot Xen, or use the hypervisor kvm"
        )
    if not shutil.which("xl", path=PATH):
        raise ApplianceError("xl is missing", remedy="install Xen's tools (xen-utils)")
    for name in _DEVICES:
        if not os.access(f"/dev/xen/{name}", os.R_OK | os.W_OK):
            raise ApplianceError(
                f"/dev/xen/{name} cannot be used",
                remedy=f"modprobe xen-{name}" if name != "xenbus" else "modprobe xenfs",
            )


def is_dom0(root: Path = Path("/")) -> bool:
    """Whether the system below ``root`` is the one that controls Xen."""
    try:
        return "control_d" in (root / _CAPABILITIES).read_text()
    except OSError:
        return False


def prepare(appliance: Appliance) -> Iterator[Finding]:
    """Make what the helper domain boots, unless it is there. Raises UnsupportedError."""
    if not is_dom0():
        raise UnsupportedError("this node does not run as Xen's dom0")
    prepared = initrd.Prepared(appliance)
    if not prepared.ramdisk.exists():
        initrd.build(appliance)
    yield Finding(True, "the appliance can be started in a domain of its own")


def tidy(runtime: Path) -> Iterator[Finding]:
    """Destroy helper domains that nobody looks after. Raises CommandError, DeadlineError."""
    if not (is_dom0() and shutil.which("xl", path=PATH)):
        return
    from snf_xen import domain

    directory = runtime / _LOCKS
    if domain.left_over(domain.listing(), domain.held(directory)):  # most often there is none
        for name in domain.swept(directory):
            yield Finding(True, f"the helper domain {name}, which was left over, is destroyed")


def check(appliance: Appliance | None, conf: Any) -> Iterator[Finding]:
    """Whether a helper domain can be used here; where not, the appliance is emulated, if at all."""
    if appliance is None or not (is_dom0() or shutil.which("xl", path=PATH)):
        return  # a node of another hypervisor
    try:
        launcher(appliance, conf)
        from snf_xen import domain

        free = domain.free_memory()
    except SnfError as error:
        statement = f"guests are not opened in a domain of their own: {error.message}"
        yield Finding(False, statement, error.remedy, fatal=False)
        return
    needed = conf.appliance_memory + domain.OVERHEAD
    enough = free >= needed or conf.memory_from_dom0
    yield Finding(
        enough,
        f"guests are opened in a domain of their own, which needs {needed} MiB; Xen has {free} "
        "MiB free",
        "shut guests down, or give dom0 less memory (dom0_mem= on Xen's command line)",
        fatal=False,
    )
