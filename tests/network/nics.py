"""NICs of every setup on one node, for tests of what looks at all of them at once."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any, TypeVar

from snf_core import cli
from tests.network.foreign import COMMANDS
from tests.network.subnet import ROUTED, UPLINK
from tests.network.traffic import NETWORK

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from tests.network.host import Host

    Event = tuple[Sequence[str], Mapping[str, str]]
    """The words behind ``snf network``, and what the NIC's environment has beside NIC."""

T = TypeVar("T")

TABLES = ("bridge snf", "inet snf", "arp snf")

BRIDGED = {"INTERFACE": "tap0"}
FILTERED = {**NETWORK, "INTERFACE": "tap1", "MAC": "aa:00:10:38:54:01"}
PRIVATE = {
    **NETWORK,
    "NETWORK_TAGS": "private-filtered ipv6-privacy",
    "INTERFACE": "tap2",
    "MAC": "aa:00:10:38:54:02",
    "IP": "10.0.0.6",
}
ISOLATED = {
    **NETWORK,
    "INTERFACE": "tap3",
    "MAC": "aa:00:10:38:54:03",
    "IP": "10.0.0.7",
    "TAGS": "gnt:whitelist_ip:10.0.0.9 gnt:whitelist_ip:2001:db8:1::9 disable_ipv6",
}
PROTECTED = {
    **ROUTED,
    "NETWORK_TAGS": "ip-less-routed masq",
    "INTERFACE": "tap4",
    "TAGS": "synnefo:network:0:protected",
}
ALL = (BRIDGED, FILTERED, PRIVATE, ISOLATED, PROTECTED)
"""One of each kind; the last one is routed, masqueraded and behind a firewall."""


def prepare(host: Host, taps: Iterable[str] = ()) -> None:
    """The uplink up0 of routed NICs, prepared, and further taps."""
    host.ip(
        "link add up0 address 02:00:00:00:00:0a type veth peer name up1",
        "link set up1 up",
        "link set up0 up",
        *(f"tuntap add dev {tap} mode tap" for tap in taps),
    )
    host.configure(UPLINK)
    assert host.snf("uplink", "up") == (0, "", "")


def wire(host: Host, nics: Collection[Mapping[str, str]]) -> None:
    """``up`` of one after the other, in one child."""
    failed, output, errors = handled(host, [(["up"], nic) for nic in nics])
    assert (failed, output, errors) == (0, "", ""), errors


def unwire(host: Host, interfaces: Iterable[str]) -> None:
    """``down`` of one after the other, in one child."""
    events = [(["down", one, "false"], {"INTERFACE": one}) for one in interfaces]
    failed, output, errors = handled(host, events)
    assert (failed, output, errors) == (0, "", ""), errors


def handled(host: Host, events: Sequence[Event], *, together: bool = False) -> tuple[int, str, str]:
    """Events, one after the other or all ``together``: how many failed, output, errors."""

    def all_of_them() -> int:
        if together:
            return _together(events)
        common = dict(os.environ)
        failed = 0
        for event in events:
            os.environ.clear()
            os.environ.update(common)
            failed += _handle(event)
        return failed

    return host.fork(all_of_them).ended(timeout=1200)


def _handle(event: Event) -> int:
    words, nic = event
    os.environ.update(nic)
    return cli.main(["network", *words])


def _together(events: Sequence[Event]) -> int:
    """Each in a process of its own, which all begin when the last has been made."""
    reader, writer = os.pipe()
    children = []
    for event in events:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.close(writer)
                os.read(reader, 1)
                status = _handle(event)
                sys.stdout.flush()
            finally:
                os._exit(status)
        children.append(child)
    os.close(writer)
    os.close(reader)
    return sum(os.waitpid(child, 0)[1] != 0 for child in children)


def state(host: Host) -> dict[str, Any]:
    """The kernel's state, but for the order of rules, and for tables that are not ours."""
    found = host.state()
    ours = [one for one in found["nftables"] if isinstance(one, tuple)]
    policy = sorted(found["rules"], key=lambda rule: (rule["priority"], json.dumps(rule)))
    return found | {"nftables": sorted(ours), "rules": policy}


def without_addresses(state: dict[str, Any]) -> dict[str, Any]:
    """A tap begins with an address of chance, and the lowest of all ports may be the bridge's."""
    links = {name: {**link, "address": ""} for name, link in state["links"].items()}
    return {**state, "links": links}


def rules(host: Host) -> list[Any]:
    """What our tables hold but for elements: chains and their rules, in order; sets; maps."""
    found = []
    for entry in host.nft():
        [(kind, what)] = entry.items()
        if kind != "table" and what.get("table") == "snf":
            kept = {name: value for name, value in what.items() if name not in {"handle", "elem"}}
            found.append((kind, kept))
    # A rebuild may load the setups' rules in another order; each has chains of its own.
    return sorted(found, key=lambda one: (one[0], one[1]["family"], _chain(one[1])))


def _chain(what: Mapping[str, Any]) -> str:
    return str(what.get("chain") or what["name"])


def flush(host: Host) -> None:
    """``nft flush ruleset``. Somebody else's tables are made again by somebody else."""
    host.nft("flush ruleset")
    host.ip(*(one.replace(" add ", " delete ", 1) for one in COMMANDS))
    host.foreign.make()


def lose(host: Host) -> None:
    """Our tables are gone, as after ``flush``; somebody else's stay."""
    host.nft("".join(f"add table {one}\ndelete table {one}\n" for one in TABLES))


def reconciled(host: Host) -> list[str]:
    """What ``reconcile`` finds; it must be able to repair all of it."""
    status, output, errors = host.snf("reconcile")
    assert (status, errors) == (0, ""), (output, errors)
    found = output.splitlines()
    assert all(line.endswith("; repaired") for line in found), found
    return found


def check(host: Host) -> list[str]:
    """What ``reconcile --check`` finds; its exit status must say the same."""
    status, output, errors = host.snf("reconcile", "--check")
    assert errors == ""
    found = output.splitlines()
    assert status == (3 if found else 0), output
    return found


def untouched(host: Host, call: Callable[[], T]) -> T:
    """What ``call`` returns; it must change nothing in the kernel, nor in what is kept."""
    before = state(host), rules(host), _files(host)
    result = call()
    assert (state(host), rules(host), _files(host)) == before
    return result


def _files(host: Host) -> dict[str, bytes]:
    return {
        str(path): path.read_bytes()
        for path in host.directory.glob("run/**/*")
        if path.is_file() and path.suffix not in {".lock", ".queue"}
    }
