"""What tags of an instance shut, with real packets, both ways."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from scapy.layers.inet import IP as IPv4
from scapy.layers.inet import UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, ICMPv6ND_RA, ICMPv6ND_RS, IPv6
from scapy.layers.l2 import Dot1Q, Ether

from tests.network import subnet as net
from tests.network.packets import passed, wait_for
from tests.network.segment import Segment, segment
from tests.network.traffic import (
    EVERYBODY,
    GLOBAL,
    IP,
    MAC,
    MARKER,
    NETWORK,
    STATION,
    STATION_GLOBAL,
    STATION_IP,
    VICTIM_GLOBAL,
    VICTIM_IP,
    advertisement,
    arp,
    ethernet,
    ip,
    ip6,
    rarp,
    solicitation,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scapy.packet import Packet

    from tests.network.conftest import Host
    from tests.network.packets import Port

PLAIN = {"NETWORK_TAGS": "bridged"}
DATA = UDP(sport=4000, dport=4001) / b"data"
ARP_MARKER = bytes(arp(STATION, hwsrc=STATION, psrc=STATION_IP, pdst="10.0.0.254"))
"""From outside to everybody."""


@pytest.fixture
def tenants(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Segment]:
    """A segment where nothing is shut yet."""
    with segment(tmp_path_factory.mktemp("isolation"), **PLAIN) as made:
        yield made


def shut(tenants: Segment, tags: str) -> None:
    """The guarded guest's owner sets tags of the instance."""
    tenants.host.up(**{**NETWORK, **PLAIN, "TAGS": tags})


def outside(source: str, payload: Packet, destination: str = MAC) -> bytes:
    """From a station outside to the guest."""
    header = IPv6(src=source, dst=GLOBAL) if ":" in source else IPv4(src=source, dst=IP)
    return bytes(ethernet(destination, STATION) / header / payload)


SENT = {
    "arp": bytes(arp()),
    "listed": bytes(ip() / DATA),
    "other": bytes(ip(destination=VICTIM_IP) / DATA),
    "broadcast": bytes(ip(destination="255.255.255.255") / DATA),
    "listed6": bytes(ip6() / DATA),
    "other6": bytes(ip6(destination=VICTIM_GLOBAL) / DATA),
    "ping other6": bytes(ip6(destination=VICTIM_GLOBAL) / ICMPv6EchoRequest()),
    "solicitation": bytes(ip6() / solicitation(STATION_GLOBAL)),
    "router solicitation": bytes(ip6(destination="ff02::2") / ICMPv6ND_RS()),
    "tagged": bytes(ethernet() / Dot1Q(vlan=7) / ip().payload / DATA),
    "tagged6": bytes(ethernet() / Dot1Q(vlan=7) / ip6().payload / DATA),
    "unknown": bytes(ethernet(type=0x88B5) / bytes(60)),
    "migrated": bytes(rarp()),
    "migrated, padded": bytes(rarp()) + bytes(18),
    "migrated, and more": bytes(rarp()) + bytes(19),
    "rarp": bytes(rarp(psrc=IP)),
}

RECEIVED = {
    "arp": bytes(arp(STATION, op=2, hwsrc=STATION, psrc=VICTIM_IP)),
    "listed": outside(STATION_IP, DATA),
    "other": outside(VICTIM_IP, DATA),
    "broadcast": outside(VICTIM_IP, DATA / b"more", EVERYBODY),
    "listed6": outside(STATION_GLOBAL, DATA),
    "other6": outside(VICTIM_GLOBAL, DATA),
    "ping other6": outside(VICTIM_GLOBAL, ICMPv6EchoRequest()),
    "advertisement": outside(STATION_GLOBAL, advertisement(STATION_GLOBAL)),
    "router advertisement": outside("fe80::1", ICMPv6ND_RA()),
    "unknown": bytes(ethernet(MAC, STATION, type=0x88B5) / bytes(60)),
}

LISTED = f"gnt:whitelist_ip:{STATION_IP}"
LISTED6 = f"gnt:whitelist_ip:{STATION_GLOBAL.upper()}"
NEIGHBOURS = {"arp", "solicitation", "router solicitation", "advertisement", "router advertisement"}
MIGRATED = {"migrated", "migrated, padded"}
NEIGHBOURS |= MIGRATED
FOUR = {"arp", "rarp", "migrated, and more", "listed", "other", "broadcast", "tagged"}


def names(frames: dict[str, bytes], arrived: list[bytes]) -> set[str]:
    """What has arrived."""
    return {name for name, frame in frames.items() if frame in arrived}


