"""The setups ``bridged`` and ``openvswitch``: what they want of a NIC."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from snf_core.errors import InvalidValueError, NetworkError
from snf_core.model import Action, Mode, Network, Nic, NicEvent
from snf_core.network.node import Link, Node
from snf_core.network.setup.bridged import Bridged
from snf_core.network.setup.openvswitch import OpenVSwitch

if TYPE_CHECKING:
    from snf_core.contract import Setup

LINKS = {
    "br0": Link(2, "br0", "bridge", 9000, True, "02:00:00:00:00:02"),
    "brv": Link(3, "brv", "bridge", 9000, True, "02:00:00:00:00:03", vlan_aware=True),
    "ovs0": Link(4, "ovs0", "openvswitch", 1400, True, "02:00:00:00:00:04"),
    "eth0": Link(5, "eth0", "", 1500, True, "02:00:00:00:00:05"),
}


class FakeNode:
    """A node with these links."""

    def __init__(self, *, ipv6: bool = True) -> None:
        self.ipv6 = ipv6

    link = staticmethod(LINKS.get)
    bridge = Node.bridge


def event(
    mode: Mode, link: str, vlan: str = "", tags: str = "", mac: str = "aa:00:10:38:54:25"
) -> NicEvent:
    network = Network("net1", tags=frozenset(tags.split()))
    nic = Nic(index=0, mac=mac, mode=mode, link=link, vlan=vlan, network=network)
    return NicEvent(Action.UP, "tap0", "web1", nic=nic)


def wanted(setup: type[Setup], one: NicEvent, *, ipv6: bool = True) -> list[tuple[object, ...]]:
    made = setup(SimpleNamespace(tags=["bridged"]))
    state = made.wanted(one, cast("Node", FakeNode(ipv6=ipv6)))
    return [(item.kind, item.object, item.attribute, item.value) for item in state.items]


def bridged(link: str, vlan: str = "") -> list[tuple[object, ...]]:
    """What is wanted beside what every bridged NIC has, and the place of ``up``."""
    items = wanted(Bridged, event(Mode.BRIDGED, link, vlan), ipv6=False)
    assert items[:3] == [
        ("link", "tap0", "address", "fe:00:10:38:54:25"),
        ("link", "tap0", "mtu", 9000),
        ("link", "tap0", "master", link),
    ]
    return items[3:]


UP = ("link", "tap0", "up", True)
UNTAGGED = ("element", "bridge bridged_untagged", "tap0", True)


def test_a_bridge_without_vlans_has_neither_vlans_nor_a_guard() -> None:
    assert bridged("br0") == [UP]


@pytest.mark.parametrize(
    ("vlan", "vlans", "guarded"),
    [
        (".100", "untagged 100", True),
        (":200:300", "tagged 200,300", False),
        (".100:200", "untagged 100 tagged 200", False),
    ],
)
def test_the_vlans_come_after_the_bridge_and_before_up(
    vlan: str, vlans: str, guarded: bool
) -> None:
    items = [("link", "tap0", "vlans", vlans), *([UNTAGGED] if guarded else []), UP]
    assert bridged("brv", vlan) == items


def test_on_a_vlan_aware_bridge_nobody_tags_unasked() -> None:
    assert bridged("brv") == [UNTAGGED, UP]


def test_a_vlan_on_a_bridge_without_is_refused_with_the_command_that_helps() -> None:
    with pytest.raises(NetworkError) as caught:
        bridged("br0", ".100")
    assert "untagged 100" in str(caught.value)
    assert "ip link set br0 type bridge vlan_filtering 1 vlan_default_pvid 0" in str(caught.value)


def test_the_hosts_address_is_never_the_guests() -> None:
    (address, *_) = wanted(Bridged, event(Mode.BRIDGED, "br0", mac="fe:00:00:00:00:01"), ipv6=False)
    assert address[3] == "fa:00:00:00:00:01"


@pytest.mark.parametrize("mode", [Mode.BRIDGED, Mode.OPENVSWITCH])
def test_the_host_does_not_speak_ipv6_by_the_port(mode: Mode) -> None:
    setup, link = (Bridged, "br0") if mode is Mode.BRIDGED else (OpenVSwitch, "ovs0")
    assert wanted(setup, event(mode, link))[0] == (
        *("sysctl", "net/ipv6/conf/tap0/disable_ipv6", "value", "1"),
    )
    assert all(item[0] != "sysctl" for item in wanted(setup, event(mode, link), ipv6=False))


@pytest.mark.parametrize(
    ("vlan", "port"),
    [("", "ovs0"), (".100", "ovs0 untagged 100"), (".1:2:3", "ovs0 untagged 1 tagged 2,3")],
)
def test_a_port_of_open_vswitch_with_its_vlans(vlan: str, port: str) -> None:
    assert wanted(OpenVSwitch, event(Mode.OPENVSWITCH, "ovs0", vlan), ipv6=False) == [
        ("link", "tap0", "address", "fe:00:10:38:54:25"),
        ("link", "tap0", "mtu", 1400),
        ("port", "tap0", "switch", port),
        UP,
    ]


@pytest.mark.parametrize(
    ("link", "message"),
    [
        ("ovs7", "ovs7 does not exist.*ovs-vsctl add-br ovs7"),
        ("br0", "br0 is not an Open vSwitch bridge but bridge"),
        ("eth0", "eth0 is not an Open vSwitch bridge but a hardware interface"),
    ],
)
def test_what_is_no_switch_is_refused(link: str, message: str) -> None:
    with pytest.raises(NetworkError, match=message):
        wanted(OpenVSwitch, event(Mode.OPENVSWITCH, link))


@pytest.mark.parametrize("link", ["--help", "ovs0 -- del-br ovs1", "a/b"])
def test_a_switch_that_is_an_option_or_two_words_is_refused(link: str) -> None:
    with pytest.raises(InvalidValueError):
        wanted(OpenVSwitch, event(Mode.OPENVSWITCH, link))


@pytest.mark.parametrize("setup", [Bridged, OpenVSwitch])
def test_every_nic_of_the_mode_is_served_and_only_plain_tags_are_fulfilled(
    setup: type[Setup],
) -> None:
    made = setup(SimpleNamespace(tags=["bridged"]))
    mode = Mode.BRIDGED if setup is Bridged else Mode.OPENVSWITCH
    for other in Mode:
        assert made.applies(event(other, "br0", tags="private-filtered")) is (other is mode)
    assert made.fulfils("bridged")
    assert not made.fulfils("private-filtered")
    assert not made.applies(replace(event(mode, "br0"), action=Action.DOWN, nic=None))
