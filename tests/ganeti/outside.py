"""What is outside the nodes: the wires between them, and the rest of the world on them.

=========== ======================= ========================================================
bridge      subnet                  what it is
=========== ======================= ========================================================
management  192.0.2.0/24            the nodes' own network; here 192.0.2.254
guests      198.51.100.0/24         what every node's br0 is part of; here the gateway, .1,
            2001:db8:1::/64         and ::1
uplink      203.0.113.0/24          the wire behind the nodes' uplinks, to which routed guests
            2001:db8:2::/64         belong; here the router, .1, and ::1
=========== ======================= ========================================================
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from tests.machine import MachineError, NetworkNamespace

if TYPE_CHECKING:
    from pathlib import Path

MANAGEMENT, MANAGEMENT_ADDRESS = "192.0.2", "192.0.2.254"
GUESTS, GUESTS_GATEWAY = "198.51.100.0/24", "198.51.100.1"
GUESTS6, GUESTS6_GATEWAY = "2001:db8:1::/64", "2001:db8:1::1"
UPLINK, UPLINK_GATEWAY = "203.0.113.0/24", "203.0.113.1"
UPLINK6, UPLINK6_GATEWAY = "2001:db8:2::/64", "2001:db8:2::1"

BRIDGES = {
    "management": [f"{MANAGEMENT_ADDRESS}/24"],
    "guests": [f"{GUESTS_GATEWAY}/24", f"{GUESTS6_GATEWAY}/64"],
    "uplink": [f"{UPLINK_GATEWAY}/24", f"{UPLINK6_GATEWAY}/64"],
}

SSH_OPTIONS = {
    "IdentitiesOnly": "yes",
    "BatchMode": "yes",
    "StrictHostKeyChecking": "no",
    "UserKnownHostsFile": "/dev/null",
    "LogLevel": "ERROR",
    "ConnectTimeout": "20",
}


class Outside(NetworkNamespace):
    """The namespace of the wires; ``run`` runs a program there."""

    def __enter__(self) -> Outside:
        super().__enter__()
        try:
            for name, addresses in BRIDGES.items():
                self.bridge(name, *addresses)
        except BaseException:
            self._delete()
            raise
        return self

    def connect(self, pid: int, number: int) -> None:
        """Give the network namespace of a process its ends of the wires: eth0, eth1 and eth2."""
        for end, bridge in enumerate(BRIDGES):
            here = f"{bridge[:8]}{number}"
            # Another's namespace goes away a moment after its processes, and its wires with it.
            with contextlib.suppress(MachineError):
                self.run(["ip", "link", "delete", here])
            there = ["peer", "name", f"eth{end}", "netns", str(pid)]
            self.run(["ip", "link", "add", here, "type", "veth", *there])
            self.run(["ip", "link", "set", here, "master", bridge, "up"])

    def ssh(self, address: str, key: Path, command: str, user: str = "root") -> str:
        """Run a shell command in whatever answers at an address; its standard output.

        Raises MachineError where that cannot be reached, does not let us in, or fails.
        """
        options = [f"-o{name}={value}" for name, value in SSH_OPTIONS.items()]
        return self.run(
            ["ssh", "-F", "none", *options, "-i", str(key), f"{user}@{address}", command]
        )
