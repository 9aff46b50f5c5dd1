"""What each NIC of a guest should do: the decisions of the historical ConfigureNetwork."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snf_core import model
from snf_core.config import Config
from snf_core.errors import ConfigError, InvalidValueError
from snf_core.image import nics
from snf_core.image.nics import NicPlan
from snf_core.model import Mode, Network, Nic

if TYPE_CHECKING:
    from pathlib import Path

MAC = "aa:00:00:00:00:01"


def nic(ip: str = "", *, index: int = 0, tags: str = "", **network: str) -> Nic:
    """A NIC; with any keyword or tag it is in a network."""
    found = None
    if network or tags:
        found = Network(
            name="net",
            subnet=ipaddress.IPv4Network(network["subnet"]) if "subnet" in network else None,
            gateway=ipaddress.IPv4Address(network["gateway"]) if "gateway" in network else None,
            subnet6=ipaddress.IPv6Network(network["subnet6"]) if "subnet6" in network else None,
            gateway6=ipaddress.IPv6Address(network["gateway6"]) if "gateway6" in network else None,
            tags=model.tags(tags),
        )
    address = ipaddress.ip_address(ip) if ip else None
    return Nic(index, MAC, Mode.BRIDGED, link="br0", ip=address, network=found)


def only(one: Nic, conf: Any = None) -> NicPlan:
    """The plan of a NIC that is not alone, so that no default applies."""
    plans, warnings = nics.plan([one, nic("10.9.9.9", index=7)], conf or Config([]).network)
    assert warnings == []
    assert plans[1] == NicPlan(7, MAC, "dhcp")
    return plans[0]


def test_static() -> None:
    found = only(nic("192.0.2.5", subnet="192.0.2.0/24", gateway="192.0.2.1"))
    assert found == NicPlan(
        0,
        MAC,
        "static",
        "",
        address=ipaddress.IPv4Interface("192.0.2.5/24"),
        gateway=ipaddress.IPv4Address("192.0.2.1"),
    )


def test_static_without_gateway() -> None:
    found = only(nic("192.0.2.5", subnet="192.0.2.0/24"))
    assert (found.ipv4, found.gateway, found.gateway_on_link) == ("static", None, False)


@pytest.mark.parametrize(
    ("subnet", "gateway", "outside"),
    [
        ("192.0.2.0/24", "192.0.2.1", False),
        ("192.0.2.0/24", "198.51.100.1", True),
        ("192.0.2.5/32", "192.0.2.1", True),
        ("192.0.2.4/31", "192.0.2.4", False),
    ],
)
def test_a_gateway_outside_the_subnet_is_reached_directly(
    subnet: str, gateway: str, outside: bool
) -> None:
    found = only(nic("192.0.2.5", subnet=subnet, gateway=gateway))
    assert found.gateway == ipaddress.ip_address(gateway)
    assert found.gateway_on_link is outside


@pytest.mark.parametrize(
    "one",
    [
        nic("192.0.2.5"),
        nic("192.0.2.5", gateway="192.0.2.1"),
        nic("192.0.2.5", tags="some"),
        *(nic("192.0.2.5", subnet="192.0.2.0/24", gateway="192.0.2.1", tags=f"x {tag}")
          for tag in ("auto", "dhcp", "nfdhcpd")),
    ],
)  # fmt: skip
def test_dhcp_without_subnet_or_by_tag(one: Nic) -> None:
    assert only(one) == NicPlan(0, MAC, "dhcp")


def test_no_ip_no_ipv4_whatever_the_network() -> None:
    assert only(nic(subnet="192.0.2.0/24", gateway="192.0.2.1", tags="dhcp")).ipv4 == ""
    assert only(nic("2001:db8::5", subnet="192.0.2.0/24")).ipv4 == ""


@pytest.mark.parametrize(
    ("tags", "ipv6"),
    [
        ("", "slaac"),
        ("dhcp", "slaac"),
        ("dhcpv6", "dhcp"),
        ("stateful_dhcpv6", "dhcp"),
        ("stateless_dhcpv6", "slaac_dhcp"),
        ("nfdhcpd", "slaac_dhcp"),
        ("stateless_dhcpv6 dhcpv6", "slaac_dhcp"),
        ("dhcpv6 stateless_dhcpv6", "slaac_dhcp"),
    ],
)
def test_ipv6_by_gateway_and_tags(tags: str, ipv6: str) -> None:
    assert only(nic(gateway6="2001:db8::1", tags=tags)).ipv6 == ipv6
    assert only(nic(subnet6="2001:db8::/64", tags=tags)).ipv6 == "", "only a gateway counts"


@given(st.permutations(["dhcp", "dhcpv6", "stateless_dhcpv6", "other"]))
def test_tags_are_a_set(tags: list[str]) -> None:
    one = nic("192.0.2.5", subnet="192.0.2.0/24", gateway6="2001:db8::1", tags=" ".join(tags))
    assert only(one) == NicPlan(0, MAC, "dhcp", "slaac_dhcp")


def configured(tmp_path: Path, text: str) -> Any:
    """The network group of a configuration file."""
    file = tmp_path / "snf.conf"
    file.write_text(f"[network]\n{text}\n")
    return Config([file]).network


def test_no_tags_can_be_configured(tmp_path: Path) -> None:
    conf = configured(tmp_path, "dhcp_tags =")
    one = nic("192.0.2.5", subnet="192.0.2.0/24", tags="auto dhcp nfdhcpd")
    assert only(one, conf).ipv4 == "static"


@pytest.mark.parametrize(
    ("words", "ipv4", "ipv6"),
    [
        ("", "", ""),
        ("dhcp", "dhcp", ""),
        ("dhcpv6", "", "dhcp"),
        ("slaac", "", "slaac"),
        ("slaac_dhcp", "", "slaac_dhcp"),
        ("dhcp+dhcpv6", "dhcp", "dhcp"),
        ("dhcp+slaac", "dhcp", "slaac"),
        ("dhcp+slaac_dhcp", "dhcp", "slaac_dhcp"),
    ],
)
def test_a_single_bare_nic_gets_the_default(
    tmp_path: Path, words: str, ipv4: str, ipv6: str
) -> None:
    """An empty default leaves the NIC alone; it does not become DHCP."""
    plans, warnings = nics.plan([nic()], configured(tmp_path, f"default_nic_config = {words}"))
    assert [(p.index, p.mac, p.ipv4, p.ipv6) for p in plans] == [(0, MAC, ipv4, ipv6)]
    assert len(warnings) == 1
    assert (words or "nothing") in warnings[0]


def test_two_bare_nics_get_nothing() -> None:
    plans, warnings = nics.plan([nic(), nic(index=1)], Config([]).network)
    assert [(p.index, p.ipv4, p.ipv6) for p in plans] == [(0, "", ""), (1, "", "")]
    assert warnings == []


def test_a_single_nic_with_either_family_is_not_bare() -> None:
    for one in (nic("192.0.2.5"), nic(gateway6="2001:db8::1")):
        plans, warnings = nics.plan([one], Config([]).network)
        assert [plans[0].ipv4, plans[0].ipv6] != ["", ""]
        assert warnings == []


def test_no_nic_at_all() -> None:
    assert nics.plan([], Config([]).network) == ([], [])


@pytest.mark.parametrize(
    ("tags", "conf", "mtu"),
    [
        ("", "", 0),
        ("dhcp mtu-1450 xmtu:9", "", 0),
        ("dhcp mtu:1450", "", 1450),
        ("mtu:68", "", 68),
        ("mtu:65535", "guest_mtu = 1400", 65535),
        ("", "guest_mtu = 1400", 1400),
        ("mtu:1450 mtu:01450", "", 1450),
    ],
)
def test_mtu_by_tag_then_as_configured(tmp_path: Path, tags: str, conf: str, mtu: int) -> None:
    one = nic("192.0.2.5", subnet="192.0.2.0/24", tags=tags)
    plans, warnings = nics.plan([one, nic(index=1)], configured(tmp_path, conf))
    assert [plan.mtu for plan in plans] == [mtu, 1400 if "guest_mtu" in conf else 0]
    assert warnings == []


def test_a_bare_nic_has_an_mtu_too(tmp_path: Path) -> None:
    plans, _ = nics.plan([nic(tags="mtu:1450")], configured(tmp_path, "default_nic_config ="))
    assert [(plan.ipv4, plan.ipv6, plan.mtu) for plan in plans] == [("", "", 1450)]


@pytest.mark.parametrize("number", ["", "0", "67", "65536", "1e3", "-1", "1450+", "999999999999"])
def test_a_tag_that_names_no_mtu(number: str) -> None:
    with pytest.raises(InvalidValueError, match="MTU") as caught:
        nics.plan([nic(tags=f"mtu:{number}")], Config([]).network)
    assert caught.value.remedy


def test_tags_that_contradict_each_other() -> None:
    with pytest.raises(InvalidValueError, match="mtu:1400, mtu:1450 of its network contradict"):
        nics.plan([nic(tags="mtu:1450 mtu:1400")], Config([]).network)


@pytest.mark.parametrize("number", ["67", "65536", "-1", "x", "1450.0"])
def test_an_mtu_that_is_none_is_not_configured(tmp_path: Path, number: str) -> None:
    with pytest.raises(ConfigError, match="guest_mtu"):
        configured(tmp_path, f"guest_mtu = {number}")
