"""A network segment with tenants: a guest whose NIC is wired in a way, and one that is not guarded.

What must not pass is shown to pass from the unguarded guest, so that a test cannot succeed for a
frame that is dropped anyway. ``Case`` is one frame, or packet of several frames, that the guarded
guest sends.
"""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.machine import NetworkNamespace
from tests.network.host import LINKS, Host, node
from tests.network.packets import Port, passed
from tests.network.traffic import MARKER, NETWORK, STATION

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from scapy.packet import Packet


class Case(NamedTuple):
    """What the guarded guest sends."""

    name: str
    frames: Sequence[bytes]
    passes: bool


def attack(name: str, *packets: Packet | bytes) -> Case:
    """What must not pass."""
    return Case(name, [bytes(one) for one in packets], passes=False)


def use(name: str, *packets: Packet | bytes) -> Case:
    """What must pass."""
    return Case(name, [bytes(one) for one in packets], passes=True)


@dataclass
class Segment:
    """br0 with the far end wire0 of a port of it; tap0 is wired, tap1 too but not guarded."""

    host: Host
    guarded: Port
    free: Port
    wire: Port

    def check(self, case: Case) -> None:
        """It arrives from the unguarded guest; from the guarded one only where it should."""
        sent = list(case.frames)
        assert passed(self.free, self.wire, sent, MARKER) == sent
        assert passed(self.guarded, self.wire, sent, MARKER) == (sent if case.passes else [])

    def learned(self) -> dict[str, str]:
        """The MAC addresses that the bridge has learned, and by which port."""
        listing = subprocess.run(
            ["bridge", "-n", self.host.namespace.name, "fdb", "show", "br", "br0"],
            capture_output=True,
            check=True,
            text=True,
        )
        lines = [line.split() for line in listing.stdout.splitlines()]
        return {words[0]: words[2] for words in lines if "permanent" not in words}


@contextmanager
def segment(directory: Path, **nic: str) -> Iterator[Segment]:
    """A segment on a node of its own, tap0 wired with ``nic`` and NETWORK."""
    with NetworkNamespace() as namespace:
        host = node(namespace, directory)
        try:
            # Groups are flooded, whoever has asked for them.
            host.ip(*LINKS.splitlines(), "link set br0 type bridge mcast_snooping 0")
            host.ip("tuntap add dev tap1 mode tap")
            host.inside(_leave_frames_alone)
            host.up(**{**NETWORK, **nic})
            host.up(INTERFACE="tap1", MAC=STATION, INSTANCE="free.gnt.test")
            yield Segment(host, host.guest("tap0"), host.guest("tap1"), host.peer("wire0"))
        finally:
            host.close()


def _leave_frames_alone() -> None:
    """Where br_netfilter is loaded, it drops malformed packets that other nodes would forward."""
    for path in Path("/proc/sys/net/bridge").glob("bridge-nf-call-*tables"):
        path.write_text("0")
