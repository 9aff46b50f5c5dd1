"""Many NICs at once, made and wired in one process: ``python -m tests.bench.many WHAT N``.

Run inside a network namespace, with the configuration of $SNF_CONFIG. ``fill`` makes N taps and
wires them, ``change`` wires one more and takes it down again and again. Prints a JSON object with
the seconds of each.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING

from snf_core import config
from snf_core.model import Action, Mode, Network, Nic, NicEvent
from snf_core.network import command

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from snf_core.network.kernel import Kernel
    from snf_core.network.state import Change, Key

PER_BRIDGE = 1000
"""A bridge takes 1023 ports (BR_PORT_BITS in net/bridge/br_private.h)."""

ROUTED_NETWORK = Network(
    "public",
    subnet=IPv4Network("10.0.0.0/8"),
    gateway=IPv4Address("10.0.0.1"),
    subnet6=IPv6Network("2001:db8::/64"),
    gateway6=IPv6Address("2001:db8::1"),
    tags=frozenset({"ip-less-routed"}),
)
FILTERED_NETWORK = Network(
    "private",
    subnet=IPv4Network("10.0.0.0/8"),
    subnet6=IPv6Network("2001:db8::/64"),
    tags=frozenset({"private-filtered"}),
)


def event(number: int, mode: Mode = Mode.BRIDGED, tap: str = "") -> NicEvent:
    """The event of the NIC ``number``; ``tap`` instead of the tap of that number."""
    high, middle, low = (number + 2) >> 16, (number + 2) >> 8 & 255, (number + 2) & 255
    bridged = mode is Mode.BRIDGED
    nic = Nic(
        0,
        f"aa:00:01:{high:02x}:{middle:02x}:{low:02x}",
        mode,
        link=f"br{0 if tap else number // PER_BRIDGE}" if bridged else "100",
        ip=IPv4Address(f"10.{high}.{middle}.{low}"),
        network=FILTERED_NETWORK if bridged else ROUTED_NETWORK,
    )
    return NicEvent(Action.UP, tap or f"tap{number}", f"instance{number}", nic=nic)


def fill(count: int) -> dict[str, list[float]]:
    """Make and wire ``count`` NICs of a private network."""
    bridges = range((count - 1) // PER_BRIDGE + 1)
    lines = [f"link add br{number} type bridge" for number in bridges if number]
    lines += [f"link set br{number} up" for number in bridges if number]
    lines += [f"tuntap add dev tap{number} mode tap" for number in range(count)]
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True)
    taken = []
    for number in range(count):
        with command.engine(config.load()) as here:
            start = time.perf_counter()
            here.up(event(number))
            taken.append(time.perf_counter() - start)
    return {"up": taken}


def change(rounds: int) -> dict[str, list[float]]:
    """Wire tap "one" and take it down, ``rounds`` times, both ways; only the kernel's part."""
    found: dict[str, list[float]] = {}
    for mode in (Mode.BRIDGED, Mode.ROUTED):
        times: list[float] = []
        for _ in range(rounds + 1):
            subprocess.run(["ip", "tuntap", "add", "dev", "one", "mode", "tap"], check=True)
            with command.engine(config.load()) as here:
                seconds = _watched(here.kernel)
                here.up(event(60_000, mode, "one"))
                times.append(sum(seconds))
            with command.engine(config.load()) as here:
                here.down(NicEvent(Action.DOWN, "one", ""))
            subprocess.run(["ip", "link", "delete", "one"], check=True)
        found[mode.value] = times[1:]  # the first one imports
    return found


def _watched(kernel: Kernel) -> list[float]:
    """A list that gets the seconds of each call that changes the kernel."""
    seconds: list[float] = []
    apply = kernel.apply

    def timed(gate: str, changes: Sequence[Change]) -> Collection[Key]:
        start = time.perf_counter()
        try:
            return apply(gate, changes)
        finally:
            seconds.append(time.perf_counter() - start)

    kernel.apply = timed  # type: ignore[method-assign]
    return seconds


def main() -> None:
    """Do it."""
    what, count = sys.argv[1], int(sys.argv[2])
    print(json.dumps({"fill": fill, "change": change}[what](count)))


if __name__ == "__main__":
    main()
