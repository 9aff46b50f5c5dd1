"""NIC events as each Ganeti delivers them, and as nobody should."""

from __future__ import annotations

import contextlib
import ipaddress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snf_core.errors import InvalidValueError
from snf_core.model import Action, Migration, Mode, Network, Nic, NicEvent
from snf_kvm import nic as kvm

UUID = "3cd35ad8-7b4a-4b0c-8d7c-6f3d8b8f2a01"

INHERITED = {"HOME": "/root", "TERM": "linux", "LC_ALL": "C", "PATH": "/usr/sbin:/usr/bin:/sbin"}
"""The environment of Ganeti's node daemon, which is not reset."""

BARE = INHERITED | {
    "INSTANCE": "web1.gnt.test",
    "INTERFACE": "tap0",
    "INTERFACE_INDEX": "0",
    "INTERFACE_UUID": UUID,
    "MAC": "aa:00:10:38:54:25",
    "MODE": "bridged",
    "LINK": "br0",
    "BRIDGE": "br0",
    "VLAN": "",
    "TAGS": "itag1 itag2",
}
"""Bridged, no network, no address."""

NETWORK = {
    "INTERFACE_NAME": "lan",
    "IP": "198.51.100.3",
    "NETWORK_NAME": "net1",
    "NETWORK_UUID": UUID,
    "NETWORK_TAGS": "ip-less-routed nfdhcpd dns",
    "NETWORK_SUBNET": "198.51.100.0/24",
    "NETWORK_GATEWAY": "198.51.100.1",
    "NETWORK_SUBNET6": "2001:db8::/64",
    "NETWORK_GATEWAY6": "2001:db8::1",
    "NETWORK_MAC_PREFIX": "AA:00:10",
}

ROUTED = BARE | NETWORK | {"MODE": "routed", "LINK": "100"}
del ROUTED["BRIDGE"]


COMMUNICATION = ROUTED | {"INTERFACE": "gnt.com.0"}


def nic_event(argv: list[str], environ: dict[str, str]) -> NicEvent:
    """An event that is our business."""
    event = kvm.nic_event(argv, environ)
    assert event is not None
    return event


def without(name: str) -> dict[str, str]:
    return {key: value for key, value in BARE.items() if key != name}


@pytest.mark.parametrize(
    ("argv", "environ"),
    [(["up"], BARE), (["up", "tap0"], BARE), (["up", "tap0"], without("INTERFACE"))],
)
def test_up_of_a_bare_nic(argv: list[str], environ: dict[str, str]) -> None:
    """Ganeti 3.0 gives no argument, 3.1 the tap."""
    assert nic_event(argv, environ) == NicEvent(
        action=Action.UP,
        interface="tap0",
        instance="web1.gnt.test",
        nic=Nic(index=0, mac="aa:00:10:38:54:25", mode=Mode.BRIDGED, link="br0", uuid=UUID),
        instance_tags=frozenset({"itag1", "itag2"}),
    )


def test_up_of_a_nic_in_a_network() -> None:
    nic = nic_event(["up"], ROUTED).nic
    assert nic == Nic(
        index=0,
        mac="aa:00:10:38:54:25",
        mode=Mode.ROUTED,
        link="100",
        ip=ipaddress.ip_address("198.51.100.3"),
        name="lan",
        uuid=UUID,
        network=Network(
            name="net1",
            uuid=UUID,
            subnet=ipaddress.IPv4Network("198.51.100.0/24"),
            gateway=ipaddress.IPv4Address("198.51.100.1"),
            subnet6=ipaddress.IPv6Network("2001:db8::/64"),
            gateway6=ipaddress.IPv6Address("2001:db8::1"),
            mac_prefix="aa:00:10",
            tags=frozenset({"ip-less-routed", "nfdhcpd", "dns"}),
        ),
    )


def test_the_order_of_tags_means_nothing() -> None:
    other = ROUTED | {"TAGS": "itag2  itag1", "NETWORK_TAGS": "dns nfdhcpd ip-less-routed"}
    assert nic_event(["up"], other) == nic_event(["up"], ROUTED)


def test_absent_and_empty_are_the_same() -> None:
    empty = dict.fromkeys(NETWORK, "") | {"VLAN": "", "INTERFACE_UUID": "", "TAGS": ""}
    absent = {key: value for key, value in BARE.items() if key not in empty}
    assert nic_event(["up"], BARE | empty) == nic_event(["up"], absent)


