"""A filtered NIC on a real bridge, attacked with real frames: Ethernet, ARP, RARP and IPv4."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from scapy.layers.inet import ICMP, TCP, UDP, IPOption_Router_Alert, fragment
from scapy.layers.inet import IP as IPv4
from scapy.layers.inet6 import ICMPv6ND_RA, IPv6
from scapy.layers.l2 import LLC, SNAP, STP, Dot1AD, Dot1Q, Dot3
from scapy.packet import Raw

from tests.network.packets import passed
from tests.network.segment import Case, Segment, attack, segment, use
from tests.network.traffic import (
    EVERYBODY,
    GATEWAY,
    IP,
    MAC,
    MARKER,
    STATION,
    STATION_IP,
    VICTIM,
    VICTIM_IP,
    VICTIM_LINK_LOCAL,
    arp,
    dhcp,
    ethernet,
    ip,
    rarp,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from scapy.packet import Packet

LLDP_GROUP = "01:80:c2:00:00:0e"
STP_GROUP = "01:80:c2:00:00:00"
NEIGHBOUR = "aa:00:10:00:00:42"


def fragments(packet: Packet, size: int) -> list[Packet]:
    """A packet in IPv4 fragments with so many bytes behind their headers."""
    made = fragment(packet[IPv4], size)
    return [ethernet() / one for one in made]


def snap(payload: Packet, code: int) -> Packet:
    """IEEE 802.3 frame of LLC and SNAP."""
    return (
        Dot3(dst=STATION, src=MAC) / LLC(dsap=0xAA, ssap=0xAA, ctrl=3) / SNAP(code=code) / payload
    )


RARP = rarp().payload
STATION_BYTES = bytes.fromhex(STATION.replace(":", ""))

DATA = UDP(sport=4000, dport=4001) / b"data"
OWN = IPv4(src=IP, dst=STATION_IP) / DATA
FOREIGN = IPv4(src=VICTIM_IP, dst=STATION_IP) / DATA
ADVERTISEMENT = IPv6(src=VICTIM_LINK_LOCAL, dst="ff02::1") / ICMPv6ND_RA()
OFFER = dhcp("offer", 67, 68)

ETHERNET = [
    use("own source MAC", ethernet() / OWN),
    attack("source MAC", ethernet(source=VICTIM) / OWN),
    attack("source MAC of the node", ethernet(source="f2:00:00:00:00:01") / OWN),
    attack("VLAN tag", ethernet() / Dot1Q(vlan=7) / OWN),
    attack("VLAN tag, ARP", ethernet(EVERYBODY) / Dot1Q(vlan=7) / arp(psrc=VICTIM_IP).payload),
    attack("priority tag", ethernet() / Dot1Q(vlan=0) / OWN),
    attack("priority tag, router advertisement", ethernet() / Dot1Q(vlan=0) / ADVERTISEMENT),
    attack("two VLAN tags", ethernet() / Dot1Q(vlan=7) / Dot1Q(vlan=8) / OWN),
    attack("two priority tags", ethernet() / Dot1Q(vlan=0) / Dot1Q(vlan=0) / ADVERTISEMENT),
    attack("QinQ", ethernet() / Dot1AD(vlan=7) / Dot1Q(vlan=8) / OWN),
    attack("QinQ with VLAN 0", ethernet() / Dot1AD(vlan=0) / ADVERTISEMENT),
    attack("LLC/SNAP, IPv4", snap(FOREIGN, 0x0800)),
    attack("LLC/SNAP, own IPv4", snap(OWN, 0x0800)),
    attack("LLC/SNAP, IPv6", snap(ADVERTISEMENT, 0x86DD)),
    attack("LLC/SNAP, ARP", snap(arp(psrc=VICTIM_IP).payload, 0x0806)),
    attack(
        "LLC/SNAP behind a priority tag",
        ethernet() / Dot1Q(vlan=0, type=0x2C) / bytes(snap(ADVERTISEMENT, 0x86DD))[14:],
    ),
    attack("STP", Dot3(dst=STP_GROUP, src=MAC) / LLC(dsap=0x42, ssap=0x42, ctrl=3) / STP()),
    attack("IPv4 to STP's group", ethernet(STP_GROUP) / OWN),
    attack("LLDP to everybody", ethernet(EVERYBODY, type=0x88CC) / bytes(60)),
    attack("PPPoE", ethernet(EVERYBODY, type=0x8863) / bytes(60)),
    attack("an unknown type", ethernet(type=0x88B5) / bytes(60)),
    attack("a length for a type", Dot3(dst=STATION, src=MAC) / Raw(bytes(OWN))),
]

ARP_CASES = [
    use("request", arp(pdst=STATION_IP)),
    use("reply", arp(op=2, hwdst=STATION, pdst=STATION_IP)),
    use("probe", arp(psrc="0.0.0.0", pdst=IP)),
    use("announcement", arp(pdst=IP)),
    use("announcement as a reply", arp(op=2, pdst=IP, hwdst=EVERYBODY)),
    attack("sender MAC", arp(hwsrc=VICTIM)),
    attack("sender MAC of a reply", arp(op=2, hwsrc=VICTIM)),
    attack("sender IP", arp(psrc=VICTIM_IP)),
    attack("the gateway's IP", arp(op=2, psrc=GATEWAY, pdst=STATION_IP)),
    attack("announcement of another's", arp(psrc=VICTIM_IP, pdst=VICTIM_IP)),
    attack("probe for another's", arp(psrc="0.0.0.0", pdst=VICTIM_IP)),
    attack("reply from 0.0.0.0", arp(op=2, psrc="0.0.0.0", pdst=IP)),
    attack("reverse request", arp(op=3)),
    attack("hardware type", arp(hwtype=6)),
    attack("protocol type", arp(ptype=0x86DD)),
    attack("hardware length", arp(hwlen=7)),
    attack("protocol length", arp(plen=3)),
    attack("not whole", bytes(arp())[:30]),
]

IPV4_CASES = [
    use("UDP", ip() / DATA),
    use("TCP", ip() / TCP(dport=80, flags="S")),
    use("to a group", ethernet("01:00:5e:00:00:fb") / IPv4(src=IP, dst="224.0.0.251") / DATA),
    use("ping", ip() / ICMP() / b"data"),
    # What follows in later fragments may look like a header that must not pass.
    use("a large ping in fragments", *fragments(ip() / ICMP() / (b"\5\0\0\0" * 750), 1200)),
    use("UDP in fragments", *fragments(ip() / UDP(dport=53) / (b"\0\x43\0\x44" * 750), 1200)),
    use("membership report", ip(proto=2) / bytes.fromhex("16000000e00000fb")),
    use("DHCP discover", ip("0.0.0.0", "255.255.255.255") / dhcp("discover", 68, 67)),
    use("DHCP renewal", ip() / dhcp("discover", 68, 67)),
    attack("source IP", ip(VICTIM_IP) / DATA),
    attack("the gateway's IP", ip(GATEWAY) / ICMP()),
    attack("source IP of later fragments", *fragments(ip(VICTIM_IP) / UDP() / bytes(3000), 1200)),
    attack("from 0.0.0.0", ip("0.0.0.0", "255.255.255.255") / DATA),
    attack("DHCP from 0.0.0.0 to one", ip("0.0.0.0", VICTIM_IP) / dhcp("discover", 68, 67)),
    attack("DHCP offer", ip(destination="255.255.255.255") / OFFER),
    attack("DHCP offer to one", ip() / OFFER),
    attack("DHCP offer from 0.0.0.0", ip("0.0.0.0", "255.255.255.255") / OFFER),
    attack("DHCP offer from another port", ip() / dhcp("offer", 1067, 68)),
    attack("DHCP relay", ip() / dhcp("offer", 67, 67)),
    attack("DHCP offer, first fragment", fragments(ip() / OFFER, 200)[0]),
    attack("DHCP offer, least fragment", fragments(ip() / OFFER, 8)[0]),
    attack("half a UDP header", ip(proto=17, flags="MF") / bytes(OFFER)[:4]),
    attack("DHCP offer behind options", ip(options=[IPOption_Router_Alert()]) / OFFER),
    attack("redirect", ip() / ICMP(type=5, code=1, gw=IP) / bytes(OWN)[:28]),
    attack("router advertisement", ip() / ICMP(type=9) / bytes(8)),
    attack("half an ICMP header", ip(proto=1, flags="MF")),
    attack("membership query", ip(proto=2) / bytes.fromhex("11640000e0000001")),
    attack("multicast router advertisement", ip(proto=2) / bytes.fromhex("30140000")),
    attack("PIM", ip(proto=103) / bytes.fromhex("20000000")),
    attack("another version in the header", ip(version=6) / DATA),
    attack("a header longer than the packet", ip(ihl=15, len=28) / bytes(8)),
    attack("a length beyond the frame", ip(len=1000) / DATA),
]


RARP_CASES = [
    use("announcement by the emulator", rarp()),
    use("the same, padded", bytes(rarp()) + bytes(18)),
    attack("longer than QEMU's", bytes(rarp()) + bytes(19)),
    attack("with a message behind it", bytes(rarp()) + bytes(1000)),
    attack("source MAC", rarp(VICTIM)),
    attack("sender MAC", rarp(hwsrc=VICTIM)),
    attack("target MAC: another's address is asked for", rarp(hwdst=VICTIM)),
    attack("announcement of another", rarp(hwsrc=VICTIM, hwdst=VICTIM)),
    attack("announcement of another by its MAC", rarp(VICTIM, hwsrc=VICTIM, hwdst=VICTIM)),
    attack("sender IP", rarp(psrc=IP)),
    attack("target IP", rarp(pdst=VICTIM_IP)),
    attack("answer of a RARP server", rarp(op=4, pdst=VICTIM_IP)),
    attack("an answer that names none", rarp(op=4)),
    attack("ARP request in it", rarp(op=1)),
    attack("InARP request in it", rarp(op=8)),
    attack("hardware type", rarp(hwtype=6)),
    attack("protocol type", rarp(ptype=0x86DD)),
    attack("hardware length", rarp(hwlen=7)),
    attack("protocol length", rarp(plen=3)),
    attack("to one station", STATION_BYTES + bytes(rarp())[6:]),
    attack("behind a VLAN tag", ethernet(EVERYBODY) / Dot1Q(vlan=7, type=0x8035) / RARP),
    attack("behind a priority tag", ethernet(EVERYBODY) / Dot1Q(vlan=0, type=0x8035) / RARP),
    attack("not whole", bytes(rarp())[:40]),
]


@pytest.fixture(scope="module")
def tenants(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Segment]:
    """A segment where tap0 is filtered."""
    with segment(tmp_path_factory.mktemp("filtered")) as made:
        yield made


@pytest.mark.parametrize("case", ETHERNET, ids=lambda case: case.name)
def test_ethernet(tenants: Segment, case: Case) -> None:
    tenants.check(case)


@pytest.mark.parametrize("case", ARP_CASES, ids=lambda case: case.name)
def test_arp(tenants: Segment, case: Case) -> None:
    tenants.check(case)


@pytest.mark.parametrize("case", RARP_CASES, ids=lambda case: case.name)
def test_rarp(tenants: Segment, case: Case) -> None:
    tenants.check(case)


@pytest.mark.parametrize("case", IPV4_CASES, ids=lambda case: case.name)
def test_ipv4(tenants: Segment, case: Case) -> None:
    tenants.check(case)


def test_nothing_of_that_reaches_the_node_or_another_guest(tenants: Segment) -> None:
    host = tenants.host
    host.ip("tuntap add dev tap2 mode tap")
    host.up(INTERFACE="tap2", MAC=NEIGHBOUR, INSTANCE="neighbour.gnt.test")
    cases = [case for case in (*ETHERNET, *ARP_CASES, *RARP_CASES, *IPV4_CASES) if not case.passes]
    attacks = dict.fromkeys(frame for case in cases for frame in case.frames)
    own_address = host.links()["br0"]["address"]
    with host.peer("br0") as node, host.guest("tap2") as guest:
        for receiver, address in ((node, own_address), (guest, NEIGHBOUR)):
            destination = bytes.fromhex(address.replace(":", ""))
            frames = [destination + one[6:] for one in attacks if one[0] in {0x02, 0xFF}]
            frames = [one for one in dict.fromkeys(frames) if one[6:12] != destination]
            assert passed(tenants.free, receiver, frames, MARKER) == frames
            assert passed(tenants.guarded, receiver, frames, MARKER) == []
            groups = [one for one in attacks if one[0] == 0xFF]
            assert passed(tenants.free, receiver, groups, MARKER) == groups
            assert passed(tenants.guarded, receiver, groups, MARKER) == []


def test_frames_to_the_link_do_not_teach_the_bridge_false_addresses(tenants: Segment) -> None:
    """The bridge learns from LLDP frames before any filter sees them, but where we see to it."""
    forged = ["aa:00:10:00:01:01", "aa:00:10:00:01:02"]
    for sender, mac in zip((tenants.free, tenants.guarded), forged, strict=True):
        frame = bytes(ethernet(LLDP_GROUP, mac, type=0x88CC) / bytes(60))
        passed(sender, tenants.wire, [frame], MARKER)
    learned = tenants.learned()
    assert learned.get(forged[0]) == "tap1"
    assert forged[1] not in learned
    assert learned[MAC] == "tap0"


@pytest.mark.kernel("bridge-conntrack")
def test_a_guest_behind_a_firewall_is_announced(tmp_path: Path) -> None:
    with segment(tmp_path, TAGS="synnefo:network:0:protected") as tenants:
        for case in RARP_CASES:
            tenants.check(case)
