"""Routed NICs, with real packets: between guests, the subnet's wire, and the node in between."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import (
    ICMPv6MLReport2,
    ICMPv6ND_NA,
    ICMPv6ND_RA,
    ICMPv6ND_Redirect,
    ICMPv6ND_RS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptPrefixInfo,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrHopByHop,
    RouterAlert,
)
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw

from tests.network import packets
from tests.network import subnet as net
from tests.network.subnet import (
    FREE,
    FREE6,
    GATEWAY,
    GATEWAY6,
    IP_2,
    LINK_LOCAL,
    MAC,
    MAC_2,
    OTHER,
    OTHER6,
    OUTSIDE,
    OUTSIDE6,
    ROUTED,
    ROUTED_2,
    SPARE,
    TAP_MAC,
    WIRE_MAC,
    Subnet,
    answered,
    conversation,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scapy.packet import Packet

    from tests.network.conftest import Host
    from tests.network.packets import Port

NODE_LINK_LOCAL = "fe80::ce47:52ff:fe4e:4554"
"""What the node has at every guest, by its MAC address there."""


@pytest.fixture
def subnet(host: Host) -> Iterator[Subnet]:
    """The subnet, its uplink prepared."""
    with net.subnet(host) as made:
        made.up()
        yield made


def datagram(text: str, source: str, to: str = OTHER, mac: str = MAC) -> bytes:
    """Of 8 characters, from a guest to somebody."""
    network = IPv6(src=source, dst=to) if ":" in source else IP(src=source, dst=to)
    return bytes(Ether(src=mac, dst=TAP_MAC) / network / UDP(sport=1000, dport=9) / text.encode())


def text(frame: bytes) -> bytes:
    """What a router does not change of such a frame."""
    return frame[-8:]


def own(address: str) -> bytes:
    """A datagram that passes."""
    return datagram("own.....", address, OTHER6 if ":" in address else OTHER)


def reach_the_wire(subnet: Subnet, frames: dict[str, bytes], address: str = net.IP) -> list[str]:
    """Which of the frames, by the texts at their ends, come from the guest at tap0 to the wire."""
    guest, wire = subnet.node.guest("tap0"), subnet.wire()
    passed = packets.passed(guest, wire, list(frames.values()), own(address), known_by=text)
    guest.close()
    return [name for name, frame in frames.items() if frame in passed]


def seen(subnet: Subnet, frames: list[Packet], matching: str) -> int:
    """How many of a guest's frames get behind our filter and match an expression of nft.

    They are followed by one that passes.
    """
    chain = "type filter hook prerouting priority 0"
    rules = f'iifname "tap0" {matching} counter\n  ip daddr {OTHER} udp dport 9 counter'
    subnet.node.nft(f"table inet probe {{ chain seen {{ {chain}\n  {rules}\n }}\n}}")
    guest, wire = subnet.node.guest("tap0"), subnet.wire()
    packets.passed(guest, wire, [], own(net.IP), known_by=text)
    for frame in frames:
        guest.send(bytes(frame))
    packets.passed(guest, wire, [], own(net.IP), known_by=text)
    listed = subnet.node.nft("list chain inet probe seen")
    subnet.node.nft("delete table inet probe")
    guest.close()
    counts = [
        part["counter"]["packets"]
        for one in listed
        for part in one.get("rule", {}).get("expr", ())
        if "counter" in part
    ]
    assert counts[1] > 0
    return int(counts[0])


# What works.


@pytest.mark.parametrize(
    ("address", "others"),
    [(net.IP, (OTHER, GATEWAY, OUTSIDE)), (net.IP6, (OTHER6, GATEWAY6, OUTSIDE6))],
    ids=["ipv4", "ipv6"],
)
def test_a_guest_and_the_world(subnet: Subnet, address: str, others: tuple[str, ...]) -> None:
    guest = subnet.guest("vif1", MAC, net.IP, net.IP6)
    subnet.node.up(INTERFACE="vif1", **ROUTED)
    for other in others:
        assert conversation(guest, address, subnet.router, other) == address
    assert conversation(subnet.router, others[0], guest, address) == others[0]


@pytest.mark.parametrize(
    ("one", "other"), [(net.IP, IP_2), (net.IP6, net.IP6_2)], ids=["ipv4", "ipv6"]
)
def test_two_guests_of_a_node(subnet: Subnet, one: str, other: str) -> None:
    first = subnet.guest("vif1", MAC, net.IP, net.IP6)
    second = subnet.guest("vif2", MAC_2, IP_2, net.IP6_2)
    subnet.node.up(INTERFACE="vif1", **ROUTED)
    subnet.node.up(INTERFACE="vif2", **ROUTED_2)
    assert conversation(first, one, second, other) == one
    assert conversation(second, other, first, one) == other


@pytest.fixture
def hardened(subnet: Subnet) -> Iterator[Subnet]:
    """The subnet of a node that checks the reverse path strictly, as hardening guides say."""
    path = "net/ipv4/conf/all/rp_filter"
    before = subnet.node.sysctl(path)
    subnet.node.sysctl(path, "1")
    yield subnet
    subnet.node.sysctl(path, before)


def test_hardened_nodes_route_too(hardened: Subnet) -> None:
    subnet = hardened
    first = subnet.guest("vif1", MAC, net.IP)
    second = subnet.guest("vif2", MAC_2, IP_2)
    subnet.node.up(INTERFACE="vif1", **ROUTED)
    subnet.node.up(INTERFACE="vif2", **ROUTED_2)
    assert conversation(first, net.IP, subnet.router, OUTSIDE) == net.IP
    assert conversation(subnet.router, OTHER, first, net.IP) == OTHER
    assert conversation(first, net.IP, second, IP_2) == net.IP


def test_the_wire_is_told(subnet: Subnet) -> None:
    wire = subnet.wire()
    subnet.node.up(**ROUTED)
    found: set[tuple[Any, ...]] = set()

    def last(frame: bytes) -> bool:
        read = Ether(frame)
        if ARP in read and read[ARP].psrc == net.IP:
            assert (read.dst, read[ARP].pdst) == ("ff:ff:ff:ff:ff:ff", net.IP)
            found.add((read.src, read[ARP].hwsrc, read[ARP].op))
        if ICMPv6ND_NA in read and read[ICMPv6ND_NA].tgt == net.IP6:
            found.add((read.src, read[ICMPv6NDOptDstLLAddr].lladdr, read[IPv6].dst))
        return len(found) == 3

    packets.wait_for(wire, last)
    mac = net.NODE_MAC
    assert found == {(mac, mac, 1), (mac, mac, 2), (mac, mac, "ff02::1")}


def test_in_whose_name_the_node_asks(subnet: Subnet) -> None:
    """Of a guest as the gateway, of the wire as the spare address."""
    subnet.node.up(**ROUTED)
    guest, wire = subnet.node.guest("tap0"), subnet.wire()

    def request(address: str, frame: bytes) -> bool:
        read = Ether(frame)
        return ARP in read and read[ARP].op == 1 and read[ARP].pdst == address

    guest.send(datagram("question", net.IP, FREE))
    asked = Ether(packets.wait_for(wire, lambda frame: request(FREE, frame)))
    assert (asked[ARP].psrc, asked[ARP].hwsrc) == (SPARE, net.NODE_MAC)
    frame = Ether(src=WIRE_MAC, dst=net.NODE_MAC) / IP(src=OTHER, dst=net.IP)
    wire.send(bytes(frame / UDP(dport=9)))
    asked = Ether(packets.wait_for(guest, lambda frame: request(net.IP, frame)))
    assert (asked[ARP].psrc, asked[ARP].hwsrc) == (GATEWAY, TAP_MAC)


# For whom the node answers.

FOREIGN = (GATEWAY, OTHER, FREE, SPARE, IP_2, OUTSIDE)
FOREIGN6 = (GATEWAY6, OTHER6, FREE6, net.IP6_2, OUTSIDE6, "2001:db8:1:0:ce47:52ff:fe4e:4554")


@pytest.mark.parametrize(
    ("mine", "foreign", "by"),
    [(net.IP, FOREIGN, "198.51.100.99"), (net.IP6, FOREIGN6, "2001:db8:1::99")],
    ids=["arp", "ndp"],
)
def test_the_node_answers_for_its_guests_alone(
    subnet: Subnet, mine: str, foreign: tuple[str, ...], by: str
) -> None:
    """A node that answers for a whole VLAN takes it down: not even without a default route."""
    subnet.node.up(**ROUTED)
    subnet.router.ip("link set wire arp off")  # the router itself is to be silent
    wire, mac = subnet.wire(), "02:00:00:00:00:99"
    assert answered(wire, foreign, mine, by, mac) == []
    subnet.node.ip("route del default table 100", "-6 route del default table 100")
    # As on many nodes, the main table leads elsewhere.
    subnet.node.ip("address add 10.9.0.9/24 dev br0", "route add default via 10.9.0.1 dev br0")
    subnet.node.ip("-6 route add default dev br0")
    assert answered(wire, foreign, mine, by, mac) == []


@pytest.mark.parametrize("family", ["arp", "ndp"])
def test_the_node_answers_until_the_nic_is_down(subnet: Subnet, family: str) -> None:
    subnet.node.ip("tuntap add dev tap1 mode tap")
    subnet.node.up(**ROUTED)
    subnet.node.up(INTERFACE="tap1", **ROUTED_2)
    wire, mac = subnet.wire(), "02:00:00:00:00:99"
    first, second, by = (
        (net.IP, IP_2, "198.51.100.99")
        if family == "arp"
        else (net.IP6, net.IP6_2, "2001:db8:1::99")
    )
    assert answered(wire, [first], second, by, mac) == [first]
    subnet.node.down("tap0")
    assert answered(wire, [first], second, by, mac) == []


def test_the_guest_finds_its_gateway_and_its_own_address_free(subnet: Subnet) -> None:
    subnet.node.up(**ROUTED)
    guest = subnet.node.guest("tap0")
    everybody = [OTHER, FREE, IP_2, OUTSIDE]
    assert answered(guest, [*everybody, net.IP], GATEWAY, net.IP, MAC) == everybody
    # Probes (RFC 5227): the address is the guest's, if anybody's.
    for address in (net.IP, FREE):
        guest.send(net.question(address, "0.0.0.0", MAC))
    assert answered(guest, [net.IP], GATEWAY, net.IP, MAC) == []
    guest.drain()
    assert answered(guest, [net.IP6, LINK_LOCAL], GATEWAY6, LINK_LOCAL, MAC) == []
    # Duplicate address detection (RFC 4862), and of the node's own address, which it defends.
    for address in (net.IP6, LINK_LOCAL):
        guest.send(net.question(address, "::", MAC))
    assert answered(guest, [net.IP6, LINK_LOCAL], NODE_LINK_LOCAL, "::", MAC) == []


def test_the_gateways_mac_address_is_the_same_everywhere(subnet: Subnet) -> None:
    subnet.node.up(**ROUTED)
    guest = subnet.node.guest("tap0")
    for address, by in ((GATEWAY, net.IP), (GATEWAY6, LINK_LOCAL)):
        answered(guest, [], address, by, MAC)
        guest.drain(0.05)
        guest.send(net.question(address, by, MAC))
        found = net.answer(packets.wait_for(guest, lambda frame: net.answer(frame) is not None))
        assert found == (address, TAP_MAC)


# What a guest cannot do.

FORGED = {
    "anothers": datagram("anothers", IP_2),
    "gateways": datagram("gateways", GATEWAY),
    "outside.": datagram("outside.", "192.0.2.66"),
    "mac.....": datagram("mac.....", net.IP, mac=MAC_2),
    "nodes...": datagram("nodes...", net.IP, mac=TAP_MAC),
    "zero....": datagram("zero....", "0.0.0.0"),
}
FORGED6 = {
    "another6": datagram("another6", net.IP6_2, OTHER6),
    "gateway6": datagram("gateway6", GATEWAY6, OTHER6),
    "outside6": datagram("outside6", "2001:db8:bad::1", OTHER6),
    "mac....6": datagram("mac....6", net.IP6, OTHER6, mac=MAC_2),
    "private6": datagram("private6", "2001:db8:1::1234", OTHER6),
    "local..6": datagram("local..6", LINK_LOCAL, OTHER6),
    "empty..6": datagram("empty..6", "::", OTHER6),
    "mapped.6": datagram("mapped.6", f"::ffff:{net.IP}", OTHER6),
}


@pytest.mark.parametrize(
    ("forged", "address"), [(FORGED, net.IP), (FORGED6, net.IP6)], ids=["ipv4", "ipv6"]
)
def test_sources_are_pinned(subnet: Subnet, forged: dict[str, bytes], address: str) -> None:
    subnet.node.up(**ROUTED)
    assert reach_the_wire(subnet, forged, address) == []


def test_sources_are_pinned_while_nftables_are_flushed(subnet: Subnet) -> None:
    subnet.node.up(**ROUTED)
    foreign = subnet.node.nft("list ruleset")
    assert foreign
    for family in ("inet", "arp"):
        subnet.node.nft(f"delete table {family} snf")
    spoofed = {name: FORGED[name] for name in ("anothers", "gateways", "outside.")}
    assert reach_the_wire(subnet, spoofed) == []


def test_spoofing_where_the_network_allows_it(subnet: Subnet) -> None:
    subnet.node.up(**ROUTED | {"NETWORK_TAGS": "ip-less-routed ip-spoofing"})
    assert reach_the_wire(subnet, FORGED) == ["anothers", "gateways", "outside."]
    allowed = ["another6", "gateway6", "outside6", "private6"]
    assert reach_the_wire(subnet, FORGED6, net.IP6) == allowed


def test_spoofing_where_the_node_forbids_it(hardened: Subnet) -> None:
    nic = ROUTED | {"NETWORK_TAGS": "ip-less-routed ip-spoofing"}
    status, _, errors = hardened.node.snf("up", **nic)
    assert status == 1
    assert "net.ipv4.conf.all.rp_filter" in errors


def test_an_instance_cannot_allow_itself_to_spoof(subnet: Subnet) -> None:
    subnet.node.up(**ROUTED | {"TAGS": "ip-spoofing"})
    assert reach_the_wire(subnet, FORGED) == []


def test_arp_in_anothers_name(subnet: Subnet) -> None:
    """Neither answered nor learned from."""
    subnet.node.up(**ROUTED)
    guest = subnet.node.guest("tap0")
    forged = [
        ARP(op=1, hwsrc=MAC, psrc=IP_2, pdst=FREE),
        ARP(op=1, hwsrc=MAC, psrc=GATEWAY, pdst=FREE),
        ARP(op=1, hwsrc=MAC_2, psrc=net.IP, pdst=FREE),
        ARP(op=2, hwsrc=MAC, psrc=IP_2, pdst=GATEWAY),
        ARP(op=2, hwsrc=MAC_2, psrc=net.IP, pdst=GATEWAY),
    ]
    answered(guest, [], GATEWAY, net.IP, MAC)
    guest.drain(0.05)
    for one in forged:
        guest.send(bytes(Ether(src=MAC, dst="ff:ff:ff:ff:ff:ff") / one))
    guest.send(net.question(FREE, net.IP, MAC_2))  # another sender of the frame, and of the ARP
    assert answered(guest, [], GATEWAY, net.IP, MAC) == []
    assert guest.drain() == []
    known = subnet.node.ip("neigh show dev tap0 nud all")[0]
    found = {(one["dst"], one.get("lladdr")) for one in known if ":" not in one["dst"]}
    assert found <= {(net.IP, MAC), (GATEWAY, None)}


def test_advertisements_in_anothers_name(subnet: Subnet) -> None:
    """The node learns its guests' MAC addresses from themselves."""
    subnet.node.ip("tuntap add dev tap1 mode tap")
    subnet.node.up(**ROUTED)
    subnet.node.up(INTERFACE="tap1", **ROUTED_2)
    guest, other = subnet.node.guest("tap0"), subnet.node.guest("tap1")
    answered(other, [], GATEWAY6, net.IP6_2, MAC_2)
    advertisement = ICMPv6ND_NA(tgt=net.IP6_2, R=0, S=0, O=1) / ICMPv6NDOptDstLLAddr(lladdr=MAC)
    for source in (net.IP6_2, LINK_LOCAL, GATEWAY6):
        packet = IPv6(src=source, dst="ff02::1", hlim=255) / advertisement
        guest.send(bytes(Ether(src=MAC, dst="33:33:00:00:00:01") / packet))
    answered(guest, [], GATEWAY6, net.IP6, MAC)
    known = subnet.node.ip("-6 neigh show nud all")[0]
    found = {(one["dev"], one.get("lladdr")) for one in known if one["dst"] == net.IP6_2}
    assert found == {("tap1", MAC_2)}