@pytest.mark.parametrize(
    ("tags", "allowed"),
    [
        (LISTED, NEIGHBOURS | {"listed"}),
        (LISTED6, NEIGHBOURS | {"listed6"}),
        (f"{LISTED} {LISTED6} gnt:whitelist_ip:10.0.0.8", NEIGHBOURS | {"listed", "listed6"}),
        ("disable_ipv4", (SENT.keys() | RECEIVED.keys()) - FOUR),
        ("disable_ipv6", FOUR | MIGRATED | {"unknown"}),
        (f"{LISTED} disable_ipv6", MIGRATED | {"arp", "listed"}),
    ],
)
def test_what_is_shut_on_a_bridge(tenants: Segment, tags: str, allowed: set[str]) -> None:
    guest, wire = tenants.guarded, tenants.wire
    assert names(SENT, passed(guest, wire, [*SENT.values()], MARKER)) == SENT.keys()
    assert names(RECEIVED, passed(wire, guest, [*RECEIVED.values()], ARP_MARKER)) == RECEIVED.keys()
    shut(tenants, tags)
    mark, mark_back = MARKER, ARP_MARKER
    if "disable_ipv4" in tags:
        mark = bytes(ip6(destination="ff02::1") / DATA)
        mark_back = outside(STATION_GLOBAL, DATA / b"mark")
    assert names(SENT, passed(guest, wire, [*SENT.values()], mark)) == SENT.keys() & allowed
    arrived = passed(wire, guest, [*RECEIVED.values()], mark_back)
    assert names(RECEIVED, arrived) == RECEIVED.keys() & allowed


def test_isolated_on_a_bridge(tenants: Segment) -> None:
    guest, wire, free = tenants.guarded, tenants.wire, tenants.free
    sent = [*SENT.values(), bytes(ethernet("01:80:c2:00:00:00", type=0x88CC) / bytes(60))]
    received = [frame for frame in RECEIVED.values() if frame[0] == 0xFF]
    assert passed(guest, wire, sent, MARKER) == sent
    assert passed(wire, guest, received, ARP_MARKER) == received
    shut(tenants, f"gnt:isolate {LISTED}")
    for frame in sent:
        guest.send(frame)
    assert others(free, wire, sent) == []
    guest.drain()
    assert passed(wire, free, received, ARP_MARKER) == received
    assert guest.drain() == []
    forged = bytes(ethernet("01:80:c2:00:00:0e", "aa:00:10:00:03:03", type=0x88CC) / bytes(60))
    guest.send(forged)
    assert "aa:00:10:00:03:03" not in tenants.learned()
    shut(tenants, "")
    assert passed(guest, wire, sent, MARKER) == sent


def others(sender: Port, receiver: Port, frames: list[bytes]) -> list[bytes]:
    """Which of the frames that somebody else has sent arrive, before or after the marker."""
    arrived = []

    def marked(frame: bytes) -> bool:
        arrived.append(frame)
        return frame == MARKER

    sender.send(MARKER)
    wait_for(receiver, marked)
    return [frame for frame in (*arrived, *receiver.drain(0.05)) if frame in frames]


def datagram(text: str, destination: str) -> bytes:
    """From the routed guest."""
    source = net.IP6 if ":" in destination else net.IP
    header = (IPv6 if ":" in destination else IPv4)(src=source, dst=destination)
    return bytes(Ether(src=net.MAC, dst=net.TAP_MAC) / header / UDP(dport=9) / text.encode())


def incoming(text: str, source: str) -> bytes:
    """To the routed guest, on the wire."""
    destination = net.IP6 if ":" in source else net.IP
    header = (IPv6 if ":" in source else IPv4)(src=source, dst=destination)
    return bytes(Ether(src=net.WIRE_MAC, dst=net.NODE_MAC) / header / UDP(dport=9) / text.encode())


def last(frame: bytes) -> bytes:
    """What a router leaves of the frames above."""
    return frame[-6:]


@pytest.fixture
def routed(host: Host) -> Iterator[net.Subnet]:
    """A subnet and its prepared uplink, the neighbours known."""
    with net.subnet(host) as made:
        made.up()
        host.up(**net.ROUTED)
        know(host, net.IP, net.IP6)
        yield made


def know(host: Host, *own: str) -> None:
    """Tell the node what it would ask for, the guest's ``own`` addresses among that."""
    host.ip(
        *(f"neigh replace {one} lladdr {net.MAC} dev tap0" for one in own),
        *(
            f"neigh replace {one} lladdr {net.WIRE_MAC} dev up0"
            for one in (net.OTHER, net.FREE, net.OTHER6, net.FREE6)
        ),
    )


