"""The test dom0 itself as a node of a Ganeti cluster.

Vifs appear in the kernel's first network namespace, and so a node of Xen has none of its own, nor
any other: it is this machine, which is thrown away after the tests.
"""

from __future__ import annotations

import os
from pathlib import Path

from tests.ganeti.node import Node

GANETIS_SCRIPT = Path("/etc/xen/scripts/vif-ganeti")


class Dom0(Node):
    """This machine, with Ganeti's vif script in its place."""

    def start(self) -> None:
        """Name it, and give it its ends of the wires."""
        self.pid = os.getpid()
        self.run("hostname", self.name)
        self.run("mkdir", "-p", "/srv/ganeti/shared-file-storage", "/run/sshd")
        GANETIS_SCRIPT.symlink_to("/usr/lib/ganeti/vif-ganeti")
        self.outside.connect(self.pid, self.number)
        self.run("sh", "-euc", self._links())

    def stop(self) -> None:
        """End Ganeti's daemons, and take our part of the network away."""
        if self.pid:
            self.run("/usr/lib/ganeti/daemon-util", "stop-all", check=False)
            self.run("ip", "link", "delete", "br0", check=False)
            GANETIS_SCRIPT.unlink()
            self.pid = 0

    def command(self, *words: str | Path) -> list[str]:
        """The words themselves."""
        return list(map(str, words))

    def path(self, place: str) -> Path:
        """The path itself."""
        return Path(place)
