"""A node of its own for each test: a network namespace with a bridge, a tap and a foreign port."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.machine import NetworkNamespace

if TYPE_CHECKING:
    from collections.abc import Iterator

SNF = Path(sysconfig.get_path("scripts")) / "snf"
HERE = Path(__file__).parent

NIC = {
    "INTERFACE": "tap0",
    "INTERFACE_INDEX": "0",
    "INTERFACE_UUID": "3cd35ad8-7b4a-4b0c-8d7c-6f3d8b8f2a01",
    "INSTANCE": "web1.gnt.test",
    "MAC": "aa:00:10:38:54:25",
    "MODE": "bridged",
    "LINK": "br0",
    "BRIDGE": "br0",
    "VLAN": "",
    "TAGS": "",
}
"""What Ganeti 3.0 passes for a NIC without a network."""


@dataclass(frozen=True)
class Host:
    """The node. Everything it is asked, it asks its kernel."""

    namespace: NetworkNamespace
    directory: Path

    def start(self, *words: str, **nic: str) -> subprocess.Popen[str]:
        """Start ``snf network ...`` for the NIC, changed by ``nic``."""
        return self._start([str(SNF), "network", *words], nic)

    def snf(self, *words: str, **nic: str) -> tuple[int, str, str]:
        """Run ``snf network ...`` to its end: status, standard output, standard error."""
        return _ended(self.start(*words, **nic))

    def up(self, **nic: str) -> None:
        """``snf network up``, as Ganeti 3.0 calls it; it must succeed."""
        assert self.snf("up", **nic) == (0, "", "")

    def down(self, interface: str = "tap0", local_only: str = "false") -> None:
        """``snf network down``, as Ganeti 3.1 calls it; it must succeed."""
        status, _, errors = self.snf("down", interface, local_only, INTERFACE=interface)
        assert (status, errors) == (0, "")

    def interrupted_up(self, when: str, attribute: str, action: str) -> tuple[int, str, str]:
        """An up that meets ``action`` when it is about to set, or has set, an attribute."""
        return _ended(self.start_interrupted(when, attribute, action))

    def start_interrupted(
        self, when: str, attribute: str, action: str, **nic: str
    ) -> subprocess.Popen[str]:
        """The same, started. See ``interrupted.py``."""
        program = [sys.executable, str(HERE / "interrupted.py")]
        return self._start([*program, when, attribute, action], nic)

    def _start(self, argv: list[str], nic: dict[str, str]) -> subprocess.Popen[str]:
        settings = {"PATH": os.environ["PATH"], "SNF_CONFIG": str(self.directory / "snf.conf")}
        return subprocess.Popen(
            self.namespace.command(argv),
            env=settings | NIC | nic,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ip(self, words: str) -> str:
        """Run ``ip ...``."""
        return self.namespace.run(["ip", *words.split()])

    def links(self) -> dict[str, dict[str, Any]]:
        """Every interface as the kernel has it: mtu, master, up, address."""
        return {
            link["ifname"]: {
                "mtu": link["mtu"],
                "master": link.get("master"),
                "up": "UP" in link["flags"],
                "address": link["address"],
            }
            for link in json.loads(self.ip("-json -details link show"))
        }

    @property
    def documents(self) -> Path:
        """Where the state documents are."""
        return self.directory / "run/network"

    def left(self) -> list[str]:
        """The files that are kept."""
        return sorted(path.name for path in self.documents.iterdir())


def _ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    try:
        output, errors = process.communicate(timeout=60)
    except BaseException:
        process.kill()
        process.communicate()
        raise
    return process.returncode, output, errors


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """br0 (MTU 1400) with the foreign port veth0, whose other end is wire0; tap0 is unwired."""
    (tmp_path / "snf.conf").write_text(f"[directories]\nruntime = {tmp_path / 'run'}\n")
    with NetworkNamespace() as namespace:
        made = Host(namespace, tmp_path)
        namespace.bridge("br0")
        made.ip("link set br0 mtu 1400")
        # Above a guest's MAC address, below the one that the host's side gets.
        made.ip("link add veth0 address f2:00:00:00:00:01 mtu 1400 type veth peer name wire0")
        made.ip("link set wire0 mtu 1400 up")
        made.ip("link set veth0 master br0 up")
        made.ip("tuntap add dev tap0 mode tap")
        yield made
