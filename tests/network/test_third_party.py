"""A setup of somebody else's, the example of the authors' guide, found by its entry point alone."""

from __future__ import annotations

import configparser
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether

from tests.network import nics
from tests.network.packets import passed
from tests.network.subnet import ROUTED, UPLINK

if TYPE_CHECKING:
    from tests.network.host import Host
    from tests.network.packets import Port

ACME = Path(__file__).parents[2] / "docs/examples/acme"

SETUPS = "\n[network]\nsetups = bridged, routed, filtered, acme-mail\n"
TAG = "acme:no-mail"

GUEST, OTHER = "aa:00:10:38:54:25", "aa:00:10:38:54:26"
STATION = "02:00:00:00:00:99"
TAP_MAC = "cc:47:52:4e:45:54"
ADDRESS, ADDRESS_2, OUTSIDE = "198.51.100.10", "198.51.100.11", "192.0.2.80"

BRIDGED = {"NETWORK_NAME": "office", "NETWORK_TAGS": TAG, "INTERFACE": "tap0", "MAC": GUEST}
BRIDGED_2 = {"NETWORK_NAME": "other", "INTERFACE": "tap1", "MAC": OTHER}
ROUTED_1 = {**ROUTED, "MAC": GUEST, "NETWORK_TAGS": f"ip-less-routed {TAG}", "INTERFACE": "tap0"}
ROUTED_2 = {**ROUTED, "MAC": OTHER, "IP": ADDRESS_2, "INTERFACE": "tap1"}


@pytest.fixture
def node(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A node on which the distribution acme-snf can be found, but is not installed."""
    settings = configparser.ConfigParser()
    settings.read(ACME / "setup.cfg")
    points = settings["options.entry_points"]
    info = tmp_path / "site" / "acme_snf-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-snf\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "".join(f"[{group}]{lines}\n" for group, lines in points.items())
    )
    for directory in (info.parent, ACME):
        monkeypatch.syspath_prepend(str(directory))
    host.configure(SETUPS)
    host.ip("tuntap add dev tap1 mode tap")
    return host


def segment(port: int, mac: str = GUEST, address: str = ADDRESS, to: str = STATION) -> bytes:
    """The beginning of a TCP connection from a guest."""
    packet = Ether(src=mac, dst=to) / IP(src=address, dst=OUTSIDE) / TCP(sport=4000, dport=port)
    return bytes(packet)


def known(frame: bytes) -> bytes:
    """What a router does not change of a packet: addresses and ports."""
    return frame[26:38]


def let_through(guest: Port, wire: Port, mac: str, address: str, to: str) -> set[int]:
    """The TCP ports, of some, that a guest reaches somebody at."""
    frames = {segment(port, mac, address, to): port for port in (25, 26, 80, 587)}
    marker = bytes(Ether(src=mac, dst=to) / IP(src=address, dst=OUTSIDE) / UDP(sport=4000, dport=9))
    return {frames[one] for one in passed(guest, wire, [*frames], marker, known_by=known)}


def test_on_a_bridge(node: Host) -> None:
    before = nics.state(node)
    nics.wire(node, [BRIDGED, BRIDGED_2])
    guest, other, wire = node.guest("tap0"), node.guest("tap1"), node.peer("wire0")
    assert let_through(guest, wire, GUEST, ADDRESS, STATION) == {26, 80, 587}
    assert let_through(other, wire, OTHER, ADDRESS_2, STATION) == {25, 26, 80, 587}
    assert node.elements("bridge", "acme_mail_nics") == ["tap0"]

    node.up(**BRIDGED | {"NETWORK_TAGS": ""})
    assert let_through(guest, wire, GUEST, ADDRESS, STATION) == {25, 26, 80, 587}
    node.up(**BRIDGED)
    assert let_through(guest, wire, GUEST, ADDRESS, STATION) == {26, 80, 587}

    nics.lose(node)
    assert let_through(guest, wire, GUEST, ADDRESS, STATION) == {25, 26, 80, 587}
    assert any("acme-mail-bridged" in line for line in nics.check(node))
    nics.reconciled(node)
    assert let_through(guest, wire, GUEST, ADDRESS, STATION) == {26, 80, 587}

    nics.unwire(node, ["tap0", "tap1"])
    assert nics.state(node) == before
    assert node.elements("bridge", "acme_mail_nics") == []


def test_routed(node: Host) -> None:
    node.ip(
        "link add up0 address 02:00:00:00:00:0a type veth peer name up1 address " + STATION,
        "link set up1 up",
        "link set up0 up",
    )
    node.configure(UPLINK + SETUPS)
    assert node.snf("uplink", "up") == (0, "", "")
    node.ip(f"neigh add 198.51.100.1 lladdr {STATION} dev up0 nud permanent")
    before = nics.state(node)
    nics.wire(node, [ROUTED_1, ROUTED_2])
    guest, other, wire = node.guest("tap0"), node.guest("tap1"), node.peer("up1")
    assert let_through(guest, wire, GUEST, ADDRESS, TAP_MAC) == {26, 80, 587}
    assert let_through(other, wire, OTHER, ADDRESS_2, TAP_MAC) == {25, 26, 80, 587}

    node.up(**ROUTED_1 | {"NETWORK_TAGS": "ip-less-routed"})
    assert let_through(guest, wire, GUEST, ADDRESS, TAP_MAC) == {25, 26, 80, 587}

    node.up(**ROUTED_1)
    assert node.elements("inet", "acme_mail_nics") == ["tap0"]
    nics.unwire(node, ["tap0", "tap1"])
    assert nics.state(node) == before
    assert node.elements("inet", "acme_mail_nics") == []


def test_it_is_one_of_the_setups_by_name(node: Host) -> None:
    plan = node.snf("plan", **BRIDGED)[1]
    assert "element bridge acme_mail_nics tap0 yes (acme-mail)\n" in plan
    node.up(**BRIDGED)
    assert "element bridge acme_mail_nics tap0 yes (acme-mail)\n" in node.snf("status")[1]
    node.configure("\n[network]\nsetups = acme-mail\n")
    status, _, errors = node.snf("up", INTERFACE="tap1", NETWORK_NAME="plain")
    assert status == 1
    assert "acme-mail serves networks tagged acme:no-mail" in errors


def test_it_is_not_there_any_more(node: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """A NIC that relies on it can be taken down, and other NICs go on, once it is not in use."""
    before = nics.state(node)
    node.up(**BRIDGED)
    node.configure("\n[network]\nsetups = bridged\n")
    status, _, errors = node.snf("up", **BRIDGED_2)
    assert status == 0, errors
    nics.unwire(node, ["tap0", "tap1"])
    assert nics.state(node) == before
    monkeypatch.undo()
    node.configure(SETUPS)
    status, _, errors = node.snf("up", **BRIDGED_2)
    assert status == 1
    assert "there is no plugin 'acme-mail' in snf.network.setup" in errors
    assert nics.state(node) == before
