"""tests/network's nodes, where the first taps are NICs of a real guest: vifs, with a domU behind.

A test module that wants that says ``pytestmark = pytest.mark.usefixtures("attacker")``. The domU
is made once for the module. Its vifs are moved from the node's namespace of the one test to that
of the next, under the names that the tests know; wiring them is the tests' own business. What
happens from ``xl create`` on is the business of test_wired and test_vif.
"""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from scapy.layers.l2 import Ether

from tests.machine import NetworkNamespace
from tests.network import host, packets
from tests.network.host import Host
from tests.xen import domu

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.network.packets import Port

NAMES = {"tap0": 0, "tap1": 1}
"""The interfaces of tests that are vifs here, and which NICs of the guest they are."""

_SCRIPT = """\
#!/bin/sh
# Nothing is wired: only Xen is told to go on.
[ "$1" != online ] || exec /usr/bin/xenstore-write "$XENBUS_PATH/hotplug-status" connected
"""

_TAP = re.compile(r"tuntap add dev (\w+) mode tap")


class Dom0(NetworkNamespace):
    """The network namespace of dom0 itself, where vifs appear, by a name."""

    def __enter__(self) -> Dom0:
        ip("netns", "attach", self.name, str(os.getpid()))
        return self


def ip(*words: str) -> None:
    """ip(8) in dom0 itself; AssertionError with its words where it fails."""
    done = subprocess.run(["ip", *words], check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"


def in_order(namespace: NetworkNamespace, vif: str) -> None:
    """What is sent to a guest arrives in its order, as with taps, whose queue is always empty.

    The usual queue discipline, fq_codel, lets the first frame of another flow overtake.
    """
    namespace.run(["tc", "qdisc", "replace", "dev", vif, "root", "pfifo"])


class VifHost(Host):
    """A node of which some taps are the vifs of ``attacker``."""

    attacker: ClassVar[domu.Guest]
    dom0: ClassVar[Dom0]

    def ip(self, *commands: str) -> list[Any]:
        """See ``Host``; a tap of NAMES that is to be made comes from dom0."""
        shown: list[Any] = []
        waiting: list[str] = []
        for command in commands:
            made = _TAP.fullmatch(command)
            if made and made[1] in NAMES:
                shown += super().ip(*waiting)
                waiting = []
                vif = self.attacker.vif(NAMES[made[1]])
                ip("link", "set", vif, "netns", self.namespace.name, "name", made[1])
                in_order(self.namespace, made[1])
            else:
                waiting.append(command)
        return [*shown, *super().ip(*waiting)]

    def guest(self, tap: str = "tap0") -> Port:
        """See ``Host``: the attacker's end."""
        if tap not in NAMES:
            return super().guest(tap)
        return self.attacker.port(f"eth{NAMES[tap]}")

    def close(self) -> None:
        """The vifs go back to dom0, nothing of this test in them."""
        super().close()
        for tap in NAMES.keys() & self.links().keys():
            vif = self.attacker.vif(NAMES[tap])
            ip("-n", self.namespace.name, "link", "set", tap, "netns", "1", "name", vif)
            self._empty(vif, NAMES[tap])

    def _empty(self, vif: str, number: int) -> None:
        """What the guest sent while its vif was down waits in the ring."""
        marker = bytes(Ether(dst="ff:ff:ff:ff:ff:ff", type=0x88B5) / b"the ring is empty")
        ip("link", "set", vif, "up")
        with packets.peer(self.dom0.name, vif) as station:
            packets.passed(self.attacker.port(f"eth{number}"), station, [], marker)
        ip("link", "set", vif, "down")


@pytest.fixture(scope="module")
def attacker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[domu.Guest]:
    """A domU with two NICs, eth0 and eth1, which are tap0 and tap1 of the nodes of tests."""
    script = tmp_path_factory.mktemp("scripts") / "vif-connect"
    script.write_text(_SCRIPT)
    script.chmod(0o755)
    vifs = [f"mac=aa:00:00:00:00:0{number},script={script}" for number in NAMES.values()]
    with Dom0() as dom0, domu.Guest("attacker.gnt.test", vifs) as guest:
        guest.run("ip link set eth0 mtu 9000 up && ip link set eth1 mtu 9000 up")
        VifHost.attacker, VifHost.dom0 = guest, dom0
        host.KIND = VifHost
        try:
            yield guest
        finally:
            host.KIND = Host
