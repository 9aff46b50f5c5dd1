"""The setup ``firewall``: who may begin a conversation with a guest, tried with real packets."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoRequest,
    ICMPv6MLQuery2,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6PacketTooBig,
    IPv6,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    fragment6,
)
from scapy.layers.l2 import ARP, LLC, SNAP, Dot1Q, Dot3, Ether
from scapy.layers.sctp import SCTP
from scapy.packet import Raw

from tests.network import linked
from tests.network.packets import TIMEOUT, Port, passed, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from scapy.packet import Packet

    from tests.network.host import Host

MAC = "aa:00:10:38:54:25"
ADDRESS = {4: "10.1.0.2", 6: "fd00:1::2"}
"""The guest's."""
STATION = "02:00:00:00:00:99"
OUTSIDE = {4: "10.2.0.2", 6: "fd00:2::2"}
"""Somebody else's, who is at wire0."""
TAIL = 8
"""Bytes at the end of each frame by which it is known on the other side of a router."""

FILTERED = {"NETWORK_NAME": "net1", "NETWORK_TAGS": "filtered", "IP": ADDRESS[4]}
PROFILES = "[network.setup.firewall]\nprofile = web: tcp 80, udp 8000-8099\n"


def tag(profile: str) -> str:
    return f"synnefo:network:0:{profile}"


def tail(frame: bytes) -> bytes:
    return frame[-TAIL:]


@pytest.fixture(autouse=True)
def _linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    linked.install(tmp_path, monkeypatch)


@dataclass
class Wired:
    """A NIC with a firewall, and how to send packets to its guest and from it."""

    host: Host
    guest: Port
    station: Port
    routers: tuple[str, str]
    """The MAC addresses to which a station and a guest send."""

    def __post_init__(self) -> None:
        self.number = 0

    def to_guest(self, version: int, layers: Packet, source: str = "") -> bytes:
        """From outside to the guest; each frame has another end."""
        head = Ether(dst=self.routers[0], src=STATION)
        return self._frame(head, version, source or OUTSIDE[version], ADDRESS[version], layers)

    def from_guest(self, version: int, layers: Packet, source: str = "") -> bytes:
        """From the guest to who is outside."""
        head = Ether(dst=self.routers[1], src=MAC)
        return self._frame(head, version, source or ADDRESS[version], OUTSIDE[version], layers)

    def _frame(
        self, head: Packet, version: int, source: str, destination: str, layers: Packet
    ) -> bytes:
        self.number += 1
        ip = IP if version == 4 else IPv6
        return bytes(head / ip(src=source, dst=destination) / layers / self.number.to_bytes(TAIL))

    def arriving(self, frames: list[bytes]) -> list[bytes]:
        """Those that reach the guest. An echo request, which always does, is the marker."""
        marker = self.to_guest(4, ICMP())
        return passed(self.station, self.guest, frames, marker, known_by=tail)

    def leave(self, *frames: bytes) -> None:
        """The guest sends them, and they reach who is outside."""
        marker = self.from_guest(4, ICMP())
        assert passed(self.guest, self.station, list(frames), marker, known_by=tail) == list(frames)


def bridged(host: Host, *tags: str, **nic: str) -> Wired:
    """The guest is on the same bridge as who is outside."""
    host.configure(PROFILES)
    status, output, _ = host.snf("up", TAGS=" ".join(tags), **nic)
    assert (status, output) == (0, "")
    return Wired(host, host.guest(), host.peer(), (MAC, STATION))


def routed(host: Host, *tags: str) -> Wired:
    """The node routes between the tap and the bridge; the test makes all of that by itself."""
    host.configure(PROFILES + "[network]\nsetups = linked,firewall\n")
    host.ip("link set tap0 up")  # so that it stays when the NIC is taken down
    status, output, _ = host.snf("up", MODE="routed", LINK="100", TAGS=" ".join(tags))
    assert (status, output) == (0, "")
    host.ip(
        "link set tap0 address 02:00:00:00:01:01 mtu 1400 up",
        "link set br0 address 02:00:00:00:02:01",
        "address add 10.1.0.1/24 dev tap0",
        "address add 10.2.0.1/24 dev br0",
        f"neigh add {ADDRESS[4]} lladdr {MAC} dev tap0 nud permanent",
        f"neigh add {OUTSIDE[4]} lladdr {STATION} dev br0 nud permanent",
        "-6 address add fd00:1::1/64 dev tap0 nodad",
        "-6 address add fd00:2::1/64 dev br0 nodad",
        f"-6 neigh add {ADDRESS[6]} lladdr {MAC} dev tap0 nud permanent",
        f"-6 neigh add {OUTSIDE[6]} lladdr {STATION} dev br0 nud permanent",
    )
    host.sysctl("net/ipv4/ip_forward", "1")
    host.sysctl("net/ipv6/conf/all/forwarding", "1")
    return Wired(host, host.guest(), host.peer(), ("02:00:00:00:02:01", "02:00:00:00:01:01"))


