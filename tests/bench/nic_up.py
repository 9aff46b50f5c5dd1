"""How long a NIC takes to be wired, cold, beside the bare ``ip`` commands that do the same.

Ours is a fresh process, from its start to its exit status: interpreter, configuration, plugins,
validation, state document, kernel. The commands are what a shell script would run, without any
of the checks. A bare interpreter, started and ended, is shown for what no Python can save.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

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

    @property
    def ratio(self) -> float:
        """Our time in parts of the commands', by the medians."""
        return statistics.median(self.ours) / statistics.median(self.commands)

    def __str__(self) -> str:
        return "\n".join(
            [
                f"NIC up, cold, bridged, {len(self.ours)} runs each (ms: median, min, max)",
                f"  snf network up     {_milliseconds(self.ours)}",
                f"  sh and ip          {_milliseconds(self.commands)}   ratio {self.ratio:.1f}",
                f"  bare interpreter   {_milliseconds(self.interpreter)}",
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


def _milliseconds(times: list[float]) -> str:
    figures = (statistics.median(times), min(times), max(times))
    return " ".join(f"{1000 * figure:7.1f}" for figure in figures)


if __name__ == "__main__":
    print(measure())
