"""An instance with the Debian image, as its users and its administrator see it."""

from __future__ import annotations

import os
import select
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.machine import MachineError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.ganeti.node import Node
    from tests.ganeti.outside import Outside

PATIENCE = 420
"""Seconds that a boot may take; on an idle machine it takes some forty."""

_CONTROL = "/run/ganeti/kvm-hypervisor"


@dataclass(frozen=True)
class Instance:
    """An instance on KVM on ``node``, in which ``key`` logs in at ``address``."""

    node: Node
    name: str
    address: str
    key: Path

    def wait_until_up(self) -> None:
        """Wait until somebody outside can log in. AssertionError with the console's end if not."""
        deadline = time.monotonic() + PATIENCE
        said = b""
        with socket.socket(socket.AF_UNIX) as console:
            console.connect(os.fspath(self.node.path(f"{_CONTROL}/ctrl/{self.name}.serial")))
            while trouble := self._trouble():
                if select.select([console], [], [], 0.5)[0]:
                    said += console.recv(65536)
                if not self.runs() or time.monotonic() > deadline:
                    break
        shown = "\n".join(said.decode(errors="replace").splitlines()[-30:])
        assert not trouble, f"{self.name}: {trouble}\n--- end of the console:\n{shown}"

    def ssh(self, command: str) -> str:
        """Run a shell command in the guest, from outside: its standard output."""
        return self._outside.ssh(self.address, self.key, command)

    def runs(self) -> bool:
        """Whether it has a QEMU."""
        try:
            pid = self.node.path(f"{_CONTROL}/pid/{self.name}").read_text().strip()
        except FileNotFoundError:
            return False
        return self.node.path(f"/proc/{pid}").exists()

    @property
    def _outside(self) -> Outside:
        return self.node.outside

    def _trouble(self) -> str:
        """Why nobody can log in, empty where one can."""
        try:
            self._outside.run(["timeout", "5", "bash", "-c", f": </dev/tcp/{self.address}/22"])
            self.ssh("true")
        except MachineError as error:
            return str(error)
        return ""