def behind(headers: Packet, message: Packet) -> Packet:
    """An ICMPv6 message of the guest to all nodes, behind extension headers."""
    packet = IPv6(src=LINK_LOCAL, dst="ff02::1", hlim=255) / headers / message
    return Ether(src=MAC, dst="33:33:00:00:00:01") / packet


ADVERTISEMENT = (
    ICMPv6ND_RA(routerlifetime=1800)
    / ICMPv6NDOptSrcLLAddr(lladdr=MAC)
    / ICMPv6NDOptPrefixInfo(prefix="2001:db8:bad::", prefixlen=64)
)
ROGUE_RA = Ether(src=MAC, dst="33:33:00:00:00:01") / (
    IPv6(src=LINK_LOCAL, dst="ff02::1", hlim=255) / ADVERTISEMENT
)


def test_a_guests_router_advertisement(subnet: Subnet) -> None:
    """It would configure the node, were it not for us."""
    subnet.node.up(**ROUTED)
    frames = [ROGUE_RA, behind(IPv6ExtHdrDestOpt(), ADVERTISEMENT)]
    assert seen(subnet, frames, "icmpv6 type nd-router-advert") == 0
    assert bad_addresses(subnet.node) == []
    subnet.node.down()
    subnet.node.sysctl("net/ipv6/conf/tap0/accept_dad", "0")
    subnet.node.sysctl("net/ipv6/conf/tap0/accept_ra", "2")
    subnet.node.ip("link set tap0 up")
    guest = subnet.node.guest("tap0")
    wait = packets.wait_for(guest, lambda frame: IPv6 in Ether(frame))
    assert wait
    guest.send(bytes(ROGUE_RA))
    assert bad_addresses(subnet.node) != []


