"""A node as Ganeti sees it: a configuration, an appliance, the OS definition, and its scripts run
under exactly the environment Ganeti gives them."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from snf_core import config
from snf_core.ganeti import definition, glue, installation
from snf_core.image import identity
from tests import appliances
from tests.images.debian import cache_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

MAC = "aa:00:00:5e:00:01"
UUID = "6f1c9a5e-24f0-4f1e-9be5-0a1f3c5d7e90"
NIC_UUID = "0b5a8b4e-9b43-4a3c-8c2f-51f0f5f0a001"
NETWORK_UUID = "2e0f4f0e-7a0b-4c9a-9f0e-3f6f1d2c3b4a"

SCRIPT_ENVIRONMENT = {"PATH": "/sbin:/bin:/usr/sbin:/usr/bin", "LC_CTYPE": "C.UTF-8"}
"""What Ganeti resets the environment of create, rename and verify to."""


@dataclass(frozen=True)
class Node:
    """A node below ``directory``, with its configuration in ``config_file``."""

    directory: Path
    config_file: Path
    definition: Path
    runtime: Path

    def command(self, *words: str) -> list[str]:
        """``snf`` with this node's configuration."""
        return [
            sys.executable,
            "-I",
            "-m",
            "snf_core.cli",
            "--config",
            str(self.config_file),
            *words,
        ]

    def script(
        self,
        name: str,
        environment: Mapping[str, str],
        arguments: Sequence[str] = (),
        *,
        stdin: int = subprocess.DEVNULL,
        stdout: int | None = subprocess.PIPE,
        stderr: int | None = subprocess.PIPE,
        pass_fds: Sequence[int] = (),
        prefix: Sequence[str] = (),
    ) -> subprocess.Popen[bytes]:
        """Start a script of the OS definition as Ganeti does: its directory, umask and user.

        ``prefix`` is a command that runs it in surroundings of its own, nsenter(1) for example.
        """
        return subprocess.Popen(
            [*prefix, self.definition / name, *arguments],
            cwd=self.definition,
            env={**SCRIPT_ENVIRONMENT, **environment},
            umask=0o077,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            pass_fds=pass_fds,
        )


def make(
    directory: Path,
    images: Path,
    runtime: Path,
    settings: Mapping[str, Mapping[str, str]] | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> Node:
    """Furnish a node below ``directory`` that finds images in ``images``.

    ``runtime`` must be a directory that an unprivileged user may pass through. ``settings`` are
    further options, by group. The appliance is shared by all nodes and built where it is absent
    or stale.
    """
    state = cache_directory()
    groups: dict[str, dict[str, str]] = {
        "directories": {"state": str(state), "runtime": str(runtime)},
        "image.source.local": {"directory": str(images)},
        # A slow machine is no reason to take a resumed appliance for dead.
        "hypervisor.kvm": {"resume_timeout": "120"},
    }
    for group, options in (settings or {}).items():
        groups.setdefault(group, {}).update(options)
    file = directory / "snf.conf"
    file.write_text(
        "".join(
            f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in options.items())
            for group, options in groups.items()
        )
    )
    loaded = config.load(file)
    appliances.provide(loaded, progress)
    identity.reserve(loaded.appliance.user)
    files = definition.files(directory / "os" / definition.NAME, (), glue.command(file))
    installation.install(installation.Installation(tuple(files)))
    return Node(directory, file, directory / "os" / definition.NAME, runtime)


def furnish(root: Path) -> Path:
    """Make what tells that a Ganeti is installed below ``root``; nothing of it works."""
    library = root / "usr/lib/ganeti"
    library.mkdir(parents=True)
    (library / "daemon-util").touch()
    return root


def instance_environment(
    name: str, disk: Path, *, nics: Sequence[Mapping[str, str]] = ()
) -> dict[str, str]:
    """What Ganeti 3.0 says of an instance with one file disk, in a create script's environment."""
    environment = {
        "OS_API_VERSION": "20",
        "OS_NAME": "snf-image",
        "OS_VARIANT": "default",
        "INSTANCE_OS": "snf-image+default",
        "DEBUG_LEVEL": "0",
        "HYPERVISOR": "kvm",
        "INSTANCE_NAME": name,
        "INSTANCE_UUID": UUID,
        "INSTANCE_CTIME": "1795329992.60244",
        "INSTANCE_MTIME": "1795329992.60244",
        "INSTANCE_PRIMARY_NODE": "5c0a6a9e-6f0a-4f55-9a1c-0d6f6a7b8c9d",
        "INSTANCE_SECONDARY_NODES": "",
        "INSTANCE_BE_vcpus": "1",
        "INSTANCE_BE_maxmem": "512",
        "INSTANCE_HV_disk_type": "paravirtual",
        "DISK_COUNT": "1",
        "DISK_0_PATH": str(disk),
        "DISK_0_SIZE": str(disk.stat().st_size >> 20),
        "DISK_0_ACCESS": "rw",
        "DISK_0_UUID": "3d3c2b1a-1111-4222-8333-444455556666",
        "DISK_0_FRONTEND_TYPE": "paravirtual",
        "DISK_0_BACKEND_TYPE": "file:loop",
        "NIC_COUNT": str(len(nics)),
    }
    for index, nic in enumerate(nics):
        environment |= {f"NIC_{index}_{key}": value for key, value in nic.items()}
    return environment


def bridged_nic(address: str, subnet: str, gateway: str, bridge: str = "br0") -> dict[str, str]:
    """A NIC in a Ganeti network, as both the OS scripts and the NIC scripts name its facts."""
    return {
        "MAC": MAC,
        "UUID": NIC_UUID,
        "IP": address,
        "MODE": "bridged",
        "LINK": bridge,
        "BRIDGE": bridge,
        "FRONTEND_TYPE": "paravirtual",
        "NETWORK_NAME": "demo",
        "NETWORK_UUID": NETWORK_UUID,
        "NETWORK_TAGS": "",
        "NETWORK_SUBNET": subnet,
        "NETWORK_GATEWAY": gateway,
    }


def event_environment(name: str, interface: str, nic: Mapping[str, str]) -> dict[str, str]:
    """What Ganeti 3.0's kvm-ifup leaves in the environment for one NIC."""
    facts = {key: value for key, value in nic.items() if key not in {"UUID", "FRONTEND_TYPE"}}
    return {
        **SCRIPT_ENVIRONMENT,
        "INSTANCE": name,
        "INTERFACE": interface,
        "INTERFACE_INDEX": "0",
        "INTERFACE_UUID": nic["UUID"],
        "TAGS": "",
        "VLAN": "",
        **facts,
    }


def leftovers(node: Node) -> list[str]:
    """Files, processes and loop devices of deployments on this node that are still there."""
    left = [str(path) for path in (node.runtime / "deployment").glob("*")]
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if str(node.runtime).encode() in words:
            left.append(f"process {entry.name}: {words.decode(errors='replace')[:200]}")
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        if str(node.directory) in backing.read_text():
            left.append(f"loop device {backing.parts[3]}")
    return left
