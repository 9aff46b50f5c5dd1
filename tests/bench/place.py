"""Where it is measured: a node with the Debian test image, and fresh disks."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from snf_core import appliance, config, extension
from snf_core.run import run
from tests import node, workspace
from tests.bench.deployed import Deployed
from tests.images.debian import debian_image

if TYPE_CHECKING:
    from collections.abc import Iterator

    from snf_core.appliance import Appliance, Launcher
    from snf_core.config import Config
    from tests.images.debian import DebianImage

DISK_BYTES = 8 << 30
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGlqb8kY5k1hZ2Y0c0d1aFZlQ2hvY29sYXRlUGllVGFzdGVz a@b"
PASSWORD = "correct horse battery"
REAL_FILE_SYSTEM = "/var/tmp"
"""Unlike /tmp on many machines."""


@dataclass(frozen=True)
class Place:
    """A node, what it deploys, and room for its disks."""

    node: node.Node
    image: DebianImage
    disks: Path
    config: Config
    appliance: Appliance
    launcher: Launcher
    """How deployments on this node start the appliance."""

    @property
    def emulated(self) -> bool:
        """Whether the appliance's processor is emulated on this node."""
        return "force_tcg" in self.launcher.settings

    @property
    def title(self) -> str:
        """The image in words."""
        used = self.image.path.stat().st_blocks * 512
        return f"Debian image ({self.image.disk_bytes >> 20} MiB, {used >> 20} MiB of them used)"

    def environment(self, disk: Path) -> dict[str, str]:
        """What Ganeti tells the create script of an instance with all that a tenant may ask for."""
        nic = node.bridged_nic("198.51.100.10", "198.51.100.0/24", "198.51.100.1")
        return node.instance_environment("web1.example.org", disk, nics=[nic]) | {
            "OSP_IMG_ID": self.image.path.name,
            "OSP_IMG_FORMAT": "diskdump",
            "OSP_IMG_PASSWD": PASSWORD,
            "OSP_IMG_PROPERTIES": '{"USERS": "root"}',
            "OSP_AUTH_KEYS": KEY,
        }

    def deploy(self, disk: Path) -> Deployed:
        """Run the create script to its end. Raises RuntimeError if it fails."""
        report = disk.with_suffix(".report")
        began = time.time()
        script = self.node.script("create", self.environment(disk), ["--report", str(report)])
        _, said = script.communicate()
        ended = time.time()
        if script.returncode != 0:
            raise RuntimeError(f"the deployment failed: {said.decode()}")
        return Deployed(began, ended, json.loads(report.read_text()))


@contextlib.contextmanager
def place() -> Iterator[Place]:
    """Make the node, and remove it and its disks again. Root."""
    image = debian_image()
    with (
        workspace.private(Path("/run/snf-bench")) as directory,
        tempfile.TemporaryDirectory(prefix="snf-bench-", dir=REAL_FILE_SYSTEM) as disks,
    ):
        directory.chmod(0o711)
        made = node.make(directory, image.path.parent, directory / "run")
        loaded = config.load(made.config_file)
        found = appliance.locate(loaded)
        hypervisor = extension.make(extension.HYPERVISOR, "kvm", loaded)
        yield Place(made, image, Path(disks), loaded, found, hypervisor.launcher(found))


def fresh(path: Path, size: int = DISK_BYTES) -> Path:
    """A new sparse file of ``size`` bytes. What earlier runs left to write is not the next's."""
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    os.truncate(path, size)
    os.sync()
    return path


def cold() -> None:
    """Let the kernel forget what it has read from disks (proc_sys_vm(5), drop_caches)."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3\n")


def plain_copy(image: Path, disk: Path) -> float:
    """Seconds that ``qemu-img convert`` needs, the copy being durable at the end of it."""
    started = time.perf_counter()
    run(["qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", image, disk], timeout=600)
    descriptor = os.open(disk, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return time.perf_counter() - started