def bad_addresses(node: Host) -> list[str]:
    """The addresses that the node has of the rogue prefix."""
    shown = node.ip("-6 address show dev tap0")[0]
    addresses = [one["local"] for link in shown for one in link.get("addr_info", ())]
    return [one for one in addresses if one.startswith("2001:db8:bad:")]


REDIRECT = ICMPv6ND_Redirect(tgt=LINK_LOCAL, dst=OUTSIDE6)
OFFER = BOOTP(op=2, yiaddr=FREE, siaddr=net.IP) / DHCP(options=[("message-type", "offer"), "end"])


@pytest.mark.parametrize(
    ("frame", "matching"),
    [
        (behind(Raw(), REDIRECT), "icmpv6 type nd-redirect"),
        (behind(IPv6ExtHdrDestOpt(), REDIRECT), "icmpv6 type nd-redirect"),
        (
            Ether(src=MAC, dst=TAP_MAC) / IP(src=net.IP, dst=OTHER) / ICMP(type=5, gw=net.IP),
            "icmp type redirect",
        ),
        (
            Ether(src=MAC, dst=TAP_MAC)
            / IP(src=net.IP, dst=OTHER)
            / UDP(sport=67, dport=68)
            / OFFER,
            "udp dport 68",
        ),
        (
            Ether(src=MAC, dst="33:33:00:01:00:02")
            / IPv6(src=LINK_LOCAL, dst="ff02::1:2")
            / UDP(sport=547, dport=546)
            / Raw(b"\2\0\0\0"),
            "udp dport 546",
        ),
    ],
    ids=["redirect6", "redirect6-behind-options", "redirect4", "dhcp", "dhcp6"],
)
def test_guests_are_nobodys_router_or_server(subnet: Subnet, frame: Packet, matching: str) -> None:
    subnet.node.up(**ROUTED)
    assert seen(subnet, [frame], matching) == 0


