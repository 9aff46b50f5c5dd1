"""The isolated machine in which guests are opened: the core's side of it.

A *fixed* appliance is a directory with ``kernel``, ``initrd`` and ``root``, built once per node
("fixed appliance" in guestfs-internals(1)). A hypervisor plugin says with a ``Launcher``
how to start it here; ``snf_core.image.guest`` starts it.
"""

from __future__ import annotations

import json
import os
import pwd
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from snf_core.errors import ApplianceError
from snf_core.run import run

if TYPE_CHECKING:
    from snf_core.config import Config


@dataclass(frozen=True)
class Appliance:
    """A fixed appliance on this node."""

    directory: Path
    boot_cache: Path
    """Directory for what was found out about this node during this boot."""

    @property
    def kernel(self) -> Path:
        """The kernel image."""
        return self.directory / "kernel"

    @property
    def initrd(self) -> Path:
        """The initial RAM disk."""
        return self.directory / "initrd"

    @property
    def root(self) -> Path:
        """The root file system: a raw, sparse ext2 image; only ever opened read-only."""
        return self.directory / "root"


@dataclass(frozen=True)
class Launcher:
    """How to start the appliance on this node.

    libguestfs runs ``program`` in place of QEMU, with QEMU's arguments (set_hv in guestfs(3)).
    The program is given in its environment SNF_DISKS, the path of a Unix socket on which it gets
    the disks' descriptors (see ``snf_core.image.worker``), so that it needs no right to open
    them itself.
    """

    program: str
    """The text of the program: a script with a ``#!`` line, put where the appliance's user may
    run it and nobody may change it."""
    memory: int
    """MiB."""
    settings: tuple[str, ...] = ()
    """libguestfs backend settings, for example ``force_tcg``."""
    groups: tuple[str, ...] = ()
    """Groups the appliance's user needs, for example that of /dev/kvm."""


def directory(config: Config) -> Path:
    """Where this node's appliance is, or will be."""
    return Path(config.directories.state) / "appliance"


def locate(config: Config) -> Appliance:
    """This node's appliance. Raises ApplianceError where there is none.

    The symbolic link is resolved once: a deployment keeps the appliance it started with, even if
    another is built meanwhile.
    """
    found = Appliance(directory(config).resolve(), config.runtime())
    for file in (found.kernel, found.initrd, found.root):
        if not file.is_file():
            raise ApplianceError(
                f"there is no fixed appliance on this node: {file} is missing",
                remedy='run "snf appliance build"',
            )
    return found


def build(config: Config) -> Appliance:
    """Build this node's appliance from its own packages, and make the user that runs it.

    supermin(1) assembles the appliance that libguestfs's packages describe, as libguestfs would
    do by itself during a deployment if it had to. The new one takes the old one's place at once;
    the one before is kept for deployments under way. Takes seconds. Raises SnfError.
    """
    make_user(config.appliance.user)
    current = directory(config)
    if not current.parent.is_dir():
        current.parent.mkdir(parents=True, exist_ok=True)
        current.parent.chmod(0o755)  # whatever the umask: the appliance's user reads there
    target = current.with_name(f"{current.name}.{secrets.token_hex(4)}")
    source = recipe()
    if source is None:
        raise ApplianceError("libguestfs is not installed", remedy="install libguestfs0")
    try:
        run(
            [
                "supermin",
                "--build",
                "--copy-kernel",
                "--format",
                "ext2",
                "--host-cpu",
                os.uname().machine,
                "-o",
                target,
                source,
            ],
            timeout=600,
            environ={"TMPDIR": str(current.parent)},
            remedy="install supermin, libguestfs0 and a kernel (linux-image-cloud-amd64), and "
            "let no package manager run meanwhile",
        )
        # libguestfs takes a directory for a fixed appliance by this file (guestfs(3), PATH).
        (target / "README.fixed").write_text("Built by snf appliance build.\n")
        (target / "manifest.json").write_text(json.dumps({"recipe": _state(source)}) + "\n")
        for file in target.iterdir():
            file.chmod(0o644)
        target.chmod(0o755)
        link = current.with_name(f"{current.name}.link")
        link.unlink(missing_ok=True)
        link.symlink_to(target.name)
        previous = current.resolve()
        link.replace(current)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise
    for old in current.parent.glob(f"{current.name}.*"):
        if old not in {target, previous}:
            shutil.rmtree(old, ignore_errors=True)
    return locate(config)


def is_current(appliance: Appliance) -> bool:
    """Whether libguestfs's packages are still those the appliance was built from."""
    try:
        manifest = json.loads((appliance.directory / "manifest.json").read_text())
    except (OSError, ValueError):
        return False
    source = recipe()
    return source is not None and manifest == {"recipe": _state(source)}


def make_user(name: str) -> None:
    """Make the system user that runs appliances, if there is none of that name."""
    try:
        pwd.getpwnam(name)
    except KeyError:
        home = "/nonexistent"
        run(
            [
                "useradd",
                "--system",
                "--user-group",
                "--no-create-home",
                "--home-dir",
                home,
                "--shell",
                "/usr/sbin/nologin",
                name,
            ]
        )


def recipe() -> Path | None:
    """Where libguestfs's packages describe the appliance (supermin.d), or None without them."""
    return next(iter(sorted(Path("/usr").glob("lib*/**/guestfs/supermin.d"))), None)


def _state(source: Path) -> list[list[str | int]]:
    return [
        [file.name, file.stat().st_size, file.stat().st_mtime_ns]
        for file in sorted(source.iterdir())
    ]
