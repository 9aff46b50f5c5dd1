"""The isolated machine in which guests are opened: the core's side of it.

A *fixed* appliance is a directory with ``kernel``, ``initrd`` and ``root``, built once per node
("fixed appliance" in guestfs-internals(1)). A hypervisor plugin says with a ``Launcher``
how to start it here; ``snf_core.image.guest`` starts it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from snf_core import extension
from snf_core.contract import Finding
from snf_core.errors import ApplianceError, SnfError, UnsupportedError
from snf_core.run import run

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from snf_core.config import Config
    from snf_core.contract import Hypervisor


@dataclass(frozen=True)
class Appliance:
    """A fixed appliance on this node."""

    directory: Path
    boot_cache: Path
    """Directory for what was found out about this node during this boot."""
    memory: int
    """MiB that it is to be given."""

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
    patience: float = 0
    """Seconds after which an appliance that is not ready is given up, from when the program has
    fetched the disks (it must become QEMU by exec then); 0 to wait as long as the deployment may
    take."""
    fallback: Launcher | None = None
    """What to try, after a warning, where the appliance does not become ready in this way."""
    warning: str = ""
    """Why a better way of starting the appliance could not be taken, for whoever deploys."""
    feature_cache: Path | None = None
    """Directory of what libguestfs found out about this QEMU (``snf_core.image.features``)."""
    attendant: Callable[[Sequence[int]], AbstractContextManager[socket.socket]] | None = None
    """What stands beside the appliance with the node's rights, where its user's do not do.

    It is entered with the disks' open descriptors before the program runs, and left when all that
    the program started is gone; nothing of it may be left then, and nobody may have the disks
    open. What it yields, the program gets with the disks, as ``attendant``; it is at its end when
    the program and everybody else here has closed it, and must then let the disks go before it
    closes its own side. Where it raises CommandError or DeadlineError, the fallback is tried;
    with any other error the deployment fails."""

    def attempts(self) -> Iterator[Launcher]:
        """This one, its fallback, and that one's fallback."""
        attempt: Launcher | None = self
        while attempt:
            yield attempt
            attempt = attempt.fallback


def launcher(hypervisor: Hypervisor, found: Appliance, config: Config) -> Launcher:
    """How a hypervisor starts the appliance here and, where that fails, the one it falls back on.

    Raises ApplianceError where neither can.
    """
    if not hypervisor.fallback:
        return hypervisor.launcher(found)
    try:
        own = hypervisor.launcher(found)
    except ApplianceError as error:
        try:
            other = _fallback(hypervisor, found, config)
        except SnfError as second:
            raise ApplianceError(
                f"{error.message}; and {hypervisor.fallback}: {second.message}",
                remedy=error.remedy,
            ) from error
        warning = f"the appliance is started by {hypervisor.fallback}: {error.message}"
        return replace(other, warning="; ".join(filter(None, (warning, other.warning))))
    try:
        return _followed(own, _fallback(hypervisor, found, config))
    except SnfError:
        return own  # whose own error is more to the point, should it fail


def _fallback(hypervisor: Hypervisor, found: Appliance, config: Config) -> Launcher:
    other: Hypervisor = extension.make(extension.HYPERVISOR, hypervisor.fallback, config)
    return launcher(other, found, config)


def _followed(own: Launcher, last: Launcher) -> Launcher:
    return replace(own, fallback=_followed(own.fallback, last) if own.fallback else last)


def directory(config: Config) -> Path:
    """Where this node's appliance is, or will be."""
    return Path(config.directories.state) / "appliance"


def locate(config: Config) -> Appliance:
    """This node's appliance. Raises ApplianceError where there is none."""
    found = Appliance(directory(config).resolve(), config.runtime(), config.appliance.memory)
    for file in (found.kernel, found.initrd, found.root):
        if not file.is_file():
            raise ApplianceError(
                f"there is no fixed appliance on this node: {file} is missing",
                remedy='run "snf appliance build"',
            )
    return found


@contextlib.contextmanager
def held(config: Config) -> Iterator[Appliance]:
    """This node's appliance, which stays while the block runs, even if another is built meanwhile.

    Raises ApplianceError where there is none.
    """
    while True:
        current = directory(config).resolve()
        try:
            found = locate(config)
            lock = os.open(found.directory, os.O_RDONLY | os.O_DIRECTORY)
        except (ApplianceError, FileNotFoundError):
            if directory(config).resolve() != current:
                continue  # replaced and removed meanwhile
            raise
        try:
            fcntl.flock(lock, fcntl.LOCK_SH)
            if found.kernel.exists():
                yield found
                return
        finally:
            os.close(lock)


