"""Uplinks prepared by command: what the kernel then has, and does, and has afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from scapy.layers.inet6 import (
    ICMPv6ND_RA,
    ICMPv6NDOptPrefixInfo,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
)
from scapy.layers.l2 import Ether

from tests.network import packets
from tests.network import subnet as net
from tests.network.subnet import ROUTED, UPLINK, Subnet, answered

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.network.conftest import Host


@pytest.fixture
def subnet(host: Host) -> Iterator[Subnet]:
    """The subnet, its uplink not prepared."""
    with net.subnet(host) as made:
        yield made


SETTINGS = (
    "net/ipv4/conf/up0/forwarding",
    "net/ipv4/conf/up0/proxy_arp",
    "net/ipv4/conf/all/forwarding",
    "net/ipv4/conf/br0/forwarding",
    "net/ipv4/neigh/up0/proxy_delay",
    "net/ipv6/conf/all/forwarding",
    "net/ipv6/conf/up0/forwarding",
    "net/ipv6/conf/up0/proxy_ndp",
    "net/ipv6/neigh/up0/proxy_delay",
)


def state(node: Host) -> dict[str, Any]:
    """What the kernel has for uplinks."""
    return {
        "links": node.links(),
        "rules": node.rules(),
        "routes": {(one["dst"], one.get("gateway"), one["dev"]) for one in node.routes("100")},
        "settings": {path: node.sysctl(path) for path in SETTINGS},
    }


def test_up_and_down(subnet: Subnet) -> None:
    node = subnet.node
    before = state(node)
    subnet.up()
    after = state(node)
    assert after["routes"] == {
        (net.SUBNET, None, "up0"),
        ("default", net.GATEWAY, "up0"),
        (net.SUBNET6, None, "up0"),
        ("default", net.GATEWAY6, "up0"),
    }
    rules = [one for one in node.rules() if one not in before["rules"]]
    found = [(one["priority"], one["iif"], one["table"]) for one in rules]
    assert found == [(20000, "up0", "100")] * 2
    changed = {path for path in SETTINGS if after["settings"][path] != before["settings"][path]}
    assert changed == set(SETTINGS) - {
        "net/ipv4/conf/up0/proxy_arp",
        "net/ipv4/conf/all/forwarding",
        "net/ipv4/conf/br0/forwarding",
    }
    assert node.snf("uplink", "down")[0] == 0
    assert state(node) == before
    assert node.left() == []


def test_up_twice(subnet: Subnet) -> None:
    subnet.up()
    before, document = state(subnet.node), (subnet.node.documents / "up0.json").read_text()
    subnet.up()
    assert state(subnet.node) == before
    assert (subnet.node.documents / "up0.json").read_text() == document


def test_one_that_stops_proxying_for_everybody(subnet: Subnet) -> None:
    """As historical instructions had it."""
    subnet.node.sysctl("net/ipv4/conf/up0/proxy_arp", "1")
    subnet.up()
    assert subnet.node.sysctl("net/ipv4/conf/up0/proxy_arp") == "0"
    assert subnet.node.snf("uplink", "down")[0] == 0
    assert subnet.node.sysctl("net/ipv4/conf/up0/proxy_arp") == "1"


def test_a_node_that_proxies_everywhere_is_refused(subnet: Subnet) -> None:
    before = state(subnet.node)
    subnet.node.sysctl("net/ipv4/conf/all/proxy_arp", "1")
    status, _, errors = subnet.node.snf("uplink", "up")
    subnet.node.sysctl("net/ipv4/conf/all/proxy_arp", "0")
    assert status == 1
    assert "net.ipv4.conf.all.proxy_arp is 1" in errors
    assert state(subnet.node) == before


def test_status(subnet: Subnet) -> None:
    subnet.up()
    status, output, _ = subnet.node.snf("uplink", "status")
    assert status == 0
    assert "up0" in output
    subnet.node.ip("route del default table 100")
    assert subnet.node.snf("uplink", "status")[0] != 0
    subnet.up()
    assert ("default", net.GATEWAY, "up0") in state(subnet.node)["routes"]


def test_one_of_several(subnet: Subnet) -> None:
    """Each is prepared by itself, and what they have in common stays while one needs it."""
    node = subnet.node
    node.ip("link add up1 type veth peer name wire1", "link set wire1 up", "link set up1 up")
    other = UPLINK.replace("uplink.100", "uplink.200").replace("up0", "up1")
    node.configure(UPLINK + other)
    before = state(node)
    assert node.snf("uplink", "up", "100")[0] == 0
    assert node.routes("200") == []
    assert node.snf("uplink", "up", "200")[0] == 0
    assert node.snf("uplink", "down", "100")[0] == 0
    assert node.routes("100") == []
    assert node.sysctl("net/ipv6/conf/all/forwarding") == "1"
    assert node.snf("uplink", "down", "200")[0] == 0
    assert state(node) == before
    status, _, errors = node.snf("uplink", "up", "300")
    assert status == 1
    assert "300" in errors


PREFIX = "2001:db8:aa::"


def advertise(node: Host) -> None:
    """The router of the node's own network says where it is; the node has heard it after that."""
    router = node.peer("own1")
    mac = "02:00:00:00:00:77"
    told = ICMPv6ND_RA(routerlifetime=1800) / ICMPv6NDOptSrcLLAddr(lladdr=mac)
    packet = IPv6(src="fe80::77", dst="ff02::1", hlim=255) / told
    prefix = ICMPv6NDOptPrefixInfo(prefix=PREFIX, prefixlen=64)
    router.send(bytes(Ether(src=mac, dst="33:33:00:00:00:01") / packet / prefix))
    answered(router, [], "fe80::9", "fe80::77", mac)
    router.close()