BRIDGED = pytest.mark.kernel("bridge-conntrack")


@pytest.fixture(params=[pytest.param(bridged, marks=BRIDGED), routed], ids=lambda it: it.__name__)
def wire(request: pytest.FixtureRequest, host: Host) -> Callable[..., Wired]:
    """Wires tap0 with instance tags, bridged or routed."""

    def wired(*tags: str) -> Wired:
        made: Wired = request.param(host, *tags)
        return made

    return wired


both = pytest.mark.parametrize("version", [4, 6])

NEW: dict[str, Packet] = {
    "ssh": TCP(sport=40000, dport=22, flags="S"),
    "rdp": TCP(sport=40000, dport=3389, flags="S"),
    "http": TCP(sport=40000, dport=80, flags="S"),
    "syn-ack": TCP(sport=80, dport=40000, flags="SA", ack=1),
    "ack": TCP(sport=80, dport=40000, flags="A", ack=1),
    "rst": TCP(sport=80, dport=40000, flags="R"),
    "dns answer": UDP(sport=53, dport=40000),
    "udp": UDP(sport=40000, dport=8050),
    "below the range": UDP(sport=40000, dport=7999),
    "above the range": UDP(sport=40000, dport=8100),
    "dhcp request": UDP(sport=68, dport=67),
    "from dhcp's port": UDP(sport=67, dport=69),
    "sctp": SCTP(sport=40000, dport=22),
    "gre": Raw(bytes.fromhex("00000800")),
}


def new(wired: Wired, version: int) -> dict[bytes, str]:
    """The first packets of conversations, by what they are."""
    protocols = {"gre": 47}
    frames = {}
    for name, layers in NEW.items():
        frame = wired.to_guest(version, layers.copy())
        if name in protocols:
            at = 14 + (9 if version == 4 else 6)
            packet = Ether(frame[:at] + bytes([protocols[name]]) + frame[at + 1 :])
            if version == 4:
                del packet[IP].chksum
            frame = bytes(packet)
        frames[frame] = name
    return frames


def opened(wired: Wired, version: int) -> list[str]:
    frames = new(wired, version)
    return [frames[frame] for frame in wired.arriving(list(frames))]


@both
@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        ("protected", []),
        ("limited", ["ssh", "rdp"]),
        ("web", ["http", "udp"]),
    ],
)
def test_only_what_a_profile_opens_can_be_begun(
    wire: Callable[..., Wired], profile: str, expected: list[str], version: int
) -> None:
    assert opened(wire(tag(profile)), version) == expected


@both
def test_without_protection_and_after_down_everything_passes(host: Host, version: int) -> None:
    host.configure(PROFILES)
    host.up(TAGS=tag("unprotected"))
    wired = Wired(host, host.guest(), host.peer(), (MAC, STATION))
    assert opened(wired, version) == list(NEW)


@both
def test_down_takes_the_firewall_away(host: Host, version: int) -> None:
    wired = routed(host, tag("protected"))
    assert opened(wired, version) == []
    host.down()
    host.ip("link set tap0 up")
    assert opened(wired, version) == list(NEW)
    (profiles,) = host.nft("list map inet snf firewall_profiles")
    assert "elem" not in profiles["map"]


@both
def test_the_strictest_of_two_tags_stands(wire: Callable[..., Wired], version: int) -> None:
    assert opened(wire(tag("limited"), "synnefo:network:0:protected"), version) == []