def build(config: Config, say: Callable[[Finding], None] = lambda finding: None) -> Appliance:
    """Build this node's appliance from its own packages, and reserve the ids that run it.

    supermin(1) assembles the appliance that libguestfs's packages describe, as libguestfs would
    do by itself during a deployment if it had to; then each hypervisor prepares it, and ``say``
    is told what it did. The new one takes the old one's place at once; older ones go unless a
    deployment holds them. Takes seconds, under emulation some twenty. Raises SnfError.
    """
    from snf_core.image import identity

    identity.reserve(config.appliance.user)
    current = directory(config)
    if not current.parent.is_dir():
        current.parent.mkdir(parents=True, exist_ok=True)
        current.parent.chmod(0o755)  # whatever the umask: the appliance's user reads there
    with _locked(current.parent):
        target = current.with_name(f"{current.name}.{os.urandom(4).hex()}")
        try:
            _assemble(target, _packages())
            built = Appliance(target, config.runtime(), config.appliance.memory)
            for finding in _prepare(built, config):
                say(finding)
            link = current.with_name(f"{current.name}.link")
            link.unlink(missing_ok=True)
            link.symlink_to(target.name)
            link.replace(current)
        except BaseException:
            _remove(target)
            raise
        for old in current.parent.glob(f"{current.name}.*"):
            if old != target:
                _remove_unless_held(old)
    return built


def _assemble(target: Path, packages: Sequence[str]) -> None:
    """Make a fixed appliance in a new directory."""
    source = recipe()
    if source is None:
        raise ApplianceError("libguestfs is not installed", remedy="install libguestfs0")
    import tempfile

    with tempfile.TemporaryDirectory(prefix="snf-appliance-") as scratch:
        additions = Path(scratch) / "packages-snf"  # supermin goes by the name
        additions.write_text("".join(f"{name}\n" for name in packages))
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
                additions,
            ],
            timeout=600,
            environ={"TMPDIR": str(target.parent)},
            remedy="install supermin, libguestfs0 and a kernel (linux-image-cloud-amd64), and "
            "let no package manager run meanwhile",
        )
    # libguestfs takes a directory for a fixed appliance by this file (guestfs(3), PATH).
    (target / "README.fixed").write_text("Built by snf appliance build.\n")
    (target / "manifest.json").write_text(json.dumps(_state(source, packages), indent=1) + "\n")
    for file in target.iterdir():
        file.chmod(0o644)
    target.chmod(0o755)


def _packages() -> list[str]:
    """What the installed hypervisors need in the appliance. A broken plugin needs nothing."""
    wanted: set[str] = set()
    for name in extension.names(extension.HYPERVISOR):
        with contextlib.suppress(SnfError):
            wanted.update(extension.load(extension.HYPERVISOR, name).packages)
    return sorted(wanted)


def _prepare(built: Appliance, config: Config) -> Iterator[Finding]:
    """Let every hypervisor do so. What one cannot do does not keep the others from it."""
    for name in extension.names(extension.HYPERVISOR):
        try:
            hypervisor = extension.make(extension.HYPERVISOR, name, config)
            for finding in hypervisor.prepare(built):
                yield finding._replace(statement=f"{name}: {finding.statement}")
            made = hypervisor.launcher(built)
            if made.feature_cache:
                from snf_core.image import features

                features.record(built, made, made.feature_cache)
        except UnsupportedError:
            continue  # of no concern to a node until somebody asks for it, who is told then
        except SnfError as error:
            yield Finding(False, f"{name}: {error.message}", error.remedy, fatal=False)


def tidy(config: Config) -> Iterator[Finding]:
    """Let every hypervisor take away what killed deployments have left of appliances."""
    for name in extension.names(extension.HYPERVISOR):
        try:
            yield from extension.make(extension.HYPERVISOR, name, config).tidy(config.runtime())
        except SnfError as error:
            yield Finding(False, f"{name}: {error.message}", error.remedy)


@contextlib.contextmanager
def _locked(parent: Path) -> Iterator[None]:
    """Keep others from building below ``parent`` meanwhile."""
    lock = os.open(parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _remove(directory: Path) -> None:
    import shutil

    shutil.rmtree(directory, ignore_errors=True)


def _remove_unless_held(old: Path) -> None:
    with contextlib.suppress(OSError):
        lock = os.open(old, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(old)
        finally:
            os.close(lock)


def is_current(appliance: Appliance) -> bool:
    """Whether the packages are still those the appliance was built from."""
    try:
        manifest = json.loads((appliance.directory / "manifest.json").read_text())
    except (OSError, ValueError):
        return False
    source = recipe()
    if source is None or not isinstance(manifest, dict) or not manifest.get("recipe"):
        return False
    return bool(manifest == _state(source, _packages()))


def recipe() -> Path | None:
    """Where libguestfs's packages describe the appliance (supermin.d), or None without them."""
    return next(iter(sorted(Path("/usr").glob("lib*/**/guestfs/supermin.d"))), None)


def _state(source: Path, additions: Sequence[str]) -> dict[str, object]:
    """What an appliance is built from: the recipe, and the versions of the packages it names."""
    files = sorted(source.iterdir())
    names = {*additions}
    for file in files:
        if file.name.startswith("packages"):
            names.update(file.read_text().split())
    # Some are names for others' systems; dpkg-query complains of them and lists the rest.
    listed = run(
        ["dpkg-query", "-W", "-f", r"${Package} ${Version}\n", *sorted(names)], check=False
    )
    return {
        "recipe": [[f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in files],
        "additions": sorted(additions),
        "packages": sorted(listed.stdout.decode().splitlines()),
        "kernels": sorted(file.name for file in Path("/boot").glob("vmlinuz-*")),
    }
