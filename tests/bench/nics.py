"""A NIC among many: how long it takes to be wired, cold, beside the commands of the past.

For each number of NICs that the node has already, one more is wired: by ``snf network up`` in a
fresh process, from its start to its exit status, and by commands (``tests.bench.commands``), on
a node that has none of theirs yet, which favours them: each of their insertions rewrites a table
that grows with the node. Then what the kernel's part of it is, what it takes to look all NICs
through, and many events at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench import commands
from tests.bench.figures import header, line, milliseconds, ratio
from tests.machine import NetworkNamespace

if TYPE_CHECKING:
    from collections.abc import Iterator

SNF = Path(sysconfig.get_path("scripts")) / "snf"

COUNTS = (1, 100, 1000, 10_000)

TOGETHER = 200

NIC = {
    "INTERFACE": "tap",
    "INTERFACE_INDEX": "0",
    "INSTANCE": "bench.example.org",
    "MAC": "aa:00:01:ff:ff:fe",
    "IP": "10.99.0.3",
    "NETWORK_NAME": "net1",
    "NETWORK_SUBNET": "10.0.0.0/8",
    "NETWORK_GATEWAY": "10.0.0.1",
    "NETWORK_SUBNET6": "2001:db8::/64",
    "NETWORK_GATEWAY6": "2001:db8::1",
}
FILTERED = NIC | {"MODE": "bridged", "LINK": "br0", "NETWORK_TAGS": "private-filtered"}
ROUTED = NIC | {"MODE": "routed", "LINK": "100", "NETWORK_TAGS": "ip-less-routed"}
IP6 = "2001:db8::a800:1ff:feff:fffe"

UPLINK = """
[network.uplink.100]
interface = eth1
subnet = 10.0.0.0/8
gateway = 10.0.0.1
address = 10.0.0.2
subnet6 = 2001:db8::/64
gateway6 = 2001:db8::1
"""


@dataclass
class Figures:
    """Seconds of each run, by what was run and, where it is ours, by the number of NICs."""

    up: dict[str, dict[int, list[float]]] = field(default_factory=dict)
    commands: dict[str, list[float]] = field(default_factory=dict)
    kernel: dict[str, dict[int, list[float]]] = field(default_factory=dict)
    reconcile: dict[int, list[float]] = field(default_factory=dict)
    interpreter: list[float] = field(default_factory=list)
    together: list[float] = field(default_factory=list)
    failures: int = 0

    def __str__(self) -> str:
        lines = [header("NIC up, cold, on a node that has N NICs", "ms")]
        for kind, by_count in self.up.items():
            peers = [
                self.commands[name]
                for name in self.commands
                if kind.startswith(name.partition(":")[0])
            ]
            for count, values in by_count.items():
                note = f"commands / ours: {ratio(peers[0], values):.1f}" if peers else ""
                lines.append(line(f"snf network up, {kind}, N = {count}", _ms(values), note))
        lines += [line(name, _ms(values)) for name, values in self.commands.items()]
        lines.append(line("a bare interpreter", _ms(self.interpreter)))
        lines.append(header("the kernel's part: transaction, sysctls, batch", "ms"))
        for kind, by_count in self.kernel.items():
            for count, values in by_count.items():
                lines.append(line(f"{kind}, N = {count}", _ms(values)))
        lines.append(header("snf network reconcile --check, cold, nothing wrong", "s"))
        lines += [line(f"N = {count}", values) for count, values in self.reconcile.items()]
        rate = f"{TOGETHER / statistics.median(self.together):.1f} per second"
        lines.append(header(f"{TOGETHER} events at once, filtered", "s"))
        lines.append(line("all wired", self.together, f"{rate}, {self.failures} failed"))
        return "\n".join(lines)


def measure(runs: int = 10) -> Figures:
    """``runs`` of each, in namespaces of their own. Root."""
    figures = Figures()
    for count in COUNTS:
        with _node() as node:
            node.many("fill", count)
            for name, nic in (("filtered", FILTERED), ("routed", ROUTED)):
                for left, what in ((False, name), (True, f"{name} where one has vanished")):
                    argv = [str(SNF), "network", "up"]
                    times = [node.timed(argv, nic, left=left) for _ in range(runs + 1)]
                    figures.up.setdefault(what, {})[count] = times[1:]  # the first loads rules
            subprocess.run(
                node.namespace.command([str(SNF), "network", "reconcile"]),
                env=node.environ,
                check=True,
                stdout=subprocess.DEVNULL,
            )
            for name, values in node.many("change", runs).items():
                figures.kernel.setdefault(name, {})[count] = values
            figures.reconcile[count] = [node.reconciled() for _ in range(min(runs, 5))]
    with _node() as node:
        lock = f"{node.directory}/lock"
        scripts = {
            "filtered: ip, ebtables behind a lock": (
                commands.filtered(sys.executable, lock),
                FILTERED,
            ),
            "filtered: the same, unlocked": (commands.filtered_unlocked(), FILTERED),
            "routed: ip, arptables, iptables, arping": (
                commands.announced(),
                ROUTED | {"IP6": IP6},
            ),
            "routed: the same, unannounced": (commands.routed(), ROUTED | {"IP6": IP6}),
        }
        for name, (script, nic) in scripts.items():
            argv = ["sh", "-c", script]
            figures.commands[name] = [node.timed(argv, nic) for _ in range(runs)]
        argv = [sys.executable, "-c", ""]
        figures.interpreter = [node.timed(argv, {}) for _ in range(runs)]
    with _node() as node:
        figures.together, figures.failures = node.together(min(runs, 3))
    return figures


@dataclass(frozen=True)
class _Node:
    namespace: NetworkNamespace
    directory: str

    @property
    def environ(self) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "SNF_CONFIG": f"{self.directory}/snf.conf"}

    def many(self, what: str, number: int) -> dict[str, list[float]]:
        """``tests.bench.many`` in the namespace."""
        argv = self.namespace.command([sys.executable, "-m", "tests.bench.many", what, str(number)])
        done = subprocess.run(argv, env=self.environ, check=True, stdout=subprocess.PIPE)
        found: dict[str, list[float]] = json.loads(done.stdout)
        return found

    def timed(self, argv: list[str], nic: dict[str, str], *, left: bool = True) -> float:
        """Seconds that a program takes to wire a fresh tap; its complaints are its own affair.

        ``left`` is whether the tap of the run before went without a word to anybody.
        """
        self.namespace.run(["ip", "tuntap", "add", "dev", "tap", "mode", "tap"])
        start = time.perf_counter()
        done = subprocess.run(
            self.namespace.command(argv),
            env=self.environ | nic,
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        seconds = time.perf_counter() - start
        if argv[0] == str(SNF) and done.returncode != 0:
            raise RuntimeError(f"{argv}: {done.stderr}")
        if not left:
            down = self.namespace.command([str(SNF), "network", "down", "tap"])
            subprocess.run(down, env=self.environ, check=True)
        self.namespace.run(["ip", "link", "delete", "tap"])
        return seconds

    def reconciled(self) -> float:
        """Seconds that ``snf network reconcile --check`` takes to find that nothing is wrong."""
        argv = self.namespace.command([str(SNF), "network", "reconcile", "--check"])
        start = time.perf_counter()
        subprocess.run(argv, env=self.environ, check=True)
        return time.perf_counter() - start

    def together(self, rounds: int) -> tuple[list[float], int]:
        """Seconds until ``TOGETHER`` events that begin at once are over; how many failed."""
        times, failed = [], 0
        for _ in range(rounds):
            taps = [f"tap{number}" for number in range(TOGETHER)]
            batch = "\n".join(f"tuntap add dev {tap} mode tap" for tap in taps)
            self._batch(batch)
            start = time.perf_counter()
            events = [
                subprocess.Popen(
                    self.namespace.command([str(SNF), "network", "up"]),
                    env=self.environ
                    | FILTERED
                    | {
                        "INTERFACE": tap,
                        "MAC": f"aa:00:01:00:00:{number:02x}",
                        "IP": f"10.9.9.{number}",
                    },
                    stdin=subprocess.DEVNULL,
                )
                for number, tap in enumerate(taps)
            ]
            failed += sum(event.wait() != 0 for event in events)
            times.append(time.perf_counter() - start)
            listed = self.namespace.run(["nft", "list", "set", "inet", "snf", "nics"])
            failed += sum(f'"{tap}"' not in listed for tap in taps)
            self._batch("\n".join(f"link delete {tap}" for tap in taps))
        return times, failed

    def _batch(self, lines: str) -> None:
        argv = self.namespace.command(["ip", "-batch", "-"])
        subprocess.run(argv, input=lines, text=True, check=True)


@contextlib.contextmanager
def _node() -> Iterator[_Node]:
    """A node with the bridge br0 and the uplink eth1. Its state is in memory, as /run is."""
    with (
        tempfile.TemporaryDirectory(dir="/dev/shm") as directory,
        NetworkNamespace() as namespace,
    ):
        Path(directory, "snf.conf").write_text(
            f"[directories]\nruntime = {directory}/run\n{UPLINK}"
        )
        node = _Node(namespace, directory)
        namespace.bridge("br0")
        namespace.run(["ip", "link", "add", "eth1", "type", "veth", "peer", "name", "wan"])
        namespace.run(["ip", "link", "set", "wan", "up"])
        namespace.run(["ip", "link", "set", "eth1", "up"])
        argv = namespace.command([str(SNF), "network", "uplink", "up"])
        subprocess.run(argv, env=node.environ, check=True)
        yield node


def _ms(values: list[float]) -> list[float]:
    return milliseconds(values)
