"""What routed and masqueraded NICs and uplinks should have: pure data."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING

import pytest

from snf_core import config, schema
from snf_core.errors import ConfigError, NetworkError
from snf_core.model import Action, Mode, Network, Nic, NicEvent, Twin
from snf_core.network import uplink
from snf_core.network.node import Node
from snf_core.network.setup.masquerade import Masquerade
from snf_core.network.setup.routed import Routed
from snf_core.network.state import Announcement
from tests.fakes.links import FakeLinks

if TYPE_CHECKING:
    from pathlib import Path

NETWORK = Network(
    "public",
    subnet=IPv4Network("198.51.100.0/24"),
    gateway=IPv4Address("198.51.100.1"),
    subnet6=IPv6Network("2001:db8:1::/64"),
    gateway6=IPv6Address("2001:db8:1::1"),
    tags=frozenset({"ip-less-routed"}),
)
NIC = Nic(
    0,
    "aa:00:00:38:54:25",
    Mode.ROUTED,
    link="100",
    ip=IPv4Address("198.51.100.10"),
    network=NETWORK,
)
EVENT = NicEvent(Action.UP, "tap0", "web1.gnt.test", NIC)
IP6 = "2001:db8:1:0:a800:ff:fe38:5425"


class FakeNode(Node):
    """A node whose table 100, named guests, leads out of eth0, which forwards."""

    ipv6 = True

    def __init__(self) -> None:
        self.links = FakeLinks()
        super().__init__(self.links)
        self.settings = {
            "net/ipv4/conf/all/proxy_arp": "0",
            "net/ipv4/conf/all/rp_filter": "0",
            "net/ipv4/conf/eth0/forwarding": "1",
            "net/ipv6/conf/all/forwarding": "1",
        }

    def table(self, name: str) -> int:
        """Its number."""
        return {"100": 100, "guests": 100, "main": 254}[name]

    def sysctl(self, path: str) -> str | None:
        """Its value."""
        return self.settings.get(path)


@pytest.fixture
def node() -> FakeNode:
    """A node."""
    return FakeNode()


@pytest.fixture
def routed() -> Routed:
    """The setup with its defaults."""
    return Routed(config.Config([]).plugin("network.setup.routed", Routed.options))


@pytest.fixture
def masquerade() -> Masquerade:
    """The setup with its defaults."""
    return Masquerade(config.Config([]).plugin("network.setup.masquerade", Masquerade.options))


def event(*instance_tags: str, network: Network | None = NETWORK, **nic: object) -> NicEvent:
    """The event with changes."""
    changed = replace(NIC, network=network, **nic)  # type: ignore[arg-type]
    return replace(EVENT, nic=changed, instance_tags=frozenset(instance_tags))


def words(items: object) -> set[str]:
    """Items as words, without the sysctls."""
    return {str(item) for item in items if item.kind != "sysctl"}  # type: ignore[attr-defined]


BOTH = {
    "link tap0 address cc:47:52:4e:45:54",
    "link tap0 up yes",
    "element inet routed_guests tap0 yes",
    "element inet routed_macs tap0 aa:00:00:38:54:25 yes",
    "element arp routed_guests tap0 yes",
    "element arp routed_macs tap0 aa:00:00:38:54:25 yes",
}
WAY = {"element inet routed_ways tap0 eth0 yes"}
IPV4 = {
    "rule tap0 inet 100 20000 yes",
    "route 198.51.100.10/32 100 dev tap0",
    "neighbour eth0 198.51.100.10 yes",
    "element inet routed_sources4 tap0 198.51.100.10 yes",
    "element inet routed_sources4 tap0 0.0.0.0 yes",
    "element arp routed_sources tap0 198.51.100.10 yes",
    "element arp routed_sources tap0 0.0.0.0 yes",
    "element arp routed_senders tap0 198.51.100.1",
}
IPV6 = {
    "rule tap0 inet6 100 20000 yes",
    f"route {IP6}/128 100 dev tap0",
    f"neighbour eth0 {IP6} yes",
    "neighbour tap0 2001:db8:1::1 yes",
    f"element inet routed_sources6 tap0 {IP6} yes",
}


def test_a_routed_nic(routed: Routed, node: FakeNode) -> None:
    state = routed.wanted(EVENT, node)
    assert words(state.items) == BOTH | WAY | IPV4 | IPV6
    assert state.announcements == (
        Announcement("eth0", IPv4Address("198.51.100.10"), "02:00:00:00:00:03"),
        Announcement("eth0", IPv6Address(IP6), "02:00:00:00:00:03"),
    )


def test_it_is_up_before_it_has_routes_and_never_accepts_advertisements(
    routed: Routed, node: FakeNode
) -> None:
    items = [f"{item.kind} {item.object}" for item in routed.wanted(EVENT, node).items]
    assert items.index("link tap0") < items.index("route 198.51.100.10/32")
    settings = {i.object: i.value for i in routed.wanted(EVENT, node).items if i.kind == "sysctl"}
    assert settings["net/ipv6/conf/tap0/accept_ra"] == "0"
    assert settings["net/ipv4/conf/tap0/proxy_arp"] == "1"


def test_a_table_by_its_name(routed: Routed, node: FakeNode) -> None:
    state = routed.wanted(event(link="guests"), node)
    assert words(state.items) == BOTH | WAY | IPV4 | IPV6


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (["disable_ipv6"], BOTH | WAY | IPV4),
        (["disable_ipv4"], BOTH | WAY | IPV6),
        (["disable_ipv4", "disable_ipv6"], BOTH),
    ],
)
def test_families_are_left_out(
    routed: Routed, node: FakeNode, tags: list[str], expected: set[str]
) -> None:
    state = routed.wanted(event(*tags), node)
    assert words(state.items) == expected
    disabled = "sysctl net/ipv6/conf/tap0/disable_ipv6 value 1"
    assert (disabled in map(str, state.items)) == ("disable_ipv6" in tags)


def test_a_kernel_without_ipv6(routed: Routed, node: FakeNode) -> None:
    node.ipv6 = False
    state = routed.wanted(event(network=replace(NETWORK, subnet6=None)), node)
    assert words(state.items) == BOTH | WAY | IPV4
    assert not [item for item in state.items if "ipv6" in item.object]
    with pytest.raises(NetworkError, match="this node's kernel no IPv6"):
        routed.wanted(EVENT, node)


def test_a_nic_without_a_network(routed: Routed, node: FakeNode) -> None:
    state = routed.wanted(event(network=None), node)
    assert words(state.items) == BOTH | WAY | IPV4 - {
        "element arp routed_senders tap0 198.51.100.1"
    }


def test_spoofing_is_the_networks_to_allow(routed: Routed, node: FakeNode) -> None:
    allowed = {f"element {family} routed_spoofers tap0 yes" for family in ("inet", "arp")}
    tagged = replace(NETWORK, tags=NETWORK.tags | {"ip-spoofing"})
    by_network = routed.wanted(event(network=tagged), node)
    by_instance = routed.wanted(event("ip-spoofing"), node)
    assert allowed <= words(by_network.items)
    assert not allowed & words(by_instance.items)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ip": None, "network": None}, "needs an address"),
        ({"ip": IPv4Address("198.51.100.1")}, "is the gateway of network public"),
        ({"ip": IPv4Address("198.51.101.10")}, "is not in 198.51.100.0/24"),
        ({"ip": IPv6Address("2001:db8::1")}, "is not an IPv4 address"),
        ({"ip": IPv4Address("224.0.0.1"), "network": None}, "not the address of a guest"),
        ({"network": replace(NETWORK, subnet6=IPv6Network("2001:db8::/48"))}, "length 64"),
        ({"network": replace(NETWORK, gateway6=IPv6Address(IP6))}, "is the network's gateway"),
        ({"link": "main"}, "routing table main has no IPv4 default route"),
    ],
)
def test_what_is_refused(
    routed: Routed, node: FakeNode, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(NetworkError, match=message):
        routed.wanted(event(**changes), node)  # type: ignore[arg-type]


def test_an_uplink_that_is_not_prepared(routed: Routed, node: FakeNode) -> None:
    node.settings["net/ipv4/conf/eth0/forwarding"] = "0"
    with pytest.raises(NetworkError, match="does not forward IPv4") as caught:
        routed.wanted(EVENT, node)
    assert "snf network uplink up" in caught.value.remedy


def test_no_ipv6_default_route(routed: Routed, node: FakeNode) -> None:
    del node.links.default_routes[100, "inet6"]
    with pytest.raises(NetworkError, match="no IPv6 default route"):
        routed.wanted(EVENT, node)
    assert words(routed.wanted(event("disable_ipv6"), node).items) == BOTH | WAY | IPV4


def test_the_uplink_is_no_nic(routed: Routed, node: FakeNode) -> None:
    with pytest.raises(NetworkError, match="is the uplink"):
        routed.wanted(replace(EVENT, interface="eth0"), node)


@pytest.mark.parametrize(
    ("tags", "applies"),
    [
        (set(), True),
        ({"ip-less-routed"}, True),
        ({"masq", "ip-less-routed"}, True),
        ({"private-filtered"}, False),
    ],
)
def test_to_which_nics_it_applies(routed: Routed, tags: set[str], applies: bool) -> None:
    network = replace(NETWORK, tags=frozenset(tags))
    assert routed.applies(event(network=network)) is applies
    assert not routed.applies(event(network=network, mode=Mode.BRIDGED, link="br0"))
    assert not routed.applies(replace(EVENT, action=Action.DOWN, nic=None))


def test_no_rule_names_a_nic(routed: Routed, masquerade: Masquerade) -> None:
    text = routed.ruleset(Mode.ROUTED) + masquerade.ruleset(Mode.ROUTED)
    assert "tap" not in text
    assert routed.ruleset(Mode.BRIDGED) == ""


MASQUERADED = replace(NETWORK, tags=frozenset({"masq", "ip-less-routed"}))


def test_masquerading(masquerade: Masquerade, node: FakeNode) -> None:
    mine = event(network=MASQUERADED)
    assert masquerade.applies(mine)
    assert not masquerade.applies(EVENT)
    assert words(masquerade.wanted(mine, node).items) == {
        "element inet masquerade_sources eth0 198.51.100.10 yes",
        "element inet masquerade_inside eth0 198.51.100.10 198.51.100.0 198.51.100.255 yes",
    }
    assert masquerade.wanted(event("disable_ipv4", network=MASQUERADED), node).items == ()


def test_masquerading_a_bridged_nic(masquerade: Masquerade, node: FakeNode) -> None:
    mine = event(network=MASQUERADED, mode=Mode.BRIDGED, link="br0")
    with pytest.raises(NetworkError, match="routing table main has no IPv4 default route"):
        masquerade.wanted(mine, node)
    node.links.default_routes[254, "inet"] = "br0"
    assert "element inet masquerade_sources br0 198.51.100.10 yes" in words(
        masquerade.wanted(mine, node).items
    )


UPLINK = """
[network.uplink.100]
interface = eth0
subnet = 198.51.100.0/24
gateway = 198.51.100.1
address = 198.51.100.250
subnet6 = 2001:db8:1::/64
gateway6 = fe80::1
"""


def configured(directory: Path, text: str) -> config.Config:
    """A configuration that holds ``text``."""
    file = directory / "snf.conf"
    file.write_text(text)
    return config.load(file)


def test_an_uplink(tmp_path: Path, node: FakeNode) -> None:
    conf = configured(tmp_path, UPLINK)
    found = uplink.uplinks(conf)
    assert list(schema.check(conf)) == []
    assert list(found) == ["100"]
    state = uplink.wanted(found["100"], node)
    assert words(state.items) == {
        "link eth0 up yes",
        "rule eth0 inet 100 20000 yes",
        "route 198.51.100.0/24 100 dev eth0",
        "route 0.0.0.0/0 100 via 198.51.100.1 dev eth0",
        "rule eth0 inet6 100 20000 yes",
        "route 2001:db8:1::/64 100 dev eth0",
        "route ::/0 100 via fe80::1 dev eth0",
        "element inet routed_uplinks eth0 yes",
        "element arp routed_senders eth0 198.51.100.250",
    }
    assert {item.setup for item in state.items} == {"routed"}


def test_rule_priorities_are_those_of_routed(tmp_path: Path) -> None:
    conf = configured(tmp_path, UPLINK + "[network.setup.routed]\nrule_priority = 77\n")
    assert uplink.uplinks(conf)["100"].priority == 77


@pytest.mark.parametrize(
    ("accepted", "wanted"), [(None, None), ("0", None), ("1", "2"), ("2", "2")]
)
def test_the_nodes_own_default_route_outlives_forwarding(
    tmp_path: Path, node: FakeNode, accepted: str | None, wanted: str | None
) -> None:
    node.links.default_routes[254, "inet6"] = "br0"
    if accepted is not None:
        node.settings["net/ipv6/conf/br0/accept_ra"] = accepted
    state = uplink.wanted(uplink.uplinks(configured(tmp_path, UPLINK))["100"], node)
    settings = {item.object: item.value for item in state.items if item.kind == "sysctl"}
    assert settings.get("net/ipv6/conf/br0/accept_ra") == wanted
    if wanted:
        order = list(settings)
        accepting = order.index("net/ipv6/conf/br0/accept_ra")
        assert accepting < order.index("net/ipv6/conf/all/forwarding")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("interface = eth0\n", "", r"group \[network.uplink.100\] has no interface"),
        ("gateway = 198.51.100.1\n", "", "has no gateway"),
        ("subnet6 = 2001:db8:1::/64\n", "", "has no subnet6"),
        ("198.51.100.0/24", "198.51.100.1/24", "option 'subnet' .* is not an IPv4 prefix"),
        ("address = 198.51.100.250", "address = 198.51.100.1", "is the gateway"),
        ("address = 198.51.100.250", "address = 192.0.2.1", "is not in the subnet"),
        ("interface = eth0", "interface = /dev/null", "option 'interface'"),
        ("gateway6", "gatway6", "unknown option 'gatway6'"),
    ],
)
def test_what_is_wrong_with_an_uplink(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in UPLINK
    conf = configured(tmp_path, UPLINK.replace(old, new))
    with pytest.raises(ConfigError, match=message):
        uplink.uplinks(conf)
    assert len(list(schema.check(conf))) == 1


def test_an_interface_leads_to_one_table(tmp_path: Path) -> None:
    conf = configured(tmp_path, UPLINK + UPLINK.replace("100]", "guests]"))
    with pytest.raises(ConfigError, match="is the uplink of routing table 100 already"):
        uplink.uplinks(conf)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("uplink.100", "uplink.main", "the node's own"),
        ("interface = eth0", "interface = eth7", "eth7, the uplink .*, does not exist"),
    ],
)
def test_an_uplink_that_this_node_cannot_have(
    tmp_path: Path, node: FakeNode, old: str, new: str, message: str
) -> None:
    (one,) = uplink.uplinks(configured(tmp_path, UPLINK.replace(old, new))).values()
    with pytest.raises(NetworkError, match=message):
        uplink.wanted(one, node)


def test_an_uplink_never_answers_for_all(tmp_path: Path, node: FakeNode) -> None:
    one = uplink.uplinks(configured(tmp_path, UPLINK))["100"]
    assert "sysctl net/ipv4/conf/eth0/proxy_arp value 0" in map(str, uplink.wanted(one, node).items)
    node.settings["net/ipv4/conf/all/proxy_arp"] = "1"
    with pytest.raises(NetworkError, match=r"all\.proxy_arp is 1"):
        uplink.wanted(one, node)


def test_the_interface_that_is_emulated_stands_behind_the_other(
    routed: Routed, node: FakeNode
) -> None:
    alone, vif, tap = (
        {str(item) for item in routed.wanted(replace(EVENT, twin=twin), node).items}
        for twin in (None, Twin.PARAVIRTUAL, Twin.EMULATED)
    )
    assert vif - alone == {
        f"sysctl net/{family}/conf/tap0/ignore_routes_with_linkdown value 1"
        for family in ("ipv4", "ipv6")
    }
    assert alone <= vif
    assert tap - alone == {
        "route 198.51.100.10/32 100 2048 dev tap0",
        f"route {IP6}/128 100 2048 dev tap0",
    }
    assert {one.split()[0] for one in alone - tap} == {"route"}


def test_an_mtu_of_its_own(routed: Routed, node: FakeNode) -> None:
    assert "link tap0 mtu 9000" in words(routed.wanted(event(mtu=9000), node).items)
    assert not any("mtu" in one for one in words(routed.wanted(event(), node).items))