MULTICAST = Ether(src=MAC, dst="33:33:00:00:00:16") / IPv6(src="::", dst="ff02::16", hlim=1)


@pytest.mark.parametrize(
    ("frame", "matching"),
    [
        (
            Ether(src=MAC, dst="ff:ff:ff:ff:ff:ff")
            / IP(src="0.0.0.0", dst="255.255.255.255")
            / UDP(sport=68, dport=67)
            / BOOTP()
            / DHCP(options=[("message-type", "discover"), "end"]),
            "udp dport 67",
        ),
        (
            MULTICAST / IPv6ExtHdrHopByHop(options=[RouterAlert()]) / ICMPv6MLReport2(),
            "icmpv6 type mld2-listener-report",
        ),
        (
            Ether(src=MAC, dst="33:33:00:00:00:02")
            / IPv6(src="::", dst="ff02::2", hlim=255)
            / ICMPv6ND_RS(),
            "icmpv6 type nd-router-solicit",
        ),
        (Ether(net.question(net.IP6, "::", MAC)), "icmpv6 type nd-neighbor-solicit"),
        (
            Ether(src=MAC, dst="33:33:00:01:00:02")
            / IPv6(src="fe80::1:2:3:4", dst="ff02::1:2")
            / UDP(sport=546, dport=547)
            / Raw(b"\1\0\0\0"),
            "udp dport 547",
        ),
    ],
    ids=["dhcp", "mld", "rs", "dad", "dhcp6-from-a-private-link-local-address"],
)
def test_what_a_host_says_before_it_has_an_address(
    subnet: Subnet, frame: Packet, matching: str
) -> None:
    subnet.node.up(**ROUTED)
    assert seen(subnet, [frame], matching) == 1


