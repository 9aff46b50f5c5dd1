"""Live migration: a real guest moves between two nodes, and its traffic is followed."""

from __future__ import annotations

import contextlib
import socket
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from scapy.layers.l2 import ARP, Ether

from snf_core.contract import Setup
from snf_core.model import Mode
from snf_core.network.eui64 import LINK_LOCAL, eui64
from snf_core.network.state import LINK, Announcement, Item, State
from tests.ganeti import outside
from tests.ganeti.guest import PATIENCE, Guest, Image, Settings
from tests.ganeti.moving import (
    BRIDGED,
    GANETI_3_0,
    GANETI_3_2,
    MAC,
    ROUTED,
    Generation,
    Site,
    site,
)
from tests.ganeti.pings import Pings
from tests.network import packets
from tests.network.subnet import answer, question

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from snf_core.model import NicEvent
    from snf_core.network.node import Node

FILTERED = {**BRIDGED, "NETWORK_TAGS": "filtered"}
PRIVATE = {**BRIDGED, "NETWORK_TAGS": "private-filtered", "NETWORK_MAC_PREFIX": MAC[:8]}
PROTECTED = {**ROUTED, "TAGS": "synnefo:network:0:protected"}
MODES = {"bridged": BRIDGED, "filtered": FILTERED, "routed": ROUTED, "protected": PROTECTED}

COUNTING_PORT = 7
RARP = 0x8035


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """What the guest is booted from."""
    return Image.make(tmp_path_factory.mktemp("guest"))


@pytest.fixture
def nodes(tmp_path: Path, image: Image) -> Iterator[Site]:
    """Two nodes without guests."""
    with site(tmp_path, image) as made:
        yield made


def started(nodes: Site, generation: Generation, nic: dict[str, str], settings: Settings) -> Guest:
    """The guest, running on the source."""
    tap = nodes.tap(nodes.source)
    generation.start(nodes.source, nic)
    guest = nodes.guest("source", settings, tap)
    guest.wait_until_up()
    return guest


def accepted(
    nodes: Site,
    generation: Generation,
    nic: dict[str, str],
    settings: Settings,
    name: str = "target",
) -> Guest:
    """QEMU on the target, waiting for the guest."""
    tap = nodes.tap(nodes.target)
    generation.accept(nodes.target, nic)
    return nodes.guest(name, settings, tap, incoming=True)


def send(guest: Guest, target: Guest) -> None:
    """Begin to migrate."""
    guest.monitor(
        "migrate-set-capabilities", capabilities=[{"capability": "events", "state": True}]
    )
    guest.monitor("migrate", uri=f"unix:{target.incoming}")


def move(
    nodes: Site, generation: Generation, nic: dict[str, str], guest: Guest, target: Guest
) -> None:
    """The guest migrates, and Ganeti ends the migration on both nodes; hooks are not run yet."""
    send(guest, target)
    guest.wait_for_event("MIGRATION", status="completed")
    guest.kill()
    generation.succeeded(nodes.source, nodes.target, nic)


class Counted:
    """Numbers that come by TCP; none may be missing."""

    def __init__(self, nodes: Site, address: str) -> None:
        self._server = packets.inside(
            nodes.outside.name, lambda: socket.create_server((address, COUNTING_PORT))
        )
        self._server.settimeout(PATIENCE)
        self._held = contextlib.ExitStack()
        self._held.enter_context(self._server)
        self._next = 0

    def __enter__(self) -> Counted:
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def accept(self) -> None:
        """Wait until the guest connects."""
        connection, _ = self._server.accept()
        connection.settimeout(PATIENCE)
        with connection:
            self._lines = self._held.enter_context(connection.makefile())

    def more(self, count: int = 40) -> None:
        """So many more numbers come."""
        for _ in range(count):
            assert self._lines.readline() == f"{self._next}\n"
            self._next += 1


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("generation", [GANETI_3_0, GANETI_3_2], ids=lambda one: one.name[-3:])
def test_a_guest_moves_and_is_reached(
    nodes: Site, generation: Generation, mode: str, capsys: pytest.CaptureFixture[str]
) -> None:
    nic = nodes.nic(**MODES[mode])
    gateway = nic["NETWORK_GATEWAY"]
    settings = nodes.settings(nic, COUNT_TO=f'"{gateway} {COUNTING_PORT}"')
    before = nodes.source.state(), nodes.target.state()
    with contextlib.ExitStack() as held:
        counted = held.enter_context(Counted(nodes, gateway))
        guest = started(nodes, generation, nic, settings)
        counted.accept()
        addresses = [settings.words[name].split("/")[0] for name in ("ADDRESS", "ADDRESS6")]
        followed = [held.enter_context(Pings(nodes.outside.name, address)) for address in addresses]

        def reached() -> None:
            for one in followed:
                one.wait_for_answer()
            counted.more()

        reached()
        wired = nodes.source.state()
        target = accepted(nodes, generation, nic, settings)
        reached()
        move(nodes, generation, nic, guest, target)
        reached()
        nodes.hooks(nic)
        reached()

    assert nodes.source.state() == before[0]
    assert nodes.target.state() == wired
    for node in (nodes.source, nodes.target):
        node.check()
    if nic["MODE"] == "routed":
        for address in addresses:
            assert answerers(nodes, address) == {nodes.target.uplink_mac}
    else:
        assert nodes.ports("guests")[MAC] == "guests2"
    with capsys.disabled():
        lines = [f"    {one.address}: {one.figures()}" for one in followed]
        print(f"\n{generation.name}, {mode}:", *lines, sep="\n")


