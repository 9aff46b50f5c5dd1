"""What the setups filtered and isolation want of a NIC, and which tags promise something."""

from __future__ import annotations

import ipaddress
from types import SimpleNamespace
from typing import Any

import pytest

from snf_core.errors import NetworkError
from snf_core.model import Action, Mode, Network, Nic, NicEvent, address
from snf_core.network.eui64 import eui64
from snf_core.network.node import Node
from snf_core.network.setup.filtered import OPTIONS, Filtered
from snf_core.network.setup.isolation import Isolation
from snf_core.network.state import ELEMENT, LINK
from snf_core.network.tags import firewall_profiles, promised
from tests.fakes.links import FakeLinks

MAC = "aa:00:10:38:54:25"
UUID = "3cd35ad8-7b4a-4b0c-8d7c-6f3d8b8f2a01"
OWN6 = "0x20010db800010000a80010fffe385425"
OWN_LINK_LOCAL = "0xfe80000000000000a80010fffe385425"


def filtered(**options: Any) -> Filtered:
    """The setup with its defaults, changed by ``options``."""
    defaults = {option.dest: option.default for option in OPTIONS}
    return Filtered(SimpleNamespace(**{**defaults, **options}))


def event(
    tags: str = "filtered",
    *,
    ip: str | None = "10.0.0.5",
    subnet6: str | None = "2001:db8:1::/64",
    gateway6: str | None = "2001:db8:1::1",
    instance_tags: str = "",
    mac_prefix: str = "",
    mode: Mode = Mode.BRIDGED,
    vlan: str = "",
) -> NicEvent:
    """A NIC of a network comes up at tap0."""
    network = Network(
        "net1",
        subnet6=ipaddress.IPv6Network(subnet6) if subnet6 else None,
        gateway6=ipaddress.IPv6Address(gateway6) if gateway6 else None,
        mac_prefix=mac_prefix,
        tags=frozenset(tags.split()),
    )
    nic = Nic(
        index=0,
        mac=MAC,
        mode=mode,
        link="br0",
        ip=address(ip) if ip else None,
        vlan=vlan,
        name="front",
        uuid=UUID,
        network=network,
    )
    found = frozenset(instance_tags.split())
    return NicEvent(Action.UP, "tap0", "web1", nic=nic, instance_tags=found)


def elements(setup: Filtered | Isolation, happened: NicEvent) -> set[str]:
    """Set and key of each element that is wanted."""
    state = setup.wanted(happened, Node(FakeLinks()))
    return {f"{one.object} {one.attribute}" for one in state.items if one.kind == ELEMENT}


PINNED = {
    "bridge filtered_interfaces tap0",
    f"bridge filtered_macs tap0 {MAC}",
    "bridge filtered_link_layers tap0 0xaa0010385425",
}
PINNED4 = {
    "bridge filtered_addresses4 tap0 10.0.0.5",
    f"bridge filtered_pairs4 tap0 {MAC} 10.0.0.5",
}
PINNED6 = {
    *(f"bridge filtered_addresses6 tap0 {one}" for one in (OWN6, OWN_LINK_LOCAL)),
    f"bridge filtered_pairs6 tap0 {MAC} 2001:db8:1:0:a800:10ff:fe38:5425",
    f"bridge filtered_pairs6 tap0 {MAC} fe80::a800:10ff:fe38:5425",
}
ANY4, ANY6 = {"bridge filtered_any4 tap0"}, {"bridge filtered_any6 tap0"}


@pytest.mark.parametrize(
    ("happened", "wanted"),
    [
        (event(), PINNED | PINNED4 | PINNED6),
        (event(ip=None), PINNED | ANY4 | PINNED6),
        (event(subnet6=None), PINNED | PINNED4 | ANY6),
        (event("filtered ip-spoofing"), PINNED | ANY4 | ANY6),
        (event(instance_tags="ip-spoofing router"), PINNED | PINNED4 | PINNED6),
        (
            event(ip="2001:db8:9::5", subnet6=None),
            PINNED
            | ANY4
            | {
                "bridge filtered_addresses6 tap0 0x20010db8000900000000000000000005",
                f"bridge filtered_addresses6 tap0 {OWN_LINK_LOCAL}",
                f"bridge filtered_pairs6 tap0 {MAC} 2001:db8:9::5",
                f"bridge filtered_pairs6 tap0 {MAC} fe80::a800:10ff:fe38:5425",
            },
        ),
        (
            event("filtered ipv6-privacy dhcp-server router"),
            PINNED
            | PINNED4
            | PINNED6
            | {
                "bridge filtered_prefixes6 tap0 0x20010db8000100000000000000000000",
                "bridge filtered_prefixes6 tap0 0xfe800000000000000000000000000000",
                "bridge filtered_gateways6 tap0 0x20010db8000100000000000000000001",
                "bridge filtered_dhcp_servers tap0",
                "bridge filtered_routers tap0",
            },
        ),
        (
            event("private-filtered", mac_prefix="aa:00:1f"),
            PINNED
            | PINNED4
            | PINNED6
            | {
                "bridge filtered_private tap0",
                "bridge filtered_private_prefixes tap0 aa:00:10:00:00:00",
            },
        ),
    ],
)
def test_what_is_known_of_a_nic_is_pinned(happened: NicEvent, wanted: set[str]) -> None:
    assert filtered().applies(happened)
    assert elements(filtered(), happened) == wanted