def test_a_guest_cannot_take_the_nodes_address_away(subnet: Subnet) -> None:
    """By answering its duplicate address detection."""
    guest = subnet.node.guest("tap0")
    subnet.node.up(**ROUTED)
    defended = ICMPv6ND_NA(tgt=NODE_LINK_LOCAL, R=0, S=0, O=1) / ICMPv6NDOptDstLLAddr(lladdr=MAC)
    packet = IPv6(src=LINK_LOCAL, dst="ff02::1", hlim=255) / defended
    guest.send(bytes(Ether(src=MAC, dst="33:33:00:00:00:01") / packet))
    guest.send(net.question(NODE_LINK_LOCAL, "::", MAC))
    assert answered(guest, [], NODE_LINK_LOCAL, LINK_LOCAL, MAC) == []
    shown = subnet.node.ip("-6 address show dev tap0")[0]
    (address,) = (one for link in shown for one in link.get("addr_info", ()))
    assert address["local"] == NODE_LINK_LOCAL
    assert not {"tentative", "dadfailed"} & address.keys()


@pytest.fixture
def management(subnet: Subnet) -> Port:
    """A network of the node's own, where its main table leads."""
    node = subnet.node
    node.ip(
        "link add own0 type veth peer name own1",
        "link set own1 up",
        "link set own0 up",
        "address add 10.9.0.9/24 dev own0",
        "neigh add 10.9.0.1 lladdr 02:00:00:00:00:77 dev own0",
        "route add default via 10.9.0.1 dev own0",
        "-6 address add 2001:db8:9::9/64 dev own0 nodad",
        "-6 neigh add 2001:db8:9::1 lladdr 02:00:00:00:00:77 dev own0",
        "-6 route add default via 2001:db8:9::1 dev own0",
    )
    return node.peer("own1")