def answerers(nodes: Site, address: str) -> set[str]:
    """The MAC addresses that answer the router's question for a guest's address."""
    router = str(nodes.outside.run(["cat", "/sys/class/net/uplink/address"])).strip()
    six = ":" in address
    by = outside.UPLINK6_GATEWAY if six else outside.UPLINK_GATEWAY
    with packets.peer(nodes.outside.name, "uplink") as port:
        found = set()
        port.send(question(address, by, router))
        for node in (nodes.source, nodes.target):
            # Behind it, so that whoever answers has done so when this is answered.
            own = str(eui64(LINK_LOCAL, node.uplink_mac))
            port.send(question(own, outside.UPLINK6_GATEWAY, router))
            seen: list[tuple[str, str]] = []

            def answered(frame: bytes, own: str = own, seen: list[tuple[str, str]] = seen) -> bool:
                came = answer(frame)
                if came is not None:
                    seen.append(came)
                return came is not None and came[0] == own

            packets.wait_for(port, answered)
            found |= {mac for told, mac in seen if told == address}
    return found


QUIET = {
    "bridged": BRIDGED,
    "filtered": FILTERED,
    "private": PRIVATE,
    "whitelisted": {**BRIDGED, "TAGS": f"gnt:whitelist_ip:{outside.GUESTS_GATEWAY}"},
    "without IPv4": {**BRIDGED, "TAGS": "disable_ipv4"},
}


@pytest.mark.parametrize("mode", QUIET)
def test_switches_learn_where_a_guest_is_that_says_nothing(nodes: Site, mode: str) -> None:
    """Neither it nor its driver speaks, and nobody speaks to it."""
    nic = nodes.nic(**QUIET[mode])
    settings = nodes.settings(nic, ADDRESS="", GATEWAY="", ADDRESS6="", GATEWAY6="")
    settings = replace(settings, announces=False)
    guest = started(nodes, GANETI_3_0, nic, settings)
    nodes.outside.run(f"bridge fdb replace {MAC} dev guests1 master dynamic".split())
    target = accepted(nodes, GANETI_3_0, nic, settings)
    wire = nodes.wire("guests2")
    move(nodes, GANETI_3_0, nic, guest, target)
    told = packets.wait_for(wire, lambda frame: Ether(frame).src == MAC)
    assert Ether(told).type == RARP
    assert nodes.ports("guests")[MAC] == "guests2"


@pytest.mark.parametrize("mode", ["filtered", "routed"])
@pytest.mark.parametrize("generation", [GANETI_3_0, GANETI_3_2], ids=lambda one: one.name[-3:])
def test_a_migration_that_fails(nodes: Site, generation: Generation, mode: str) -> None:
    """The guest goes on where it is; another try succeeds."""
    nic = nodes.nic(**MODES[mode])
    settings = nodes.settings(nic)
    before = nodes.source.state(), nodes.target.state()
    guest = started(nodes, generation, nic, settings)
    wired = nodes.source.state()
    addresses = [settings.words[name].split("/")[0] for name in ("ADDRESS", "ADDRESS6")]
    with (
        Pings(nodes.outside.name, addresses[0]) as pings,
        Pings(nodes.outside.name, addresses[1]) as pings6,
    ):
        for one in (pings, pings6):
            one.wait_for_answer()
        failing = accepted(nodes, generation, nic, settings, "failing")
        guest.monitor("migrate-set-parameters", **{"max-bandwidth": 1 << 16})
        send(guest, failing)
        guest.wait_for_event("MIGRATION", status="active")
        failing.kill()
        guest.wait_for_event("MIGRATION", status="failed")
        generation.failed(nodes.target, nic)
        for one in (pings, pings6):
            one.wait_for_answer()
        assert nodes.source.state() == wired
        nodes.source.check()
        if not generation.downs:
            nodes.target.run("network", "reconcile")  # as its timer does
        assert nodes.target.state() == before[1]
        nodes.target.check()

        target = accepted(nodes, generation, nic, settings)
        guest.monitor("migrate-set-parameters", **{"max-bandwidth": 1 << 30})
        move(nodes, generation, nic, guest, target)
        nodes.hooks(nic)
        for one in (pings, pings6):
            one.wait_for_answer()
    assert nodes.source.state() == before[0]
    assert nodes.target.state() == wired


