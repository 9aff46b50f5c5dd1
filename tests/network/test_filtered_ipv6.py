"""A filtered NIC on a real bridge, attacked with real frames: IPv6 and Neighbour Discovery."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from scapy.layers.dhcp6 import DHCP6_Advertise, DHCP6_Solicit
from scapy.layers.inet import TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6MLQuery,
    ICMPv6MLReport,
    ICMPv6MLReport2,
    ICMPv6ND_INDAdv,
    ICMPv6ND_INDSol,
    ICMPv6ND_RA,
    ICMPv6ND_Redirect,
    ICMPv6ND_RS,
    ICMPv6NDOptUnknown,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
    RouterAlert,
)

from tests.network.segment import Case, Segment, attack, segment, use
from tests.network.traffic import (
    GATEWAY6,
    GLOBAL,
    LINK_LOCAL,
    MAC,
    STATION_GLOBAL,
    VICTIM,
    VICTIM_GLOBAL,
    VICTIM_LINK_LOCAL,
    advertisement,
    ethernet,
    ip6,
    solicitation,
    source,
    target,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scapy.packet import Packet

NODES, ROUTERS, REPORTS = "ff02::1", "ff02::2", "ff02::16"
SERVERS = "ff02::1:2"
DATA = UDP(sport=4000, dport=4001) / b"data"
ALERT = IPv6ExtHdrHopByHop(options=[RouterAlert()])
PADDING = IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0" * 4)])


def nonce(octets: int = 6) -> Packet:
    """The nonce option of RFC 3971."""
    return ICMPv6NDOptUnknown(type=14, data=b"n" * octets)


def first(following: int, rest: bytes, offset: int = 0, more: int = 1) -> Packet:
    """A fragment header and what follows it."""
    return IPv6ExtHdrFragment(nh=following, offset=offset, m=more, id=7) / rest


def bare(header: Packet, payload: Packet) -> bytes:
    """What follows an IPv6 header, its checksums made with that."""
    packet = header / payload
    return bytes(packet)[54:]


RA = ICMPv6ND_RA(routerlifetime=1800)
SERVER = UDP(sport=547, dport=546) / DHCP6_Advertise()
ECHO = ICMPv6EchoRequest(data=b"\x86\0\0\0" * 10)
QUESTION = UDP(dport=53) / (b"\x02\x23\x02\x22" * 16)
"""What follows in later fragments of these looks like a header that must not pass."""

USES = [
    use("UDP", ip6() / DATA),
    use("TCP", ip6() / TCP(dport=80, flags="S")),
    use("ping", ip6() / ECHO),
    use("from the link-local address", ip6(LINK_LOCAL, NODES) / ECHO),
    use("UDP behind destination options", ip6() / PADDING / DATA),
    use("ping behind hop-by-hop options", ip6() / ALERT / ECHO),
    use("ESP", ip6(nh=50) / bytes(40)),
    use("no next header", ip6(nh=59)),
    use(
        "a ping in fragments",
        ip6() / first(58, bare(ip6(), ECHO)[:24]),
        ip6() / first(58, bare(ip6(), ECHO)[24:], offset=3, more=0),
    ),
    use(
        "UDP in fragments",
        ip6() / first(17, bare(ip6(), QUESTION)[:48]),
        ip6() / first(17, bare(ip6(), QUESTION)[48:], offset=6, more=0),
    ),
    use("an atomic fragment", ip6() / first(17, bare(ip6(), DATA), more=0)),
    use("duplicate address detection", ip6("::", "ff02::1:ff38:5425") / solicitation(GLOBAL)),
    use("the same with a nonce", ip6("::", NODES) / solicitation(LINK_LOCAL, nonce())),
    use("solicitation", ip6() / solicitation(GATEWAY6, source(MAC))),
    use("link-local solicitation", ip6(LINK_LOCAL, NODES) / solicitation(GATEWAY6, source(MAC))),
    use("solicitation to one", ip6() / solicitation(STATION_GLOBAL)),
    use("advertisement", ip6(GLOBAL, NODES) / advertisement(GLOBAL, target(MAC))),
    use("advertisement to one", ip6() / advertisement(GLOBAL)),
    use("link-local advertisement", ip6(LINK_LOCAL) / advertisement(LINK_LOCAL, target(MAC))),
    use("router solicitation", ip6(LINK_LOCAL, ROUTERS) / ICMPv6ND_RS() / source(MAC)),
    use("router solicitation from ::", ip6("::", ROUTERS) / ICMPv6ND_RS()),
    use("MLD report from ::", ip6("::", REPORTS) / ALERT / ICMPv6MLReport2()),
    use("MLD report", ip6(LINK_LOCAL, REPORTS, hlim=1) / ALERT / ICMPv6MLReport2()),
    use("MLDv1 report", ip6(LINK_LOCAL, NODES, hlim=1) / ALERT / ICMPv6MLReport(mladdr=NODES)),
    use("DHCPv6", ip6(LINK_LOCAL, SERVERS) / UDP(sport=546, dport=547) / DHCP6_Solicit()),
]

SOURCES = [
    attack("another's address", ip6(VICTIM_GLOBAL) / DATA),
    attack("another's link-local address", ip6(VICTIM_LINK_LOCAL) / DATA),
    attack("another address of the prefix", ip6("2001:db8:1::abcd") / DATA),
    attack("the gateway's", ip6(GATEWAY6) / ECHO),
    attack("none", ip6("::") / DATA),
    attack("none, ping", ip6("::", NODES) / ECHO),
    attack("another's in later fragments", ip6(VICTIM_GLOBAL) / first(17, bytes(64), 8)),
    attack("another's behind an IPv4 type", ethernet(type=0x0800) / bytes(ip6(VICTIM_GLOBAL))[14:]),
    attack("a length beyond the frame", ip6(plen=1000) / DATA),
    attack("half a header", bytes(ip6())[:40]),
]

NEIGHBOURS = [
    attack("NS, link-layer option", ip6() / solicitation(GATEWAY6, source(VICTIM))),
    attack("NS, second option", ip6() / solicitation(GATEWAY6, source(MAC), source(VICTIM))),
    attack("NS, behind a nonce", ip6() / solicitation(GATEWAY6, nonce(), source(VICTIM))),
    attack("NS, instead of a nonce", ip6("::", NODES) / solicitation(GLOBAL, source(VICTIM))),
    attack("NS, long option", ip6() / solicitation(GATEWAY6, nonce(14))),
    attack("NS, for another's address", ip6("::", NODES) / solicitation(VICTIM_GLOBAL)),
    attack("NS, for the gateway's", ip6("::", NODES) / solicitation(GATEWAY6, nonce())),
    attack("NA, target", ip6(GLOBAL, NODES) / advertisement(VICTIM_GLOBAL, target(MAC))),
    attack("NA, gateway as target", ip6(GLOBAL, NODES) / advertisement(GATEWAY6, target(MAC))),
    attack("NA, target to one", ip6() / advertisement(VICTIM_LINK_LOCAL)),
    attack("NA, link-layer option", ip6(GLOBAL, NODES) / advertisement(GLOBAL, target(VICTIM))),
    attack("NA, second option", ip6() / advertisement(GLOBAL, target(MAC), target(VICTIM))),
    attack("NA, another option", ip6() / advertisement(GLOBAL, source(VICTIM))),
    attack("RS, link-layer option", ip6(LINK_LOCAL, ROUTERS) / ICMPv6ND_RS() / source(VICTIM)),
    attack("RS, second option", ip6(LINK_LOCAL) / ICMPv6ND_RS() / source(MAC) / source(VICTIM)),
    attack("NS behind options", ip6() / PADDING / solicitation(GATEWAY6, source(MAC))),
    # Where its option would be without the header, its target has the guest's MAC address.
    attack(
        "NS that seems right", ip6() / PADDING / solicitation("2001:db8:1:0:101:aa00:1038:5425")
    ),
    attack("NA behind options", ip6() / PADDING / advertisement(VICTIM_GLOBAL, target(MAC))),
    attack("NA behind hop-by-hop", ip6() / ALERT / advertisement(VICTIM_GLOBAL, target(MAC))),
    attack(
        "NA as an atomic fragment",
        ip6() / first(58, bare(ip6(), advertisement(VICTIM_GLOBAL, target(MAC))), more=0),
    ),
    attack(
        "first fragment of an NA",
        ip6() / first(58, bare(ip6(), advertisement(VICTIM_GLOBAL, target(MAC)))[:24]),
    ),
    attack("inverse solicitation", ip6() / ICMPv6ND_INDSol()),
    attack("inverse advertisement", ip6() / ICMPv6ND_INDAdv()),
]

ROUTER = ip6(LINK_LOCAL, NODES)
OPTIONS = bytes([17, 0, 1, 4, 0, 0, 0, 0])
"""Destination options that are padding, and then UDP."""
EXTENDED_RA = bytes([58]) + OPTIONS[1:] + bare(ROUTER, RA)
AUTHENTICATED_RA = bytes([58, 4]) + bytes(22) + bare(ROUTER, RA)
ENDLESS = bytes([58, 255]) + bytes(22)
"""Destination options that say that they are longer than the packet."""

ROUTERS_AND_SERVERS = [
    attack("RA", ROUTER / RA),
    attack("RA from the global address", ip6(GLOBAL, NODES) / RA),
    attack("RA behind hop-by-hop options", ROUTER / ALERT / RA),
    attack("RA behind destination options", ROUTER / PADDING / RA),
    attack("RA behind three headers", ROUTER / ALERT / PADDING / PADDING.copy() / RA),
    attack("RA behind a routing header", ROUTER / IPv6ExtHdrRouting() / RA),
    attack("RA behind an authentication header", ip6(LINK_LOCAL, NODES, nh=51) / AUTHENTICATED_RA),
    attack("RA as an atomic fragment", ROUTER / first(58, bare(ROUTER, RA), more=0)),
    attack("RA, first fragment", ROUTER / first(58, bare(ROUTER, RA)[:8])),
    attack("RA, first fragment without its type", ROUTER / first(60, EXTENDED_RA[:8])),
    attack("RA, the fragment behind that", ROUTER / first(60, EXTENDED_RA[8:], 1, more=0)),
    attack("options behind a fragment header", ROUTER / first(60, OPTIONS + bare(ROUTER, DATA))),
    attack("a first fragment of nothing", ROUTER / first(58, b"")),
    attack("RA behind two fragment headers", ROUTER / first(44, bytes(first(58, bytes(RA))))),
    attack("RA behind a header that does not end", ip6(LINK_LOCAL, NODES, nh=60) / ENDLESS),
    attack("redirect", ROUTER / ICMPv6ND_Redirect(tgt=LINK_LOCAL, dst=STATION_GLOBAL)),
    attack("redirect behind options", ROUTER / PADDING / ICMPv6ND_Redirect(tgt=LINK_LOCAL)),
    attack("router renumbering", ip6(LINK_LOCAL, NODES, nh=58) / bytes([138, *15 * [0]])),
    attack("MLD query", ip6(LINK_LOCAL, NODES, hlim=1) / ALERT / ICMPv6MLQuery()),
    attack(
        "multicast router advertisement", ip6(LINK_LOCAL, NODES, nh=58) / bytes([151, 20, 0, 0])
    ),
    attack("DHCPv6 server", ip6(LINK_LOCAL) / SERVER),
    attack("DHCPv6 server, another port", ip6(LINK_LOCAL) / UDP(sport=999, dport=546) / b"data"),
    attack("DHCPv6 relay", ip6(LINK_LOCAL) / UDP(sport=547, dport=547) / b"data"),
    attack("DHCPv6 server behind options", ip6(LINK_LOCAL) / PADDING / SERVER),
    attack(
        "DHCPv6 server, first fragment",
        ip6(LINK_LOCAL) / first(17, bare(ip6(LINK_LOCAL), SERVER)[:8]),
    ),
    attack("half a UDP header", ip6(LINK_LOCAL) / first(17, b"\x02\x23\x02\x22")),
]


@pytest.fixture(scope="module")
def tenants(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Segment]:
    """A segment where tap0 is filtered."""
    with segment(tmp_path_factory.mktemp("filtered")) as made:
        yield made


@pytest.mark.parametrize("case", USES, ids=lambda case: case.name)
def test_what_guests_use_passes(tenants: Segment, case: Case) -> None:
    tenants.check(case)


@pytest.mark.parametrize("case", SOURCES, ids=lambda case: case.name)
def test_sources(tenants: Segment, case: Case) -> None:
    tenants.check(case)


@pytest.mark.parametrize("case", NEIGHBOURS, ids=lambda case: case.name)
def test_neighbour_discovery(tenants: Segment, case: Case) -> None:
    tenants.check(case)


@pytest.mark.parametrize("case", ROUTERS_AND_SERVERS, ids=lambda case: case.name)
def test_routers_and_servers(tenants: Segment, case: Case) -> None:
    tenants.check(case)