def test_nothing_leaves_by_the_nodes_own_networks(subnet: Subnet, management: Port) -> None:
    """Without the uplink's route the kernel goes on to the main table."""
    node = subnet.node
    node.up(**ROUTED)
    node.ip("-6 route del default table 100")
    guest, wire = node.guest("tap0"), subnet.wire()
    leaking = datagram("leaking.", net.IP6, OUTSIDE6)
    marker = own(net.IP6)  # the subnet's own route is still there
    assert packets.passed(guest, wire, [leaking], marker, known_by=text) == []
    assert b"leaking." not in {text(frame) for frame in management.drain(0.1)}
    node.nft('delete element inet snf routed_guests { "tap0" }')
    assert packets.passed(guest, management, [], leaking, known_by=text) == []
    node.nft('add element inet snf routed_guests { "tap0" }')


def test_the_wire_does_not_reach_the_nodes_own_networks(subnet: Subnet, management: Port) -> None:
    node = subnet.node
    node.up(**ROUTED)
    node.ip("route del default table 100", f"neigh replace {net.IP} lladdr {MAC} dev tap0")
    guest, wire = node.guest("tap0"), subnet.wire()

    def incoming(word: bytes, to: str) -> bytes:
        frame = Ether(src=WIRE_MAC, dst=net.NODE_MAC) / IP(src=OTHER, dst=to)
        return bytes(frame / UDP(dport=9) / word)

    intruding, allowed = incoming(b"intruder", "10.9.0.1"), incoming(b"allowed.", net.IP)
    assert packets.passed(wire, guest, [intruding], allowed, known_by=text) == []
    assert b"intruder" not in {text(frame) for frame in management.drain(0.1)}
    node.nft('delete element inet snf routed_uplinks { "up0" }')
    assert packets.passed(wire, management, [], intruding, known_by=text) == []
    node.nft('add element inet snf routed_uplinks { "up0" }')


