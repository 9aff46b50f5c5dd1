"""What a packet costs on a bridge whose node filters ten thousand NICs.

One NIC sends as fast as the kernel takes it (``tests.bench.flood``), through the bridge, to
another port; what arrives is counted by the kernel. It sends by a tap, as a guest does, and by a
virtual link that is handed thousands of frames at once. In turn: without filters, with ours of so
many NICs, and with those of a rule per NIC, walked in their order, as ebtables had them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path

from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from snf_core import config
from snf_core.model import Action, Mode, Nic, NicEvent
from snf_core.network import command
from tests.bench import many
from tests.bench.figures import header, line, ratio
from tests.bench.flood import Flood, Guest, received
from tests.machine import NetworkNamespace

NICS = 10_000
SECONDS = 1.0

GUEST = "aa:00:01:ff:ff:fe"
ADDRESS = IPv4Address("10.99.0.3")
NONE, OURS, LINEAR = "no filters", f"ours, {NICS} NICs", f"a rule per NIC, {NICS} NICs"


@dataclass
class Figures:
    """Packets per second that arrived, run by run, by how they were sent and the filters."""

    rates: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = []
        for sender, rates in self.rates.items():
            lines.append(header(f"packets through a bridge, {sender}", "thousands per second"))
            for name, values in rates.items():
                note = f"{ratio(values, rates[NONE]):.2f} of none" if name != NONE else ""
                lines.append(line(name, [value / 1000 for value in values], note))
        return "\n".join(lines)


def measure(runs: int = 10) -> Figures:
    """``runs`` of each, in turn, in a namespace of its own. Root."""
    with (
        tempfile.TemporaryDirectory(dir="/dev/shm") as directory,
        NetworkNamespace() as namespace,
    ):
        Path(directory, "snf.conf").write_text(f"[directories]\nruntime = {directory}/run\n")
        environ = {"PATH": os.environ["PATH"], "SNF_CONFIG": f"{directory}/snf.conf"}
        argv = namespace.command([sys.executable, "-m", "tests.bench.forwarding", str(runs)])
        done = subprocess.run(argv, env=environ, check=True, stdout=subprocess.PIPE)
        return Figures(json.loads(done.stdout))


def _prepare() -> None:
    lines = [
        "link add br0 type bridge mcast_snooping 0",
        "link set br0 up",
        "link add port type veth peer name guest",
        "link add wire type veth peer name peer",
        "tuntap add dev tap mode tap",
        *(f"link set {name} up" for name in ("guest", "peer", "wire")),
        "link set wire master br0",
    ]
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True)
    # Else the node's own firewall of IP would be part of each figure.
    for name in ("iptables", "ip6tables", "arptables"):
        path = Path(f"/proc/sys/net/bridge/bridge-nf-call-{name}")
        if path.exists():
            path.write_text("0")
    nic = Nic(0, GUEST, Mode.BRIDGED, "br0", ip=ADDRESS, network=many.FILTERED_NETWORK)
    with command.engine(config.load()) as here:
        here.up(NicEvent(Action.UP, "port", "guest", nic=nic))
        here.up(NicEvent(Action.UP, "tap", "guest", nic=nic))
        elements = [
            item
            for number in range(NICS)
            for item in here.plan(many.event(number, tap="other")).items
        ]
    _add_elements(
        [f"{item.object}|{item.attribute}" for item in elements if item.kind == "element"]
    )


def _add_elements(found: list[str]) -> None:
    """Those of so many NICs, without the NICs: what a packet meets is the same."""
    places: dict[str, set[str]] = {}
    for number, one in enumerate(found):
        place, _, key = one.partition("|")
        family, name = place.split()
        parts = [f'"x{number}"', *(f'"{part}"' for part in key.split()[1:])]
        places.setdefault(f"{family} snf {name}", set()).add(" . ".join(parts))
    text = "".join(f"add element {p} {{ {', '.join(keys)} }}\n" for p, keys in places.items())
    subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)


def _linear() -> str:
    rules = "".join(
        f'  iifname "x{number}" ether saddr != aa:00:00:00:00:01 drop\n' for number in range(NICS)
    )
    hook = "type filter hook forward priority 0; policy accept;"
    return f"table bridge linear {{\n chain forward {{\n  {hook}\n{rules} }}\n}}\n"


def main() -> None:
    """Inside the namespace: print the rates."""
    _prepare()
    frame = bytes(
        Ether(src=GUEST, dst="02:00:00:00:00:99")
        / IP(src=str(ADDRESS), dst="10.99.0.9")
        / UDP(sport=1000, dport=2000)
        / bytes(18)
    )
    senders: dict[str, Flood | Guest] = {
        "from a tap": Guest("tap", frame),
        "from a ring": Flood("guest", frame),
    }
    loaded = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True)
    texts = {NONE: "", OURS: loaded.stdout, LINEAR: _linear()}
    rates: dict[str, dict[str, list[float]]] = {
        sender: {name: [] for name in texts} for sender in senders
    }
    for _ in range(int(sys.argv[1])):
        for name, text in texts.items():
            subprocess.run(
                ["nft", "-f", "-"], input=f"flush ruleset\n{text}", text=True, check=True
            )
            time.sleep(0.2)
            for sender, ring in senders.items():
                before = received("peer")
                seconds = ring.send(SECONDS)
                rates[sender][name].append((received("peer") - before) / seconds)
    for ring in senders.values():
        ring.close()
    print(json.dumps(rates))


if __name__ == "__main__":
    main()