@pytest.mark.parametrize("vlan", ["10", ".10", ".10:20:30", ":20:30", "4094"])
def test_vlans_in_ganetis_notation(vlan: str) -> None:
    nic = nic_event(["up"], BARE | {"VLAN": vlan}).nic
    assert nic
    assert nic.vlan == vlan


@pytest.mark.parametrize(
    ("argv", "local_only"),
    [
        (["down", "tap0", "true"], True),
        (["down", "tap0", "false"], False),
        (["down", "tap0"], False),
    ],
)
def test_down_needs_nothing_but_the_interface(argv: list[str], local_only: bool) -> None:
    expected = NicEvent(Action.DOWN, "tap0", "", local_only=local_only)
    assert nic_event(argv, INHERITED) == expected
    assert nic_event(argv, BARE).instance == "web1.gnt.test"


def test_down_with_the_interface_in_the_environment() -> None:
    assert nic_event(["down"], BARE | {"MAC": "nonsense"}).interface == "tap0"


def test_from_ganeti_3_2_on_the_environment_says_what_happens() -> None:
    up, down = ROUTED | {"ACTION": "up"}, ROUTED | {"ACTION": "down"}
    assert nic_event(["up"], up) == nic_event(["up"], ROUTED) == nic_event(["event"], up)
    assert nic_event(["down"], down) == nic_event(["event"], down)
    assert nic_event(["down"], down) == replace(nic_event(["up"], up), action=Action.DOWN)


@pytest.mark.parametrize(
    ("phase", "migration"), [("pre", Migration.PRE), ("post", Migration.POST), ("", None)]
)
def test_the_phases_of_a_migration(phase: str, migration: Migration | None) -> None:
    environ = ROUTED | {"ACTION": "up", "MODE": "ext", "MIGRATION_PHASE": phase}
    assert nic_event(["up"], environ).migration is migration


@pytest.mark.parametrize(
    ("argv", "environ", "message"),
    [
        (["up"], {"ACTION": "down"}, "ACTION: 'down', but this is up"),
        (["down", "tap0"], {"ACTION": "up"}, "ACTION: 'up', but this is down"),
        (["up"], {"ACTION": "restart"}, "ACTION: 'restart' is not up or down"),
        (["event"], {}, "ACTION: missing"),
        (["event", "tap0"], {"ACTION": "up"}, "arguments: "),
        (["up"], {"MIGRATION_PHASE": "during"}, "MIGRATION_PHASE: 'during' is not pre or post"),
        (["down"], {"ACTION": "down", "MAC": "nonsense"}, "MAC: "),
    ],
)
def test_what_contradicts_itself_is_named(
    argv: list[str], environ: dict[str, str], message: str
) -> None:
    with pytest.raises(InvalidValueError, match=f"^{message}"):
        nic_event(argv, ROUTED | environ)


@pytest.mark.parametrize("mode", ["routed", "ext"])
def test_what_is_not_switched_needs_no_link(mode: str) -> None:
    nic = nic_event(["up"], without("LINK") | {"MODE": mode, "BRIDGE": ""}).nic
    assert nic
    assert (nic.mode.value, nic.link) == (mode, "")


@pytest.mark.parametrize(
    ("argv", "environ"),
    [
        (["up"], COMMUNICATION),
        (["up", "gnt.com.0"], COMMUNICATION | {"ACTION": "up"}),
        (["down", "gnt.com.12", "false"], INHERITED),
        (["event"], COMMUNICATION | {"ACTION": "down"}),
        (["up"], COMMUNICATION | {"MAC": "", "INSTANCE": ""}),
    ],
)
def test_ganetis_own_nics_are_none_of_ours(argv: list[str], environ: dict[str, str]) -> None:
    assert kvm.nic_event(argv, environ) is None


@pytest.mark.parametrize(
    "changes", [{"INTERFACE": "gnt.comx"}, {"INTERFACE": "gnt.com"}, {"MODE": "ext"}]
)
def test_others_are_not_taken_for_ganetis_own(changes: dict[str, str]) -> None:
    assert nic_event(["up"], COMMUNICATION | changes).instance == "web1.gnt.test"