# Families.


def test_without_ipv6(subnet: Subnet) -> None:
    subnet.node.up(**ROUTED | {"TAGS": "disable_ipv6"})
    assert reach_the_wire(subnet, {"own....6": datagram("own....6", net.IP6, OTHER6)}) == []
    assert not [address for _, address in subnet.node.proxies() if address == net.IP6]
    guest = subnet.node.guest("tap0")
    guest.send(net.question(GATEWAY6, LINK_LOCAL, MAC))
    assert answered(guest, [], GATEWAY, net.IP, MAC) == []
    assert not [frame for frame in guest.drain() if IPv6 in Ether(frame)]
    assert subnet.node.ip("-6 address show dev tap0") in ([], [[]])


def test_without_ipv4(subnet: Subnet) -> None:
    subnet.node.up(**ROUTED | {"TAGS": "disable_ipv4"})
    frames = {"own....4": datagram("own....4", net.IP)}
    assert reach_the_wire(subnet, frames, net.IP6) == []
    guest = subnet.node.guest("tap0")
    guest.send(net.question(GATEWAY, net.IP, MAC))
    assert answered(guest, [], GATEWAY6, LINK_LOCAL, MAC) == []
    assert not [frame for frame in guest.drain() if ARP in Ether(frame)]


# Up, down and what is refused.


SETS = (
    "inet nics",
    "inet routed_guests",
    "inet routed_macs",
    "inet routed_sources4",
    "inet routed_sources6",
    "inet routed_ways",
    "arp routed_guests",
    "arp routed_macs",
    "arp routed_sources",
)


