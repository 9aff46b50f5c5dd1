"""Filtered NICs by the tags of the network: looser, private; and the rules as they are loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from scapy.layers.dhcp6 import DHCP6_Advertise
from scapy.layers.inet import ICMP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, ICMPv6ND_RA, ICMPv6ND_Redirect, ICMPv6ND_RS
from scapy.layers.l2 import Dot1Q

from tests.network.packets import passed
from tests.network.segment import Case, attack, segment, use
from tests.network.traffic import (
    EVERYBODY,
    GATEWAY,
    GATEWAY6,
    GLOBAL,
    IP,
    LINK_LOCAL,
    MAC,
    MARKER,
    NETWORK,
    STATION,
    VICTIM,
    VICTIM_GLOBAL,
    VICTIM_IP,
    VICTIM_LINK_LOCAL,
    advertisement,
    arp,
    dhcp,
    ethernet,
    ip,
    ip6,
    solicitation,
    source,
    target,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.network.conftest import Host

NODES, ROUTERS = "ff02::1", "ff02::2"
DATA = UDP(sport=4000, dport=4001) / b"data"
RANDOM = "2001:db8:1:0:1234:5678:9abc:def0"
RANDOM_LOCAL = "fe80::1234:5678:9abc:def0"

MAC_ATTACKS = [
    attack("source MAC", ethernet(source=VICTIM) / ip().payload / DATA),
    attack("ARP sender MAC", arp(hwsrc=VICTIM)),
    attack("NS, link-layer option", ip6() / solicitation(GATEWAY6, source(VICTIM))),
    attack("NA, link-layer option", ip6(GLOBAL, NODES) / advertisement(GLOBAL, target(VICTIM))),
    attack("RS, link-layer option", ip6(LINK_LOCAL, ROUTERS) / ICMPv6ND_RS() / source(VICTIM)),
    attack("VLAN tag", ethernet() / Dot1Q(vlan=7) / ip().payload / DATA),
]

SERVER_ATTACKS = [
    attack("DHCP offer", ip(destination="255.255.255.255") / dhcp("offer", 67, 68)),
    attack("DHCPv6 server", ip6(LINK_LOCAL) / UDP(sport=547, dport=546) / DHCP6_Advertise()),
]

ROUTER_ATTACKS = [
    attack("RA", ip6(LINK_LOCAL, NODES) / ICMPv6ND_RA()),
    attack("redirect, IPv6", ip6(LINK_LOCAL) / ICMPv6ND_Redirect(tgt=LINK_LOCAL)),
    attack("redirect", ip() / ICMP(type=5, gw=IP) / bytes(28)),
]

ADDRESS_ATTACKS = [
    attack("another's IPv4 address", ip(VICTIM_IP) / DATA),
    attack("another's ARP", arp(psrc=VICTIM_IP)),
    attack("another's IPv6 address", ip6(VICTIM_GLOBAL) / DATA),
    attack("another's NA", ip6() / advertisement(VICTIM_GLOBAL, target(MAC))),
    attack("another's DAD", ip6("::", NODES) / solicitation(VICTIM_GLOBAL)),
]

PRIVACY = [
    use("a random address", ip6(RANDOM) / DATA),
    use("its DAD", ip6("::", NODES) / solicitation(RANDOM)),
    use("its NA", ip6(RANDOM) / advertisement(RANDOM, target(MAC))),
    use("a random link-local address", ip6(RANDOM_LOCAL, NODES) / solicitation(RANDOM)),
    use("its own address", ip6() / DATA),
    attack("an address of another's MAC", ip6(VICTIM_GLOBAL) / DATA),
    attack("a link-local address of another's MAC", ip6(VICTIM_LINK_LOCAL) / DATA),
    attack("NA for such an address", ip6() / advertisement(VICTIM_GLOBAL, target(MAC))),
    attack("the gateway's address", ip6(GATEWAY6) / DATA),
    attack("NA for the gateway", ip6(RANDOM) / advertisement(GATEWAY6, target(MAC))),
    attack("another prefix", ip6("2001:db8:2::1234") / DATA),
    attack("NA in another prefix", ip6(RANDOM) / advertisement("2001:db8:2::1234")),
]


def allowed(cases: Sequence[Case]) -> list[Case]:
    """The same, to pass."""
    return [case._replace(passes=True) for case in cases]


@pytest.mark.parametrize(
    ("tags", "cases"),
    [
        ("", [*MAC_ATTACKS, *SERVER_ATTACKS, *ROUTER_ATTACKS, *ADDRESS_ATTACKS]),
        (
            "ip-spoofing",
            [*MAC_ATTACKS, *SERVER_ATTACKS, *ROUTER_ATTACKS, *allowed(ADDRESS_ATTACKS)],
        ),
        (
            "dhcp-server",
            [*MAC_ATTACKS, *ROUTER_ATTACKS, *ADDRESS_ATTACKS, *allowed(SERVER_ATTACKS)],
        ),
        ("router", [*MAC_ATTACKS, *SERVER_ATTACKS, *ADDRESS_ATTACKS, *allowed(ROUTER_ATTACKS)]),
        ("ipv6-privacy", [*MAC_ATTACKS, *SERVER_ATTACKS, *ROUTER_ATTACKS, *PRIVACY]),
    ],
    ids=["none", "ip-spoofing", "dhcp-server", "router", "ipv6-privacy"],
)
def test_tags_of_the_network_loosen_one_thing(
    tmp_path_factory: pytest.TempPathFactory, tags: str, cases: list[Case]
) -> None:
    directory = tmp_path_factory.mktemp("filtered")
    with segment(directory, NETWORK_TAGS=f"filtered {tags}") as tenants:
        for case in cases:
            tenants.check(case)


def test_the_same_tags_of_an_instance_loosen_nothing(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    tags = "ip-spoofing dhcp-server router ipv6-privacy"
    with segment(tmp_path_factory.mktemp("filtered"), TAGS=tags) as tenants:
        for case in (*MAC_ATTACKS, *SERVER_ATTACKS, *ROUTER_ATTACKS, *ADDRESS_ATTACKS):
            tenants.check(case)


def test_where_addresses_are_not_known_the_mac_is_still_pinned(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    nothing = dict.fromkeys(NETWORK, "") | {"NETWORK_NAME": "lan", "NETWORK_TAGS": "filtered"}
    with segment(tmp_path_factory.mktemp("filtered"), **nothing) as tenants:
        for case in (*MAC_ATTACKS, *SERVER_ATTACKS, *ROUTER_ATTACKS, *allowed(ADDRESS_ATTACKS)):
            tenants.check(case)


PRIVATE = {"NETWORK_NAME": "private1", "NETWORK_TAGS": "private-filtered"}
SIBLING, STRANGER = "aa:00:1f:00:00:01", "aa:00:20:00:00:01"
"""0x10 and 0x1f have the masked half in common."""


def test_private_networks_on_one_bridge_are_apart(host: Host) -> None:
    host.ip(*(f"tuntap add dev tap{number} mode tap" for number in (1, 2, 3)))
    host.up(**PRIVATE)
    host.up(INTERFACE="tap1", MAC=SIBLING, **PRIVATE)
    host.up(INTERFACE="tap2", MAC=STRANGER, **PRIVATE)
    host.up(INTERFACE="tap3", MAC=VICTIM)
    guest, sibling, stranger, free = (host.guest(f"tap{number}") for number in range(4))

    def frames(sender: str) -> list[bytes]:
        own = arp(sender, hwsrc=sender).payload
        return [bytes(ethernet(to, sender) / own) for to in (EVERYBODY, "01:00:5e:00:00:01", MAC)]

    def marker(sender: str) -> bytes:
        return bytes(arp(sender, hwsrc=sender, pdst="10.0.0.254"))

    assert passed(sibling, guest, frames(SIBLING), marker(SIBLING)) == frames(SIBLING)
    for sender, mac in ((stranger, STRANGER), (host.peer("wire0"), STATION)):
        guest.drain()
        # The guest's port is flooded with them as the unguarded guest's is.
        assert passed(sender, free, frames(mac), marker(mac)) == frames(mac)
        assert [one for one in guest.drain() if one[6:12].hex(":") == mac] == []


def test_what_the_node_sends_reaches_no_private_network(host: Host) -> None:
    host.ip("tuntap add dev tap1 mode tap", "link set br0 type bridge mcast_snooping 0")
    host.up(**PRIVATE)
    host.up(INTERFACE="tap1", MAC=STRANGER)
    guest, free = host.guest("tap0"), host.guest("tap1")
    node = host.links()["br0"]["address"]
    frames = [
        bytes(ethernet(EVERYBODY, node) / arp(hwsrc=node).payload),
        bytes(ethernet("33:33:00:00:00:01", node) / ip6(GLOBAL, NODES).payload),
        bytes(ethernet(MAC, node) / ip().payload / DATA),
    ]
    marker = bytes(ethernet(EVERYBODY, SIBLING) / arp(hwsrc=SIBLING).payload)
    with host.peer("br0") as out:  # what is sent by the bridge's interface is the node's own
        assert passed(out, free, frames, marker) == frames
        assert passed(out, guest, frames, marker) == []


def test_all_that_filters_comes_before_connection_tracking(host: Host) -> None:
    host.up(**NETWORK, TAGS="gnt:whitelist_ip:10.0.0.7 synnefo:network:1:protected")
    chains = [
        one["chain"]
        for one in host.nft("list chains")
        if one["chain"]["table"] == "snf" and "hook" in one["chain"]
    ]
    filters = {
        (chain["name"], chain["hook"]): chain["prio"]
        for chain in chains
        if chain["name"].startswith(("filtered_", "isolation_"))
    }
    assert {hook for _, hook in filters} == {"prerouting", "forward", "output"}
    assert all(priority < -200 for priority in filters.values()), filters
    tracking = {one["prio"] for one in chains if one["name"].startswith("firewall_")}
    assert all(priority > -300 for priority in tracking), tracking


@pytest.mark.kernel("bridge-conntrack")
def test_anti_spoofing_comes_before_established(host: Host) -> None:
    """Somebody's packet that looks like the answer the firewall waits for is still dropped."""
    host.ip("tuntap add dev tap1 mode tap", "tuntap add dev tap2 mode tap")
    host.up(**NETWORK, TAGS="synnefo:network:0:protected")
    host.up(**{**NETWORK, "INTERFACE": "tap1", "MAC": VICTIM, "IP": VICTIM_IP})
    host.up(INTERFACE="tap2", MAC=STATION)
    guest, spoofer, free = host.guest("tap0"), host.guest("tap1"), host.guest("tap2")
    remote = "10.0.0.77"
    syn = bytes(ip(IP, remote) / TCP(sport=5000, dport=80, flags="S"))
    answer = ip(remote, IP).payload / TCP(sport=80, dport=5000, flags="SA", ack=1)
    assert passed(guest, host.peer("wire0"), [syn], MARKER) == [syn]
    forged = [bytes(ethernet(MAC, VICTIM) / answer), bytes(ethernet(MAC, STATION) / answer)]

    def mark(mac: str, address: str) -> bytes:
        return bytes(ethernet(EVERYBODY, mac) / arp(hwsrc=mac, psrc=address).payload)

    assert passed(spoofer, guest, forged[:1], mark(VICTIM, VICTIM_IP)) == []
    assert passed(free, guest, forged[1:], mark(STATION, GATEWAY)) == forged[1:]