@pytest.mark.parametrize(
    "name", ["INSTANCE", "INTERFACE", "INTERFACE_INDEX", "MAC", "MODE", "LINK"]
)
def test_what_is_missing_is_named(name: str) -> None:
    for environ in (without(name), BARE | {name: ""}):
        with pytest.raises(InvalidValueError, match=f"^{name}: missing"):
            nic_event(["up"], environ)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("INTERFACE", "tap0;reboot"),
        ("INTERFACE", "-j"),
        ("INTERFACE", "../tap0"),
        ("INTERFACE", "tap0123456789012"),
        ("INTERFACE_INDEX", "-1"),
        ("INTERFACE_INDEX", "٣"),
        ("INTERFACE_UUID", "1"),
        ("INTERFACE_NAME", "a\nb"),
        ("INTERFACE_NAME", "\udcff"),
        ("INSTANCE", "$(reboot)"),
        ("MAC", "01:00:5e:00:00:01"),
        ("MAC", "aa:00:10:38:54"),
        ("MODE", "bridge"),
        ("LINK", "br0/../br1"),
        ("BRIDGE", "br1"),
        ("IP", "198.51.100.300"),
        ("IP", "198.51.100.3/24"),
        ("VLAN", "0"),
        ("VLAN", "4095"),
        ("VLAN", "10;20"),
        ("TAGS", "a `reboot`"),
        ("TAGS", 'a" ; reboot'),
        ("NETWORK_NAME", "x" * 256),
        ("NETWORK_UUID", "x"),
        ("NETWORK_TAGS", "a,b"),
        ("NETWORK_SUBNET", "198.51.100.3/24"),
        ("NETWORK_SUBNET", "2001:db8::/64"),
        ("NETWORK_GATEWAY", "2001:db8::1"),
        ("NETWORK_SUBNET6", "198.51.100.0/24"),
        ("NETWORK_GATEWAY6", "198.51.100.1"),
        ("NETWORK_MAC_PREFIX", "aa:00"),
    ],
)
def test_what_is_wrong_is_named(name: str, value: str) -> None:
    with pytest.raises(InvalidValueError, match=f"^{name}: "):
        nic_event(["up"], BARE | NETWORK | {name: value})


def test_a_routed_nics_link_must_name_a_table() -> None:
    with pytest.raises(InvalidValueError, match=r"^LINK: "):
        nic_event(["up"], ROUTED | {"LINK": "100 lookup main"})


def test_the_tags_of_a_nameless_network_are_not_lost() -> None:
    with pytest.raises(InvalidValueError, match=r"^NETWORK_NAME: missing"):
        nic_event(["up"], BARE | {"NETWORK_TAGS": "private-filtered"})


@pytest.mark.parametrize("action", ["up", "down"])
def test_an_argument_that_contradicts_the_environment_is_refused(action: str) -> None:
    with pytest.raises(InvalidValueError, match=r"^INTERFACE: 'tap0' .* 'tap1'"):
        nic_event([action, "tap1"], BARE)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "^arguments: "),
        (["event", "online"], "^arguments: "),
        (["restart"], "^arguments: "),
        (["up", "tap0", "true"], "^arguments: "),
        (["down", "tap0", "true", "x"], "^arguments: "),
        (["down", "tap0", "yes"], "^LOCAL_ONLY "),
        (["down", "tap0;reboot"], "^TAP "),
        (["down"], "^INTERFACE: missing"),
    ],
)
def test_arguments_that_are_none_are_named(argv: list[str], message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        nic_event(argv, INHERITED)


VALUES = st.one_of(
    st.text(st.characters(exclude_characters="\0")),  # surrogates, as os.environ has them, too
    st.sampled_from(sorted({*BARE.values(), *NETWORK.values(), "routed", "openvswitch", "ext"})),
)


@given(
    st.lists(st.sampled_from(["up", "down", "tap0", "true", "false"]) | VALUES, max_size=4),
    st.dictionaries(
        st.sampled_from(sorted({*BARE, *NETWORK, "ACTION", "MIGRATION_PHASE"})),
        VALUES | st.sampled_from(["up", "down", "pre", "post"]),
    ),
)
def test_whatever_comes_is_an_event_or_an_error_of_ours(
    argv: list[str], changes: dict[str, str]
) -> None:
    for words in (argv, ["up"], ["down"]):
        with contextlib.suppress(InvalidValueError):
            event = kvm.nic_event(words, BARE | NETWORK | changes)
            assert event is not None
            assert event.interface.isascii()
            assert event.interface.strip("/ ") == event.interface