@both
def test_what_the_guest_begins_is_answered(wire: Callable[..., Wired], version: int) -> None:
    wired = wire(tag("protected"))
    tcp = TCP(sport=50000, dport=443, seq=100, flags="S")
    wired.leave(
        wired.from_guest(version, tcp), wired.from_guest(version, UDP(sport=50000, dport=53))
    )
    answers = [
        wired.to_guest(version, TCP(sport=443, dport=50000, seq=900, ack=109, flags="SA")),
        wired.to_guest(version, UDP(sport=53, dport=50000)),
    ]
    others = [
        wired.to_guest(version, TCP(sport=443, dport=50001, seq=900, ack=109, flags="SA")),
        wired.to_guest(version, TCP(sport=444, dport=50000, seq=900, ack=109, flags="SA")),
        wired.to_guest(version, UDP(sport=53, dport=50001)),
        wired.to_guest(version, UDP(sport=53, dport=50000), source=somebody(version)),
    ]
    assert wired.arriving(others + answers) == answers
    wired.leave(wired.from_guest(version, TCP(sport=50000, dport=443, seq=109, ack=909, flags="A")))
    more = [wired.to_guest(version, TCP(sport=443, dport=50000, seq=909, ack=117, flags="PA"))]
    assert wired.arriving(more) == more


def somebody(version: int) -> str:
    return {4: "10.2.0.3", 6: "fd00:2::3"}[version]


def pieces(frame: bytes, number: int) -> list[bytes]:
    """A packet of UDP in two fragments that say they are of packet ``number``."""
    read = Ether(frame)
    link = Ether(dst=read.dst, src=read.src)
    if IP in read:
        read[IP].id = number
        return [bytes(link / one) for one in fragment(read[IP], 1200)]
    whole = IPv6(src=read[IPv6].src, dst=read[IPv6].dst)
    whole = whole / IPv6ExtHdrFragment(id=number) / read[UDP]
    return [bytes(link / one) for one in fragment6(whole, 1280)]


@both
def test_an_answer_in_fragments_arrives_and_nothing_else_in_fragments(
    wire: Callable[..., Wired], version: int
) -> None:
    """A router may cut otherwise than the sender, but the last fragment ends as it did."""
    wired = wire(tag("protected"))
    wired.leave(wired.from_guest(version, UDP(sport=50000, dport=53)))
    payload = bytes(number % 251 for number in range(2000))
    frame = wired.to_guest(version, UDP(sport=53, dport=50000) / payload)
    other = wired.to_guest(version, UDP(sport=53, dport=50001) / payload)
    assert wired.arriving(pieces(other, 1)[1:]) == []
    assert wired.arriving(pieces(other, 2)) == []
    answer = pieces(frame, 3)
    assert len(answer) == 2
    assert wired.arriving(answer)[-1] == answer[1]


@both
def test_errors_and_what_ipv6_needs_always_pass(wire: Callable[..., Wired], version: int) -> None:
    wired = wire(tag("protected"))
    inner: Packet
    if version == 4:
        inner = IP(src=ADDRESS[4], dst="10.9.0.1") / UDP(sport=1, dport=2)
        frames = [
            wired.to_guest(4, ICMP(type=3, code=4, nexthopmtu=1280) / inner),
            wired.to_guest(4, ICMP(type=11) / inner),
            wired.to_guest(4, ICMP(type=8)),
        ]
    else:
        inner = IPv6(src=ADDRESS[6], dst="fd00:9::1") / UDP(sport=1, dport=2)
        frames = [
            wired.to_guest(6, ICMPv6PacketTooBig(mtu=1280) / inner),
            wired.to_guest(6, ICMPv6DestUnreach(code=4) / inner),
            wired.to_guest(6, ICMPv6EchoRequest()),
        ]
    assert wired.arriving(frames) == frames