@pytest.mark.kernel("vlan-filtering")
def test_an_access_port_is_filtered_like_any_other(host: Host) -> None:
    host.ip("link set br0 type bridge vlan_filtering 1 vlan_default_pvid 0 mcast_snooping 0")
    host.namespace.run(["bridge", "vlan", "add", "dev", "veth0", "vid", "100"])
    host.up(**NETWORK, VLAN=".100")
    port = UDP(sport=4000, dport=4001)
    attacks = [arp(psrc=VICTIM_IP, pdst="10.0.0.33"), ip(VICTIM_IP) / port / b"ip"]
    attacks += [
        ethernet() / Dot1Q(vlan=tag) / ip().payload / port / f"tag{tag}" for tag in (0, 100, 200)
    ]
    uses = [ip() / port / b"own", ip6() / ICMPv6EchoRequest(data=b"six")]
    frames = [bytes(one) for one in (*attacks, *uses)]
    # On the wire they are tagged.
    arrived = passed(
        host.guest("tap0"), host.peer("wire0"), frames, MARKER, known_by=lambda one: one[-3:]
    )
    assert arrived == frames[len(attacks) :]


def test_down_leaves_nothing(host: Host) -> None:
    host.up(**NETWORK)
    sets = [one["set"]["name"] for one in host.nft("list sets") if one["set"]["table"] == "snf"]
    filled = [
        name for name in sets if name.startswith("filtered_") and host.elements("bridge", name)
    ]
    assert "filtered_addresses6" in filled
    host.down()
    assert not [name for name in filled if host.elements("bridge", name)]


@pytest.mark.parametrize(
    ("nic", "words"),
    [
        ({"NETWORK_SUBNET6": "2001:db8:1::/48"}, "prefix of length 64"),
        (
            {"NETWORK_TAGS": "private-filtered", "NETWORK_MAC_PREFIX": "aa:00:20"},
            "not one of the private network tenants, whose prefix is aa:00:20",
        ),
        ({"MODE": "routed", "LINK": "main"}, "filtered"),
    ],
    ids=["prefix", "MAC of another network", "routed"],
)
def test_what_cannot_be_filtered_is_refused(host: Host, nic: dict[str, str], words: str) -> None:
    status, _, errors = host.snf("up", **{**NETWORK, **nic})
    assert status == 1
    assert words in errors
    assert host.links()["tap0"]["master"] is None
