"""A Ganeti cluster on nodes of its own: :meth:`Cluster.create`.

>>> with Cluster.create() as cluster:
...     cluster.run("gnt-instance", "add", "-t", "file", "-o", "snf-image+default", ...)
"""

from __future__ import annotations

import contextlib
import functools
import os
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from snf_core import config
from snf_core.image import identity
from tests import appliances, workspace
from tests.ganeti import outside
from tests.ganeti.node import MASTER_ADDRESS, MASTER_NAME, SNF, Node
from tests.ganeti.outside import Outside
from tests.images.debian import cache_directory
from tests.machine import make_ssh_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from tests.ganeti.node import Outcome

HYPERVISORS = ("kvm", "fake")
TEMPLATES = "file,sharedfile,diskless"

# Never Ganeti's own choice of QEMU, /usr/bin/kvm, whose name makes it use KVM. The processor is
# the one that boots fastest under emulation (see tests.machine).
KVM = (
    "kvm:kvm_path=/usr/bin/qemu-system-x86_64,kvm_flag=disabled,cpu_type=qemu64\\,-svm,"
    "kernel_path=,initrd_path=,vnc_bind_address=,kvm_extra=-display none"
)
BOUNDS = "/".join(
    f"{which}:cpu-count={processors},disk-count={disks},disk-size={size},memory-size={memory},"
    f"nic-count={nics},spindle-use={spindles}"
    for which, processors, disks, size, memory, nics, spindles in (
        ("min", 1, 0, 1, 16, 0, 1),
        ("max", 8, 16, 1048576, 32768, 8, 12),
    )
)

DAEMONS = ("ganeti-noded", "ganeti-confd", "ganeti-wconfd", "ganeti-luxid", "ganeti-rapi")
"""What runs on a master. The first two run on every node."""

FILES = {
    "/etc/resolv.conf": "",
    "/etc/ganeti/file-storage-paths": "/srv/ganeti/file-storage\n/srv/ganeti/shared-file-storage\n",
}

PATIENCE = "\nRPC_CONNECT_TIMEOUT = 5\n", "\nRPC_CONNECT_TIMEOUT = 60\n"
"""Seconds that Ganeti waits for one of its daemons to take a call: its own, and ours."""

CONFIGURATION = f"""\
[directories]
state = {{state}}

[image.source.local]
directory = {{images}}

# A slow machine is no reason to take a resumed appliance for dead.
[hypervisor.kvm]
resume_timeout = 120

[network.uplink.100]
interface = eth2
subnet = {outside.UPLINK}
gateway = {outside.UPLINK_GATEWAY}
address = {{spare}}
subnet6 = {outside.UPLINK6}
gateway6 = {outside.UPLINK6_GATEWAY}
"""