def test_no_frame_of_a_filtered_port_is_kept_to_the_link() -> None:
    items = filtered().wanted(event(), Node(FakeLinks())).items
    masks = [one.value for one in items if (one.kind, one.attribute) == (LINK, "group_fwd_mask")]
    assert masks == [0xFFFD]


@pytest.mark.parametrize(
    ("happened", "words"),
    [
        (event(vlan=":100:200"), "tagged VLANs"),
        (event(vlan=".100:200"), "tagged VLANs"),
        (event(subnet6="2001:db8:1::/48"), "length 64"),
        (event("private-filtered", mac_prefix="aa:00:20"), "whose prefix is aa:00:20"),
    ],
)
def test_what_cannot_be_filtered_is_refused(happened: NicEvent, words: str) -> None:
    with pytest.raises(NetworkError, match=words):
        filtered().wanted(happened, Node(FakeLinks()))


def test_access_vlans_are_filtered() -> None:
    assert elements(filtered(), event(vlan=".100")) >= PINNED


def test_filtered_applies_by_the_tags_that_the_operator_names() -> None:
    renamed = filtered(tags=["guarded"], private_tags=["apart"])
    assert renamed.applies(event("apart"))
    assert renamed.fulfils("guarded")
    assert not renamed.applies(event("filtered"))
    assert not filtered().applies(event(mode=Mode.OPENVSWITCH))
    assert filtered().ruleset(Mode.ROUTED) == ""


def test_the_mask_of_private_networks_is_in_the_rules() -> None:
    rules = filtered(mac_mask="ff:ff:ff:00:00:00").ruleset(Mode.BRIDGED)
    assert "ether saddr & ff:ff:ff:00:00:00 @filtered_private_prefixes" in rules


def test_eui64() -> None:
    found = eui64(ipaddress.IPv6Network("2001:db8::/64"), "02:00:5e:10:00:01")
    assert found == ipaddress.IPv6Address("2001:db8::5eff:fe10:1")


@pytest.mark.parametrize(
    ("tags", "wanted"),
    [
        ("gnt:isolate", {"bridge isolation_isolated tap0"}),
        ("disable_ipv4 web", {"bridge isolation_disabled4 tap0"}),
        ("disable_ipv6", {"bridge isolation_disabled6 tap0"}),
        (
            "gnt:whitelist_ip:2001:DB8::1 gnt:whitelist_ip:2001:db8:0::1 "
            "gnt:whitelist_ip:192.0.2.1",
            {
                "bridge isolation_whitelisted tap0",
                "bridge isolation_addresses6 tap0 2001:db8::1",
                "bridge isolation_addresses4 tap0 192.0.2.1",
            },
        ),
    ],
)
def test_what_a_tag_of_the_instance_shuts(tags: str, wanted: set[str]) -> None:
    isolation = Isolation(SimpleNamespace())
    happened = event("", instance_tags=tags)
    assert isolation.applies(happened)
    assert elements(isolation, happened) == wanted


def test_a_routed_nic_is_shut_for_arp_too() -> None:
    happened = event("", instance_tags="gnt:isolate", mode=Mode.ROUTED)
    assert elements(Isolation(SimpleNamespace()), happened) == {
        "inet isolation_isolated tap0",
        "arp isolation_isolated tap0",
    }


@pytest.mark.parametrize("text", ["", "everybody", "192.0.2.0/24", "fe80::1%eth0", "1.2.3"])
def test_a_whitelist_of_what_is_no_address_is_refused(text: str) -> None:
    happened = event("", instance_tags=f"gnt:whitelist_ip:{text}")
    with pytest.raises(NetworkError, match="names no address"):
        Isolation(SimpleNamespace()).wanted(happened, Node(FakeLinks()))


def test_what_tags_promise() -> None:
    promises = {
        "gnt:isolate",
        "gnt:whitelist_ip:192.0.2.1",
        "disable_ipv4",
        "disable_ipv6",
        "synnefo:network:0:protected",
        "synnefo:network:front:limited",
        f"synnefo:network:{UUID}:web",
    }
    nothing = ("web", "synnefo:network:1:protected", "synnefo:network:0:unprotected")
    happened = event("filtered dns ip-spoofing", instance_tags=" ".join((*promises, *nothing)))
    assert promised(happened) == {"filtered", *promises}
    profiles = set(firewall_profiles(happened).values())
    assert profiles == {"protected", "limited", "web", "unprotected"}