def everything(node: Host) -> dict[str, Any]:
    """What the kernel has for routed NICs."""
    settings = ("forwarding", "proxy_arp", "rp_filter", "accept_redirects")
    return {
        "links": node.links(),
        "rules": node.rules(),
        "routes": node.routes("100"),
        "proxies": node.proxies(),
        "settings": [node.sysctl(f"net/ipv4/conf/tap0/{one}") for one in settings],
        "elements": [node.elements(*words.split()) for words in SETS],
        "senders": node.nft("list map arp snf routed_senders"),
    }


def test_down_takes_all_back(subnet: Subnet) -> None:
    before = everything(subnet.node)
    subnet.node.up(**ROUTED)
    assert everything(subnet.node) != before
    subnet.node.down()
    assert everything(subnet.node) == before
    assert subnet.node.left() == ["up0.json"]


def test_a_second_up_changes_nothing_in_whatever_order_the_tags_come(subnet: Subnet) -> None:
    subnet.node.up(**ROUTED | {"NETWORK_TAGS": "ip-less-routed a b"})
    before, document = everything(subnet.node), (subnet.node.documents / "tap0.json").read_text()
    subnet.node.up(**ROUTED | {"NETWORK_TAGS": "b ip-less-routed a"})
    assert everything(subnet.node) == before
    assert (subnet.node.documents / "tap0.json").read_text() == document


@pytest.mark.parametrize(
    ("changes", "held"),
    [({"IP": net.IP}, f"{net.IP}/32"), ({"MAC": MAC, "IP": ""}, f"{net.IP6}/128")],
    ids=["ipv4", "ipv6"],
)
def test_an_address_that_another_nic_has(
    subnet: Subnet, changes: dict[str, str], held: str
) -> None:
    subnet.node.ip("tuntap add dev tap1 mode tap")
    subnet.node.up(**ROUTED)
    before = everything(subnet.node)
    status, output, errors = subnet.node.snf("up", INTERFACE="tap1", **ROUTED_2 | changes)
    assert (status, output) == (1, "")
    assert held in errors
    assert "tap0" in errors
    assert everything(subnet.node) == before
    assert subnet.node.left() == ["tap0.json", "up0.json"]


def test_guests_that_come_back_behind_each_others_taps(subnet: Subnet) -> None:
    """Ganeti 3.0 does not say that a NIC is gone; its tap's name is whoever's comes next."""
    node = subnet.node
    node.ip("tuntap add dev tap1 mode tap")
    node.up(**ROUTED)
    node.up(INTERFACE="tap1", **ROUTED_2)
    node.ip("link del tap0", "link del tap1")
    node.ip("tuntap add dev tap0 mode tap", "tuntap add dev tap1 mode tap")
    node.up(**ROUTED_2)
    node.up(INTERFACE="tap1", **ROUTED)
    assert {(dev, ip) for dev, ip in node.proxies() if dev == "up0"} == {
        ("up0", address) for address in (net.IP, net.IP6, IP_2, net.IP6_2)
    }
    node.down("tap1")
    assert {(dev, ip) for dev, ip in node.proxies() if dev == "up0"} == {
        ("up0", address) for address in (IP_2, net.IP6_2)
    }


def test_without_an_uplink(host: Host) -> None:
    with net.subnet(host):
        status, _, errors = host.snf("up", **ROUTED)
        assert status == 1
        assert "routing table 100 has no IPv4 default route" in errors
        assert "snf network uplink up" in errors
        assert not host.links()["tap0"]["up"]


def test_without_an_address(subnet: Subnet) -> None:
    nic = ROUTED | {"IP": "", "NETWORK_SUBNET6": "", "NETWORK_GATEWAY6": ""}
    status, _, errors = subnet.node.snf("up", **nic)
    assert status == 1
    assert "a routed NIC needs an address" in errors