DIRECTIONS = {"other4": net.OTHER, "free4.": net.FREE, "other6": net.OTHER6, "free6.": net.FREE6}


@pytest.mark.parametrize(
    ("tags", "allowed"),
    [
        ("", DIRECTIONS.keys()),
        (f"gnt:whitelist_ip:{net.OTHER}", {"other4"}),
        (f"gnt:whitelist_ip:{net.OTHER6} gnt:whitelist_ip:{net.FREE}", {"other6", "free4."}),
        ("disable_ipv4", {"other6", "free6."}),
        ("disable_ipv6", {"other4", "free4."}),
        ("gnt:isolate", set()),
    ],
)
def test_what_is_shut_for_a_routed_guest(routed: net.Subnet, tags: str, allowed: set[str]) -> None:
    node = routed.node
    node.ip("tuntap add dev tap1 mode tap")
    node.up(INTERFACE="tap1", **net.ROUTED_2)
    node.ip(f"neigh replace {net.IP_2} lladdr {net.MAC_2} dev tap1")
    guest, second, wire = node.guest("tap0"), node.guest("tap1"), routed.wire()
    out = {name: datagram(name, address) for name, address in DIRECTIONS.items()}
    back = {name: incoming(name, address) for name, address in DIRECTIONS.items()}
    mark = datagram("mark..", net.OTHER)
    mark_back = incoming("mark..", net.OTHER)
    assert len(passed(guest, wire, [*out.values()], mark, known_by=last)) == len(out)
    assert len(passed(wire, guest, [*back.values()], mark_back, known_by=last)) == len(back)
    node.up(**net.ROUTED, TAGS=tags)
    know(node, *([net.IP] if "disable_ipv6" in tags else [net.IP, net.IP6]))
    # What the second guest sends and gets says when the first one's must have come.
    own = Ether(src=net.MAC_2, dst=net.TAP_MAC) / IPv4(src=net.IP_2, dst=net.OTHER)
    for frame in out.values():
        guest.send(frame)
    second.send(bytes(own / UDP(dport=9) / b"second"))
    arrived: list[bytes] = []

    def marked(frame: bytes) -> bool:
        arrived.append(last(frame))
        return last(frame) == b"second"

    wait_for(wire, marked)
    arrived += map(last, wire.drain(0.05))
    assert {name for name in out if name.encode() in arrived} == allowed
    guest.drain()
    for frame in back.values():
        wire.send(frame)
    to_second = Ether(src=net.WIRE_MAC, dst=net.NODE_MAC) / IPv4(src=net.OTHER, dst=net.IP_2)
    wire.send(bytes(to_second / UDP(dport=9) / b"second"))
    wait_for(second, lambda frame: last(frame) == b"second")
    arrived = [last(frame) for frame in guest.drain(0.05)]
    assert {name for name in back if name.encode() in arrived} == allowed


def test_an_isolated_routed_guest_gets_no_answers(routed: net.Subnet) -> None:
    """ARP does not come by where IP does."""
    node = routed.node
    node.ip("tuntap add dev tap1 mode tap")
    node.up(INTERFACE="tap1", **net.ROUTED_2)
    guest, second = node.guest("tap0"), node.guest("tap1")
    assert net.answered(guest, [net.FREE], net.GATEWAY, net.IP, net.MAC) == [net.FREE]
    node.up(**net.ROUTED, TAGS="gnt:isolate")
    guest.drain(0.05)
    guest.send(net.question(net.FREE, net.IP, net.MAC))
    assert net.answered(second, [], net.GATEWAY, net.IP_2, net.MAC_2) == []
    assert guest.drain(0.05) == []


@pytest.mark.parametrize(
    ("nic", "words"),
    [
        ({"TAGS": "gnt:whitelist_ip:everybody"}, "'gnt:whitelist_ip:everybody' names no address"),
        ({"TAGS": "gnt:whitelist_ip:10.0.0.0/8"}, "names no address"),
        ({"TAGS": "gnt:whitelist_ip:"}, "names no address"),
        ({"TAGS": "gnt:isolate", "MODE": "openvswitch"}, "gnt:isolate"),
        ({"TAGS": "disable_ipv6", "MODE": "openvswitch"}, "disable_ipv6"),
    ],
    ids=lambda value: value["TAGS"] if isinstance(value, dict) else "",
)
def test_what_cannot_be_shut_is_refused(host: Host, nic: dict[str, str], words: str) -> None:
    status, _, errors = host.snf("up", **nic)
    assert status == 1
    assert words in errors
    assert host.links()["tap0"]["master"] is None