@dataclass
class Cluster:
    """A cluster. Its master is the first node."""

    directory: Path
    outside: Outside
    nodes: list[Node] = field(default_factory=list)

    @classmethod
    @contextlib.contextmanager
    def create(
        cls,
        nodes: int = 1,
        hypervisors: Sequence[str] = HYPERVISORS,
        progress: Callable[[str], None] = lambda line: None,
        *,
        kind: type[Node] = Node,
        parameters: str = KVM,
        appliance: bool = True,
    ) -> Iterator[Cluster]:
        """A cluster with our glue installed on every node; afterwards nothing of it is left.

        ``kind`` is what its nodes are, ``parameters`` are those of a hypervisor as gnt-cluster(8)
        has them; without ``appliance`` no instance can be customized.
        """
        with ExitStack() as held:
            cache_directory().mkdir(parents=True, exist_ok=True)
            directory = held.enter_context(workspace.private(cache_directory() / "ganeti"))
            made = cls(directory, held.enter_context(Outside()))
            held.callback(made.stop)
            directory.chmod(0o711)  # for what reads images unprivileged
            made.images.mkdir()
            made.shared.mkdir()
            for number in range(1, nodes + 1):
                made.nodes.append(
                    kind(number, directory / f"node{number}", made.shared, made.outside)
                )
            for node in made.nodes:
                node.start()
                made._furnish(node)
            if appliance:
                made._provide_appliance(progress)
            made._initialise(hypervisors, parameters)
            for node in made.nodes[1:]:
                made._add(node)
            yield made

    @property
    def master(self) -> Node:
        """The node that gnt-* commands run on."""
        return self.nodes[0]

    @functools.cached_property
    def _key(self) -> tuple[Path, str]:
        """The administrator's own key."""
        return make_ssh_key(self.directory)

    @property
    def images(self) -> Path:
        """Where the nodes find images."""
        return self.directory / "images"

    @property
    def shared(self) -> Path:
        """The storage that all nodes share."""
        return self.directory / "shared"

    def run(
        self,
        *words: str | Path,
        check: bool = True,
        stdin: str = "",
        environ: Mapping[str, str] | None = None,
    ) -> Outcome:
        """Run a command on the master: see ``Node.run``."""
        return self.master.run(*words, check=check, stdin=stdin, environ=environ)

    def add_image(self, image: Path, name: str) -> None:
        """Let the nodes find an image file by a name; both are one file."""
        os.link(image, self.images / name)

    def start_daemons(self, node: Node) -> None:
        """Start Ganeti on a node that was switched on again."""
        for daemon in DAEMONS if node is self.master else DAEMONS[:2]:
            node.run("/usr/lib/ganeti/daemon-util", "start", daemon)
        if node is self.master:
            self.run("gnt-cluster", "info")

    def stop(self) -> None:
        """Cut every node's power."""
        for node in self.nodes:
            node.stop()

    def _furnish(self, node: Node) -> None:
        """What an administrator does before a node is one of Ganeti's."""
        hosts = {"127.0.0.1": "localhost", MASTER_ADDRESS: MASTER_NAME}
        hosts |= {one.address: f"{one.name} node{one.number}" for one in self.nodes}
        lines = [f"{address} {name}\n" for address, name in hosts.items()]
        node.write("/etc/hosts", "".join(lines))
        for place, text in FILES.items():
            node.write(place, text)
        # A slow machine is no reason to take a node for dead.
        (constants,) = node.path("/usr/share/ganeti").glob("[3-9]*/ganeti/_constants.py")
        text = constants.read_text()
        assert PATIENCE[0] in text
        constants.write_text(text.replace(*PATIENCE))
        node.path("/srv/ganeti/file-storage").mkdir()
        node.path("/usr/local/bin/snf").symlink_to(SNF)
        spare = f"203.0.113.{240 + node.number}"
        values = {"state": cache_directory(), "images": self.images, "spare": spare}
        node.write("/etc/snf/snf.conf", CONFIGURATION.format(**values))
        if len(self.nodes) > 1:
            self._let_in(node)

    def _provide_appliance(self, progress: Callable[[str], None]) -> None:
        """Build it where it is absent or stale; the nodes see it where it is."""
        file = self.directory / "snf.conf"
        directories = f"state = {cache_directory()}\nruntime = {self.directory / 'run'}\n"
        file.write_text(f"[directories]\n{directories}")
        loaded = config.load(file)
        appliances.provide(loaded, progress)
        identity.reserve(loaded.appliance.user)

    def _let_in(self, node: Node) -> None:
        """Let root log in from node to node, which adding nodes and checking them needs."""
        private, public = self._key
        node.write("/root/.ssh/id_ed25519", private.read_text(), 0o600)
        node.write("/root/.ssh/authorized_keys", public, 0o600)
        node.path("/root/.ssh").chmod(0o700)
        node.run("/etc/init.d/ssh", "start")

    def _initialise(self, hypervisors: Sequence[str], parameters: str) -> None:
        ssh = [] if len(self.nodes) > 1 else ["--no-ssh-init"]
        self.run(
            *("gnt-cluster", "init", *ssh, "--no-etc-hosts"),
            *("--master-netdev=eth0", "--master-netmask=32", "--nic-parameters=link=br0"),
            f"--enabled-hypervisors={','.join(hypervisors)}",
            *(f"--enabled-disk-templates={TEMPLATES}", f"--ipolicy-disk-templates={TEMPLATES}"),
            f"--ipolicy-bounds-specs={BOUNDS}",
            "--ipolicy-std-specs=cpu-count=1,disk-count=1,disk-size=64,memory-size=64,"
            "nic-count=1,spindle-use=1",
            "--file-storage-dir=/srv/ganeti/file-storage",
            *("-H", parameters),
            MASTER_NAME,
        )
        self.master.snf("ganeti", "install")

    def _add(self, node: Node) -> None:
        """Make a node one of the cluster's."""
        self.run("gnt-node", "add", "--no-ssh-key-check", node.name)
        node.snf("ganeti", "install")