def default_routes(node: Host) -> list[tuple[str, str]]:
    """Of the node's own table, IPv6."""
    shown = node.ip("-6 route show table main default")
    return [(one["dev"], one["protocol"]) for routes in shown for one in routes]


def test_the_nodes_own_default_route_by_advertisements_stays(subnet: Subnet) -> None:
    """A kernel that begins to forward forgets what routers have told it."""
    node = subnet.node
    node.ip("link add own0 type veth peer name own1", "link set own1 up")
    node.sysctl("net/ipv6/conf/own0/accept_dad", "0")
    node.ip("link set own0 up", "-6 address add fe80::9/64 dev own0 nodad")
    advertise(node)
    assert default_routes(node) == [("own0", "ra")]
    subnet.up()
    assert default_routes(node) == [("own0", "ra")]
    node.up(**ROUTED)
    assert default_routes(node) == [("own0", "ra")]
    # It is renewed, and so are the addresses.
    node.ip("-6 route del default dev own0")
    advertise(node)
    assert default_routes(node) == [("own0", "ra")]
    node.down()
    assert node.snf("uplink", "down")[0] == 0
    assert default_routes(node) == [("own0", "ra")]
    assert node.sysctl("net/ipv6/conf/own0/accept_ra") == "1"


def test_without_that_it_would_be_gone(subnet: Subnet) -> None:
    """The same kernel, told to forward by hand."""
    node = subnet.node
    node.ip("link add own0 type veth peer name own1", "link set own1 up")
    node.sysctl("net/ipv6/conf/own0/accept_dad", "0")
    node.ip("link set own0 up", "-6 address add fe80::9/64 dev own0 nodad")
    advertise(node)
    assert default_routes(node) == [("own0", "ra")]
    node.sysctl("net/ipv6/conf/up0/forwarding", "1")
    assert default_routes(node) == []


def test_a_reboot(subnet: Subnet) -> None:
    """Documents of an earlier device of the same name say nothing about this one."""
    node = subnet.node
    subnet.up()
    node.ip("link del up0")
    node.ip("link add up0 type veth peer name wire9", "link set wire9 up")
    subnet.up()
    assert len(state(node)["routes"]) == 4


def test_a_device_made_anew_is_prepared_again(subnet: Subnet) -> None:
    node = subnet.node
    subnet.up()
    routes, rules = node.routes("100"), node.rules()
    node.ip(
        "link delete up0",
        "link add up0 type veth peer name wire9",
        "link set wire9 up",
        "link set up0 up",
    )
    assert node.routes("100") == []
    status, output, _ = node.snf("reconcile", "--check")
    assert (status, output) == (3, "up0: it is gone\n")
    status, output, errors = node.snf("reconcile")
    assert (status, errors) == (0, "")
    assert "up0: the uplink of routing table 100 is not prepared; repaired\n" in output
    assert node.routes("100") == routes
    assert node.rules() == rules
    assert node.snf("reconcile", "--check")[:2] == (0, "")
    assert node.snf("uplink", "down")[0] == 0
    assert node.routes("100") == []


def test_packets_are_answered_at_once(subnet: Subnet) -> None:
    """Kernels delay proxied answers by up to 0.8 s at random, unless told otherwise."""
    subnet.up()
    subnet.node.up(**ROUTED)
    wire, mac = subnet.wire(), "02:00:00:00:00:99"
    answered(wire, [], net.IP, "198.51.100.99", mac)
    wire.drain(0.05)
    for _ in range(20):
        wire.send(net.question(net.IP, "198.51.100.99", mac))
        packets.wait_for(wire, lambda frame: net.answer(frame) is not None, timeout=0.5)
