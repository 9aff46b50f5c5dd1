"""What this node can and cannot do, and what to install."""

from __future__ import annotations

import os
import re
import sys
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING

from snf_core import appliance, extension, schema
from snf_core.contract import Finding
from snf_core.errors import SnfError
from snf_core.ganeti import generation, glue, installation
from snf_core.ganeti.installation import Installation, State
from snf_core.network import abilities
from snf_core.run import run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from snf_core.appliance import Appliance
    from snf_core.config import Config
    from snf_core.ganeti.generation import Ganeti

_PROGRAMS = {
    "supermin": "supermin",
    "qemu-img": "qemu-utils",
    "ip": "iproute2",
}
_KERNEL = (5, 12)
"""The first Linux with mount_setattr(2)."""
_CAP_SYS_ADMIN = 21
"""What namespaces and mounts need (capabilities(7)); containers rarely have it."""
_FILESYSTEMS = ("xfs",)
"""Kinds of file systems that Debian's libguestfs has in packages of their own."""


def examine(settings: Config, config_file: Path | None = None) -> Iterator[Finding]:
    """Look at everything a deployment and a NIC need, and at what Ganeti needs to ask for them.

    ``settings`` were read from ``config_file`` where one is given.
    """
    for sentence in schema.check(settings):
        yield Finding(False, f"configuration: {sentence}", "correct it")
    yield from _installation(settings)
    found, findings = _appliance(settings)
    yield from findings
    for plugin in extension.listing():
        if plugin.error:
            yield Finding(
                False, f"plugin {plugin.name} ({plugin.distribution}): {plugin.error}", "repair it",
                fatal=False,
            )  # fmt: skip
    yield from _hypervisors(settings, found)
    yield from abilities.check(settings)
    if ganeti := generation.find(Path("/")):
        yield from glue_findings(ganeti, glue.wanted(ganeti, settings, config_file))


def _installation(settings: Config) -> Iterator[Finding]:
    well = os.geteuid() == 0
    yield Finding(well, "running as root" if well else "not running as root", "run it as root")
    well = _kernel() >= _KERNEL and bool(_capabilities() >> _CAP_SYS_ADMIN & 1)
    yield Finding(
        well,
        f"deployments {'can' if well else 'cannot'} be isolated from this node",
        "run on Linux 5.12 or later, and not in a container without privileges",
    )
    there = util.find_spec("guestfs") is not None
    yield Finding(
        there,
        f"Python's guestfs module is {'there' if there else f'not visible to {sys.executable}'}",
        "install python3-guestfs, and let the virtual environment see system packages",
    )
    for program, package in _PROGRAMS.items():
        there = any(
            os.access(Path(place) / program, os.X_OK) for place in ("/usr/bin", "/usr/sbin")
        )
        yield Finding(
            there, f"{program} is {'there' if there else 'missing'}", f"install {package}"
        )
    kernels = [file for file in Path("/boot").glob("vmlinu*") if os.access(file, os.R_OK)]
    yield Finding(
        bool(kernels),
        f"/boot holds {len(kernels)} readable kernels to build an appliance with",
        "install linux-image-cloud-amd64, or make its /boot/vmlinuz readable",
        fatal=False,
    )
    recipe = appliance.recipe()
    for kind in _FILESYSTEMS:
        there = recipe is not None and any(recipe.glob(f"*-{kind}"))
        yield Finding(
            there,
            f"the appliance {'has' if there else 'lacks'} the tools for {kind}",
            f'install libguestfs-{kind} and run "snf appliance build"',
            fatal=False,
        )
    images = Path(settings.directories.state) / "images"
    yield Finding(
        images.is_dir(), f"{images} {'is' if images.is_dir() else 'is not'} there",
        "make it and put images there, or set [image.source.local] directory", fatal=False,
    )  # fmt: skip


def glue_findings(ganeti: Ganeti, wanted: Installation) -> Iterator[Finding]:
    """What Ganeti calls. Outside a cluster, the node may be meant for something else."""
    remedy = 'run "snf ganeti install"'
    try:
        found = installation.compare(wanted)
        ours = any(map(installation.is_ours, wanted.files))
        member = ganeti.in_cluster()
    except (SnfError, OSError) as error:
        yield Finding(False, f"what Ganeti calls cannot be looked at: {error}", "run it as root")
        return
    if not found:
        yield Finding(True, "what Ganeti calls is in place")
    elif not ours:
        statement = "Ganeti is on this node, and does not call us"
        if member:
            statement = (
                "this node is in a Ganeti cluster that does not call us here: guests that should "
                "be filtered start here, or migrate here, without any filter"
            )
        yield Finding(False, statement, remedy, fatal=member)
    else:
        for one in found:
            theirs = one.state in {State.FOREIGN, State.HIDING}
            yield Finding(
                False,
                f"{one}",
                f"move it away, then {remedy}" if theirs else remedy,
                fatal=one.state is not State.LEFT_OVER,
            )


def _kernel() -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall("[0-9]+", os.uname().release)[:2])


def _capabilities() -> int:
    """Those that are in effect, as a set of bits (proc(5))."""
    found = re.search(
        r"^CapEff:\s*([0-9a-f]+)", Path("/proc/self/status").read_text(), re.MULTILINE
    )
    return int(found[1], 16) if found else 0


def _appliance(settings: Config) -> tuple[Appliance | None, list[Finding]]:
    rebuild = 'run "snf appliance build"'
    try:
        found = appliance.locate(settings)
    except SnfError as error:
        return None, [Finding(False, error.message, error.remedy)]
    findings = [Finding(True, f"the fixed appliance is {found.directory}")]
    current = appliance.is_current(found)
    findings.append(
        Finding(
            current,
            f"the appliance was built from {'the installed' if current else 'other'} packages",
            rebuild,
            fatal=False,
        )
    )
    findings += _identities(settings.appliance.user, found)
    return found, findings


def _identities(user: str, found: Appliance) -> Iterator[Finding]:
    from snf_core.image import identity

    try:
        pool = identity.pool(user)
    except SnfError as error:
        yield Finding(False, error.message, error.remedy)
        return
    yield Finding(True, f"up to {len(pool)} deployments at once have user ids of their own")
    own = pool.identity(0, ())
    for file in (found.kernel, found.initrd, found.root):
        words = ["setpriv", f"--reuid={own.uid}", f"--regid={own.gid}", "--clear-groups"]
        if run([*words, "test", "-r", file], check=False).returncode != 0:
            yield Finding(
                False,
                f"user id {own.uid}, of {user}'s subordinate ones, cannot read {file}",
                f"let everybody read {file} and enter the directories above it",
            )


def _hypervisors(settings: Config, found: Appliance | None) -> Iterator[Finding]:
    for name in extension.names(extension.HYPERVISOR):
        try:
            hypervisor = extension.make(extension.HYPERVISOR, name, settings)
        except SnfError:
            continue  # said already, with the plugins
        for finding in hypervisor.check(found):
            yield finding._replace(statement=f"{name}: {finding.statement}")