@pytest.mark.kernel("bridge-conntrack")
def test_what_a_segment_needs_reaches_a_bridged_guest(host: Host) -> None:
    """ARP, neighbour discovery, router advertisements, MLD queries, DHCP answers; nothing else."""
    host.ip("link set br0 type bridge mcast_snooping 0")
    wired = bridged(host, tag("protected"))
    link = Ether(dst=MAC, src=STATION)
    group = Ether(dst="33:33:00:00:00:01", src=STATION)
    everybody = Ether(dst="ff:ff:ff:ff:ff:ff", src=STATION)
    local = IPv6(src="fe80::99", dst="ff02::1", hlim=255)
    broadcast = IP(src="10.2.0.9", dst="255.255.255.255")
    needed = [
        everybody / ARP(hwsrc=STATION, psrc=OUTSIDE[4], pdst=ADDRESS[4]),
        link / ARP(op=2, hwsrc=STATION, psrc=OUTSIDE[4], pdst=ADDRESS[4]),
        group / local / ICMPv6ND_NS(tgt=ADDRESS[6]),
        group / local / ICMPv6ND_RA(),
        group
        / IPv6(src="fe80::99", dst="ff02::1", hlim=1)
        / IPv6ExtHdrHopByHop()
        / ICMPv6MLQuery2(),
        everybody / broadcast / UDP(sport=67, dport=68) / b"offer",
        link / IP(src="10.2.0.9", dst=ADDRESS[4]) / UDP(sport=67, dport=68) / b"acknowledgement",
        link / IPv6(src="fe80::99", dst="fe80::2") / UDP(sport=547, dport=546) / b"reply",
    ]
    snap = LLC(dsap=0xAA, ssap=0xAA, ctrl=3) / SNAP(code=0x0800)
    datagram = IP(src=OUTSIDE[4], dst=ADDRESS[4]) / UDP(sport=1, dport=2)
    other = [
        everybody / IP(src=OUTSIDE[4], dst="255.255.255.255") / UDP(sport=68, dport=67) / b"x",
        group / local / UDP(sport=5353, dport=5353) / b"mdns",
        link / Dot1Q(vlan=0) / datagram,
        link / Dot1Q(vlan=7) / datagram,
        link / Dot1Q(vlan=7) / Dot1Q(vlan=8) / datagram,
        Dot3(dst=MAC, src=STATION) / snap / datagram,
        Ether(dst=MAC, src=STATION, type=0x88B5) / bytes(46),
    ]
    marker = wired.to_guest(4, ICMP())
    frames = [bytes(one) for one in needed + other]
    assert passed(wired.station, wired.guest, frames, marker) == frames[: len(needed)]


def base_chains(host: Host, table: str) -> dict[str, tuple[str, int]]:
    """Hook and priority of each of our base chains."""
    listed = host.nft(f"list table {table} snf")
    chains = [one["chain"] for one in listed if "hook" in one.get("chain", {})]
    assert {chain["policy"] for chain in chains} == {"accept"}
    return {chain["name"]: (chain["hook"], chain["prio"]) for chain in chains}


def fully_routed(host: Host) -> Wired:
    """A protected NIC with all the setups that a routed NIC has, and a node that routes."""
    host.ip(
        "link set br0 address 02:00:00:00:02:01",
        "address add 10.2.0.1/24 dev br0",
        f"neigh add {OUTSIDE[4]} lladdr {STATION} dev br0 nud permanent",
        "route add 10.2.0.0/24 dev br0 table 100",
        f"route add default via {OUTSIDE[4]} dev br0 table 100",
        "rule add iif br0 lookup 100",
    )
    host.sysctl("net/ipv4/ip_forward", "1")
    nic = {"NETWORK_NAME": "net1", "NETWORK_TAGS": "ip-less-routed", "IP": ADDRESS[4]}
    network = {"NETWORK_SUBNET": "10.1.0.0/24", "NETWORK_GATEWAY": "10.1.0.1"}
    host.up(MODE="routed", LINK="100", BRIDGE="", TAGS=tag("protected"), **nic, **network)
    host.ip(f"neigh add {ADDRESS[4]} lladdr {MAC} dev tap0 nud permanent")
    gateway = host.links()["tap0"]["address"]
    return Wired(host, host.guest(), host.peer(), ("02:00:00:00:02:01", gateway))


def test_filters_come_before_connections_and_those_before_the_firewall(host: Host) -> None:
    fully_routed(host)
    chains = base_chains(host, "inet")
    filters = {place for name, place in chains.items() if name.startswith("routed_")}
    assert ("prerouting", -300) in filters
    assert all(priority == -300 for hook, priority in filters if hook == "prerouting")
    assert chains["firewall_forward"] == ("forward", 0)
    assert chains["firewall_output"] == ("output", 0)


