"""How long a NIC takes to be wired, cold, beside the bare ``ip`` commands that do the same.

Ours is a fresh process, from its start to its exit status: interpreter, configuration, plugins,
validation, state document, kernel. The commands are what a shell script would run, without any
of the checks. A bare interpreter, started and ended, is shown for what no Python can save.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.figures import header, line, milliseconds, ratio
from tests.machine import NetworkNamespace

SNF = Path(sysconfig.get_path("scripts")) / "snf"

NIC = {
    "INTERFACE": "tap0",
    "INTERFACE_INDEX": "0",
    "INSTANCE": "bench.example.org",
    "MAC": "aa:00:10:38:54:25",
    "MODE": "bridged",
    "LINK": "br0",
}

COMMANDS = """
ip link set dev "$INTERFACE" address "fe${MAC#??}"
ip link set dev "$INTERFACE" mtu "$(cat "/sys/class/net/$LINK/mtu")"
ip link set dev "$INTERFACE" master "$LINK"
ip link set dev "$INTERFACE" up
"""


@dataclass(frozen=True)
class Figures:
    """Seconds of each run."""

    ours: list[float] = field(default_factory=list)
    commands: list[float] = field(default_factory=list)
    interpreter: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        note = f"ours takes {ratio(self.ours, self.commands):.1f} times this"
        return "\n".join(
            [
                header("NIC up, cold, bridged", "ms"),
                line("snf network up", milliseconds(self.ours)),
                line("sh and ip", milliseconds(self.commands), note),
                line("a bare interpreter", milliseconds(self.interpreter)),
            ]
        )


def measure(runs: int = 10) -> Figures:
    """Wire a fresh tap both ways, ``runs`` times in turn, in a namespace of its own. Root."""
    figures = Figures()
    with tempfile.TemporaryDirectory() as directory, NetworkNamespace() as namespace:
        configuration = Path(directory) / "snf.conf"
        configuration.write_text(f"[directories]\nruntime = {directory}/run\n")
        environ = {"PATH": os.environ["PATH"], "SNF_CONFIG": str(configuration), **NIC}
        namespace.bridge("br0")
        for _ in range(runs):
            for argv, times in (
                ([str(SNF), "network", "up"], figures.ours),
                (["sh", "-ec", COMMANDS], figures.commands),
                ([sys.executable, "-c", ""], figures.interpreter),
            ):
                namespace.run(["ip", "tuntap", "add", "dev", "tap0", "mode", "tap"])
                times.append(_timed(namespace.command(argv), environ))
                namespace.run(["ip", "link", "delete", "tap0"])
    return figures


def _timed(argv: list[str], environ: dict[str, str]) -> float:
    start = time.perf_counter()
    subprocess.run(argv, env=environ, check=True, stdin=subprocess.DEVNULL)
    return time.perf_counter() - start
