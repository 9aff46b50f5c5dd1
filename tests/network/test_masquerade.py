"""Masqueraded NICs: whom the world sees, and that its answers come back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.network import subnet as net
from tests.network.subnet import IP_2, MAC, MAC_2, ROUTED, ROUTED_2, Subnet, conversation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.network.conftest import Host

PUBLIC = "192.0.2.9"
"""The node's own address on the uplink's wire."""
ROUTER = "192.0.2.1"
TAGS = {"NETWORK_TAGS": "ip-less-routed masq"}

UPLINK = f"""
[network.uplink.100]
interface = up0
subnet = {net.SUBNET}
gateway = {ROUTER}
"""


@pytest.fixture
def subnet(host: Host) -> Iterator[Subnet]:
    """The wire has public addresses too, and the guests' subnet is known on the wire alone."""
    with net.subnet(host) as made:
        host.ip(f"address add {PUBLIC}/24 dev up0")
        made.router.ip(f"address add {ROUTER}/24 dev wire")
        host.configure(UPLINK)
        made.up()
        yield made


@pytest.fixture
def guest(subnet: Subnet) -> Host:
    """A guest behind vif1."""
    return subnet.guest("vif1", MAC, net.IP)


NIC = {**ROUTED, "INTERFACE": "vif1", "NETWORK_SUBNET6": "", "NETWORK_GATEWAY6": "", **TAGS}


def test_the_world_sees_the_node(subnet: Subnet, guest: Host) -> None:
    subnet.node.up(**NIC)
    assert conversation(guest, net.IP, subnet.router, net.OUTSIDE) == PUBLIC
    assert conversation(guest, net.IP, subnet.router, ROUTER) == PUBLIC


def test_its_own_subnet_sees_the_guest(subnet: Subnet, guest: Host) -> None:
    subnet.node.up(**NIC)
    assert conversation(guest, net.IP, subnet.router, net.OTHER) == net.IP
    assert conversation(subnet.router, net.OTHER, guest, net.IP) == net.OTHER


@pytest.mark.parametrize("length", [8, 16, 23, 25])
def test_subnets_of_other_lengths(subnet: Subnet, guest: Host, length: int) -> None:
    """Not what would be inside of another one that begins or ends alike."""
    network = {8: "198.0.0.0", 16: "198.51.0.0", 23: "198.51.100.0", 25: "198.51.100.0"}[length]
    subnet.node.up(**NIC | {"NETWORK_SUBNET": f"{network}/{length}"})
    assert conversation(guest, net.IP, subnet.router, net.OTHER) == net.IP
    subnet.router.ip("address add 198.51.100.200/32 dev wire")
    expected = net.IP if length < 25 else PUBLIC
    assert conversation(guest, net.IP, subnet.router, "198.51.100.200") == expected


def test_a_nic_without_the_tag(subnet: Subnet, guest: Host) -> None:
    other = subnet.guest("vif2", MAC_2, IP_2)
    subnet.node.up(**NIC)
    subnet.node.up(**NIC | ROUTED_2 | {"INTERFACE": "vif2", "NETWORK_SUBNET6": ""})
    assert conversation(other, IP_2, subnet.router, net.OUTSIDE) == IP_2
    assert conversation(guest, net.IP, subnet.router, net.OUTSIDE) == PUBLIC


def test_down_ends_it(subnet: Subnet, guest: Host) -> None:
    subnet.node.up(**NIC)
    assert conversation(guest, net.IP, subnet.router, net.OUTSIDE) == PUBLIC
    subnet.node.down("vif1")
    assert subnet.node.elements("inet", "masquerade_sources") == []
    assert subnet.node.elements("inet", "masquerade_inside") == []


def test_a_bridged_nic(host: Host) -> None:
    """Whose gateway the node is, by an address of the bridge."""
    with net.subnet(host) as made:
        host.ip(f"address add {PUBLIC}/24 dev up0", f"route add default via {ROUTER} dev up0")
        host.ip(f"address add {net.GATEWAY}/24 dev br0")
        made.router.ip(f"address del {net.GATEWAY}/24 dev wire")
        made.router.ip(f"address add {ROUTER}/24 dev wire")
        host.sysctl("net/ipv4/conf/br0/forwarding", "1")
        host.sysctl("net/ipv4/conf/up0/forwarding", "1")
        guest = made.guest("vif1", MAC, net.IP)
        nic = {**NIC, "MODE": "bridged", "LINK": "br0", "BRIDGE": "br0"}
        host.up(**nic | {"NETWORK_TAGS": "bridged masq"})
        assert conversation(guest, net.IP, made.router, net.OUTSIDE) == PUBLIC
        assert conversation(guest, net.IP, host, net.GATEWAY) == net.IP