def test_a_routed_guest_cannot_spoof_within_an_established_conversation(host: Host) -> None:
    """The order of CVE-2025-52890 would let it."""
    wired = fully_routed(host)
    assert within_a_conversation(wired, "aa:00:10:00:00:99", ADDRESS[4]) is False
    assert within_a_conversation(wired, MAC, "10.1.0.9") is False
    assert within_a_conversation(wired, MAC, ADDRESS[4])


def within_a_conversation(wired: Wired, mac: str, address: str) -> bool:
    """Whether the guest can send under these addresses where a conversation is established."""
    ports = UDP(sport=50000, dport=53)
    wired.leave(wired.from_guest(4, ports))
    answer = wired.to_guest(4, UDP(sport=53, dport=50000))
    assert wired.arriving([answer]) == [answer]
    sent = wired.from_guest(4, ports, source=address)
    sent = sent[:6] + bytes.fromhex(mac.replace(":", "")) + sent[12:]
    arrived = passed(wired.guest, wired.station, [sent], wired.from_guest(4, ICMP()), known_by=tail)
    return arrived == [sent]


@pytest.mark.kernel("bridge-conntrack")
def test_on_a_bridge_too_filters_come_before_connections(host: Host) -> None:
    bridged(host, tag("protected"), **FILTERED)
    chains = base_chains(host, "bridge")
    filters = [place for name, place in chains.items() if name.startswith(("filtered", "bridged"))]
    assert ("prerouting", -300) in filters
    assert all(priority == -300 for hook, priority in filters if hook == "prerouting")
    assert chains["firewall_tracking"] == ("prerouting", -250)
    assert chains["firewall_marking"] == ("prerouting", -150)
    assert chains["firewall_forward"] == ("forward", 0)
    assert chains["firewall_output"] == ("output", 0)


@pytest.mark.kernel("bridge-conntrack")
def test_a_bridged_guest_cannot_spoof_within_an_established_conversation(host: Host) -> None:
    """The order of CVE-2025-52890 would let it."""
    wired = bridged(host, tag("protected"), **FILTERED)
    assert within_a_conversation(wired, "aa:00:10:00:00:99", ADDRESS[4]) is False
    assert within_a_conversation(wired, MAC, "10.1.0.9") is False
    assert within_a_conversation(wired, MAC, ADDRESS[4])


@pytest.mark.kernel("bridge-conntrack")
def test_a_neighbour_cannot_begin_a_conversation_for_the_guest(host: Host) -> None:
    """Nothing keeps this neighbour from sending under the guest's address; it has a profile too."""
    host.ip("tuntap add dev tap1 mode tap")
    neighbour = "aa:00:10:00:00:99"
    wired = bridged(host, tag("protected"))
    host.up(INTERFACE="tap1", MAC=neighbour, INSTANCE="web2.gnt.test", TAGS=tag("limited"))
    tap1 = host.guest("tap1")
    ssh = TCP(sport=22, dport=40000, seq=5, flags="S")
    forged = wired.from_guest(4, ssh)
    forged = forged[:6] + bytes.fromhex(neighbour.replace(":", "")) + forged[12:]
    marker = bytes(Ether(dst=STATION, src=neighbour, type=0x88B5) / bytes(46))
    assert passed(tap1, wired.station, [forged], marker) == [forged]
    answers = [
        wired.to_guest(4, TCP(sport=40000, dport=22, seq=9, ack=14, flags="SA")),
        wired.to_guest(4, TCP(sport=40000, dport=22, seq=9, flags="S")),
    ]
    assert wired.arriving(answers) == []
    wired.leave(wired.from_guest(4, TCP(sport=23, dport=40000, seq=5, flags="S")))
    answer = wired.to_guest(4, TCP(sport=40000, dport=23, seq=9, ack=14, flags="SA"))
    assert wired.arriving([answer]) == [answer], "but the guest can"


