"""Validation of what the system works on, against what must never come through."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snf_core import model
from snf_core.errors import InvalidValueError
from snf_core.model import Action, Disk, Instance, Mode, Network, Nic, NicEvent

if TYPE_CHECKING:
    from collections.abc import Callable

MAC = "aa:00:00:00:00:01"


@dataclass(frozen=True)
class Kind:
    """A validator with examples."""

    parse: Callable[[str], object]
    good: tuple[str, ...]
    bad: tuple[str, ...]


KINDS = {
    "interface": Kind(
        model.interface_name,
        ("tap0", "vif1.0", "vif1.0-emu", "br_lan", "eth0:1", "x" * 15, "0"),
        ("", ".", "..", "all", "default", "-a", "a/b", "a b", "x" * 16, "tap0\n", "täp",
         "a;b", "$x", "a\0"),
    ),
    "mac": Kind(
        model.mac_address,
        (MAC, "AA:00:00:00:00:FF", "00:00:00:00:00:01"),
        ("", "aa:00", "00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01",
         "aa-00-00-00-00-01", f"{MAC}\n", f"{MAC}:02",
         "\uff41a:00:00:00:00:01", "ga:00:00:00:00:01"),
    ),
    "instance": Kind(
        model.instance_name,
        ("web1.example.org", "a", "web_1", "x" * 253),
        ("", "-a", "a-", ".a", "a.", "a b", "a/b", "x" * 254, "a\n", "é", "a;reboot"),
    ),
    "tag": Kind(
        model.tag, ("ip-less-routed", "a:b/c@d+e*f", "x" * 128), ("", "a b", "ä", "x" * 129, "a\n")
    ),
    "uuid": Kind(
        model.uuid,
        ("3cd35ad8-7b4a-4b0c-8d7c-6f3d8b8f2a01", "3CD35AD8-7B4A-4B0C-8D7C-6F3D8B8F2A01"),
        ("", "3cd35ad8", "3cd35ad8-7b4a-4b0c-8d7c-6f3d8b8f2a01\n", "x" * 36),
    ),
    "name": Kind(
        model.name,
        ("my network", "réseau", "a'b\"c", "日本", "x" * 255),
        ("", "a\nb", "a\x1b[0m", "a\x7f", "a\x9b0m", "a\u2028b", "a\udcff", "x" * 256),
    ),
    "address": Kind(
        model.address,
        ("192.0.2.1", "2001:db8::1", "::"),
        ("", "192.0.2", "192.0.2.256", "192.0.2.01", "1", "192.0.2.1/24", " 192.0.2.1",
         "fe80::1%eth0", "fe80::1%a\nevil", "192.0.2.1\n", "١٩٢.0.2.1"),
    ),
    "ipv4": Kind(model.ipv4_address, ("192.0.2.1",), ("2001:db8::1", "", "x")),
    "ipv6": Kind(model.ipv6_address, ("2001:db8::1",), ("192.0.2.1", "", "fe80::1%1")),
    "ipv4 prefix": Kind(
        model.ipv4_network,
        ("192.0.2.0/24", "192.0.2.5/32", "0.0.0.0/0"),
        ("", "192.0.2.0", "192.0.2.1/24", "192.0.2.0/33", "192.0.2.0/", "2001:db8::/64",
         "192.0.2.0/255.255.255.0", "192.0.2.0/0.0.0.255", "192.0.2.0/-1", "192.0.2.0/24\n"),
    ),
    "ipv6 prefix": Kind(
        model.ipv6_network,
        ("2001:db8::/64", "fe80::/10"),
        ("", "2001:db8::", "2001:db8::1/64", "192.0.2.0/24", "fe80::%eth0/64", "fe80::%a\nb/64",
         "2001:db8::/129"),
    ),
    "mac prefix": Kind(model.mac_prefix, ("aa:00:10", "AA:00:10"), ("", "aa:00", "aa:00:10:01")),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_good_values_are_taken(kind: str) -> None:
    for text in KINDS[kind].good:
        assert str(KINDS[kind].parse(text)) in {text, text.lower()}


@pytest.mark.parametrize(("kind", "text"), [(k, text) for k, v in KINDS.items() for text in v.bad])
def test_bad_values_are_refused_and_quoted(kind: str, text: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        KINDS[kind].parse(text)
    assert repr(text) in caught.value.message


@given(st.text(), st.sampled_from(sorted(KINDS)))
def test_whatever_is_taken_stays_on_one_line(text: str, kind: str) -> None:
    try:
        found = str(KINDS[kind].parse(text))
    except InvalidValueError:
        return
    assert found == found.splitlines()[0]
    assert not any(character < " " or character == "\x7f" for character in found)


def test_tags_are_a_set() -> None:
    assert model.tags(" b a  b\ta ") == {"a", "b"}
    assert model.tags("") == frozenset()
    with pytest.raises(InvalidValueError):
        model.tags("a ;reboot")


@pytest.mark.parametrize("value", [68, 1500, 65535])
def test_mtu(value: int) -> None:
    assert model.mtu(value) == value


@pytest.mark.parametrize("value", [-1, 0, 67, 65536])
def test_no_mtu(value: int) -> None:
    with pytest.raises(InvalidValueError, match=f"{value} is not an MTU"):
        model.mtu(value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Instance("a b", "kvm"),
        lambda: Instance("a", "kvm", uuid="x"),
        lambda: Disk(0),
        lambda: Disk(0, path="relative"),
        lambda: Disk(0, path="/a\nb"),
        lambda: Disk(0, path="/" + "x" * 4095),
        lambda: Disk(0, uri="rbd:a\x1bb"),
        lambda: Disk(0, path="/a", name="x" * 256),
        lambda: Network(""),
        lambda: Network("a\nb"),
        lambda: Network("a", uuid="x"),
        lambda: Network("a", mac_prefix="x"),
        lambda: Nic(0, "x", Mode.ROUTED),
        lambda: Nic(0, MAC, Mode.BRIDGED),
        lambda: Nic(0, MAC, Mode.BRIDGED, link="-x"),
        lambda: Nic(0, MAC, Mode.ROUTED, link="a\nb"),
        lambda: Nic(0, MAC, Mode.ROUTED, name="a\nb"),
        lambda: Nic(0, MAC, Mode.ROUTED, uuid="x"),
        lambda: NicEvent(Action.UP, "tap0", "a"),
        lambda: NicEvent(Action.DOWN, "-x", "a"),
        lambda: NicEvent(Action.DOWN, "tap0", "a b"),
    ],
)
def test_nothing_invalid_can_be_made(make: Callable[[], object]) -> None:
    with pytest.raises(InvalidValueError):
        make()


def test_what_can_be_made() -> None:
    assert Disk(0, path="/srv/" + "x" * 1000).path.endswith("x")
    assert Nic(0, "AA:00:00:00:00:01", Mode.ROUTED).mac == MAC
    assert Nic(0, MAC, Mode.ROUTED).network_tags == frozenset()
    tagged = Nic(0, MAC, Mode.ROUTED, network=Network("n", tags=frozenset({"a"})))
    assert tagged.network_tags == {"a"}
    assert NicEvent(Action.DOWN, "tap0", "").nic is None