def test_the_hook_tells_the_router_where_the_guest_is(nodes: Site) -> None:
    """Whatever the source, whose hook may be late, has made it believe meanwhile."""
    nic = nodes.nic(**ROUTED)
    settings = nodes.settings(nic)
    guest = started(nodes, GANETI_3_0, nic, settings)
    move(nodes, GANETI_3_0, nic, guest, accepted(nodes, GANETI_3_0, nic, settings))
    addresses = [settings.words[name].split("/")[0] for name in ("ADDRESS", "ADDRESS6")]
    for address in addresses:
        told = f"{address} lladdr {nodes.source.uplink_mac} dev uplink nud stale"
        nodes.outside.run(f"ip neigh replace {told}".split())
    nodes.hooks(nic)
    deadline = time.monotonic() + PATIENCE
    for address in addresses:
        while nodes.target.uplink_mac not in nodes.outside.run(["ip", "neigh", "show", address]):
            assert time.monotonic() < deadline, nodes.outside.run(["ip", "neigh"])


class External(Setup):
    """An operator's own, for NICs of mode ext: on br0, and announced there."""

    api_version = "1.0"

    def applies(self, event: NicEvent) -> bool:
        """Mode ext."""
        return event.nic is not None and event.nic.mode is Mode.EXTERNAL

    def wanted(self, event: NicEvent, node: Node) -> State:
        """A port of br0, and the address told."""
        assert event.nic is not None
        assert event.nic.ip is not None
        items = (
            Item(LINK, event.interface, "address", "fe:00:00:38:54:25"),
            Item(LINK, event.interface, "master", "br0"),
            Item(LINK, event.interface, "up", True),
        )
        return State(items, (Announcement("br0", event.nic.ip, event.nic.mac),))


def test_nothing_is_announced_before_a_guest_has_moved(
    nodes: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mode ext of Ganeti 3.2, whose script runs before the migration and after it."""
    info = tmp_path / "external_snf-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: external-snf\nVersion: 1.0\n")
    entry = f"[snf.network.setup]\nexternal = {__name__}:{External.__name__}\n"
    (info / "entry_points.txt").write_text(entry)
    monkeypatch.syspath_prepend(str(tmp_path))
    for node in (nodes.source, nodes.target):
        with (node.host.directory / "snf.conf").open("a") as configuration:
            configuration.write("[network]\nsetups = routed, external\n")

    nic = nodes.nic(MODE="ext", LINK="any", IP="198.51.100.10")
    settings = Settings(nodes.image, MAC, {}, announces=False)

    def announced(frame: bytes) -> bool:
        read = Ether(frame)
        return ARP in read and (read[ARP].psrc, read[ARP].hwsrc) == (nic["IP"], MAC)

    wires = [nodes.wire("guests1"), nodes.wire("guests2")]
    before = nodes.source.state(), nodes.target.state()
    guest = started(nodes, GANETI_3_2, nic, settings)
    packets.wait_for(wires[0], announced)
    wired = nodes.source.state()
    target = accepted(nodes, GANETI_3_2, nic, settings)
    assert nodes.target.state() == wired
    with nodes.target.host.peer("br0") as port:
        marker = bytes(Ether(src="02:00:00:00:00:77", dst="ff:ff:ff:ff:ff:ff", type=0x88B5))
        port.send(marker)
        seen = packets.wait_for(wires[1], lambda frame: announced(frame) or frame == marker)
    assert seen == marker
    move(nodes, GANETI_3_2, nic, guest, target)
    packets.wait_for(wires[1], announced)
    assert (nodes.source.state(), nodes.target.state()) == (before[0], wired)