@pytest.mark.kernel("bridge-conntrack")
@pytest.mark.parametrize("tags", ["", tag("limited")])
def test_the_conversations_of_another_segment_are_not_ours(host: Host, tags: str) -> None:
    """Who has a private network can have any addresses there: the guest's and the station's."""
    host.ip(
        *("link add br1 type bridge", "link set br1 up", "tuntap add dev tap1 mode tap"),
        *("link add veth1 type veth peer name wire1", "link set wire1 up"),
        "link set veth1 master br1 up",
    )
    wired = bridged(host, tag("protected"))
    host.up(
        INTERFACE="tap1",
        MAC=MAC,
        INSTANCE="web2.gnt.test",
        TAGS=tags,
        LINK="br1",
        BRIDGE="br1",
    )
    private = Wired(host, host.guest("tap1"), host.peer("wire1"), (MAC, STATION))
    udp = UDP(sport=22, dport=40000)
    private.leave(private.from_guest(4, udp))
    assert wired.arriving([wired.to_guest(4, UDP(sport=40000, dport=22))]) == []
    wired.leave(wired.from_guest(4, udp))
    for one in (wired, private):
        answer = one.to_guest(4, UDP(sport=40000, dport=22))
        assert one.arriving([answer]) == [answer], "each has its own"


@pytest.mark.kernel("bridge-conntrack")
@pytest.mark.parametrize("tags", ["", tag("protected")])
def test_the_nodes_own_firewall_is_as_it_was(host: Host, tags: str) -> None:
    """It has an address on the bridge and lets only answers in; so do bridged guests with it."""
    host.ip("tuntap add dev tap1 mode tap", "address add 10.2.0.1/16 dev br0")
    host.up(INTERFACE="tap1", MAC="aa:00:10:00:00:99", INSTANCE="w", TAGS=tag("protected"))
    wired = bridged(host, *tags.split())
    host.ip(
        f"neigh add 10.2.0.5 lladdr {MAC} dev br0 nud permanent",
        f"neigh add {OUTSIDE[4]} lladdr {STATION} dev br0 nud permanent",
    )
    host.nft(
        "table inet node {\n chain input {\n  type filter hook input priority 0; policy drop\n"
        "  ct state established accept\n  icmp type echo-request accept\n }\n}"
    )
    node = bytes.fromhex(host.links()["br0"]["address"].replace(":", ""))
    try:
        with host.inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as asking:
            asking.settimeout(TIMEOUT)
            asking.bind(("10.2.0.1", 40000))
            for port, mac, address in (
                (wired.guest, MAC, "10.2.0.5"),
                (wired.station, STATION, OUTSIDE[4]),
            ):
                # A conversation of the same addresses on the bridge is not the node's.
                forged = Ether(dst=wired.routers[1], src=MAC) / IP(src="10.2.0.1", dst=address)
                wired.guest.send(bytes(forged / UDP(sport=40000, dport=7) / b"forged"))
                packet = Ether(src=mac) / IP(src=address, dst="10.2.0.1")
                packet.dst = node.hex(":")
                question = bytes(packet / UDP(sport=7, dport=40000) / b"unasked")
                port.send(question)
                if tags == "" or port is wired.station:
                    asking.sendto(b"question", (address, 7))
                    wait_for(port, lambda frame: b"question" in frame)
                    port.send(bytes(packet / UDP(sport=7, dport=40000) / b"answer"))
                    assert asking.recv(100) == b"answer", "and not what came before"
    finally:
        host.nft("delete table inet node")


@pytest.mark.kernel("bridge-conntrack")
def test_the_node_answers_a_protected_guest_on_its_bridge(host: Host) -> None:
    host.ip("address add 10.2.0.1/16 dev br0")
    wired = bridged(host, tag("protected"))
    host.ip(f"neigh add 10.2.0.5 lladdr {MAC} dev br0 nud permanent")
    with host.inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as node:
        node.settimeout(TIMEOUT)
        node.bind(("10.2.0.1", 53))
        wired.leave()
        head = Ether(dst=host.links()["br0"]["address"], src=MAC)
        ip = IP(src="10.2.0.5", dst="10.2.0.1")
        wired.guest.send(bytes(head / ip / UDP(sport=50000, dport=53) / b"question"))
        assert node.recvfrom(100) == (b"question", ("10.2.0.5", 50000))
        node.sendto(b"unasked", ("10.2.0.5", 50001))
        node.sendto(b"answer", ("10.2.0.5", 50000))
        frame = wait_for(wired.guest, lambda frame: b"answer" in frame or b"unasked" in frame)
        assert b"answer" in frame
        assert host.elements("bridge", "firewall_hosts") != []


def test_an_unknown_profile_is_refused_before_anything_is_touched(host: Host) -> None:
    before = host.links()
    status, _, errors = host.snf("up", TAGS=tag("tight"))
    assert status == 1
    assert "'tight', which is not defined" in errors
    assert host.links() == before
