"""The setup ``firewall``: its profiles, whose NICs they are for, and what it wants."""

from __future__ import annotations

import logging
import re
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from snf_core.config import Config
from snf_core.errors import ConfigError, NetworkError
from snf_core.model import Action, Mode, Network, Nic, NicEvent
from snf_core.network.setup.firewall import OPTIONS, Firewall
from snf_core.network.tags import promised

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from snf_core.network.node import Node

UUID = "3cd35ad8-7b4a-4b0c-8d7c-6f3d8b8f2a01"
NODE = cast("Node", SimpleNamespace(link={"tap0": SimpleNamespace(index=7)}.get))


@pytest.fixture
def firewall(tmp_path: Path) -> Callable[..., Firewall]:
    def made(*profiles: str) -> Firewall:
        lines = [f"profile = {profile}\n" for profile in profiles]
        file = tmp_path / "snf.conf"
        file.write_text("[network.setup.firewall]\n" + "".join(lines))
        return Firewall(Config([file]).plugin("network.setup.firewall", OPTIONS))

    return made


def event(
    tags: str,
    mode: Mode = Mode.BRIDGED,
    *,
    link: str = "br0",
    vlan: str = "",
    network_tags: str = "",
    network_name: str = "net1",
) -> NicEvent:
    network = Network(network_name, tags=frozenset(network_tags.split()))
    nic = Nic(
        index=1,
        mac="aa:00:10:38:54:25",
        mode=mode,
        link=link,
        vlan=vlan,
        name="lan",
        uuid=UUID,
        network=network,
    )
    return NicEvent(Action.UP, "tap0", "web1", nic=nic, instance_tags=frozenset(tags.split()))


def profile(setup: Firewall, tags: str) -> str:
    assert setup.applies(event(tags))
    value = str(setup.wanted(event(tags), NODE).items[0].value)
    return value.removeprefix("jump firewall_profile_")


def zone(setup: Firewall, one: NicEvent) -> str:
    by_tap, by_guest = setup.wanted(one, NODE).items[1:3]
    assert by_tap.value == by_guest.value, "both directions of a conversation"
    assert 1 <= int(str(by_tap.value)) <= 65535
    return str(by_tap.value)


@pytest.mark.parametrize("nic", ["1", "lan", UUID, UUID.upper()])
@pytest.mark.parametrize("name", ["protected", "limited"])
def test_a_tag_names_the_nic_in_any_way(
    firewall: Callable[..., Firewall], nic: str, name: str
) -> None:
    tag = f"synnefo:network:{nic}:{name}"
    assert profile(firewall(), tag) == name
    assert promised(event(tag)) == {tag}
    assert firewall().fulfils(tag)


@pytest.mark.parametrize(
    "tags",
    [
        "",
        "synnefo:network:0:protected",
        "synnefo:network:LAN:protected",
        "synnefo:network:1:unprotected",
        "synnefo:network:protected",
        "xsynnefo:network:1:protected",
        "synnefo:network::protected",
    ],
)
def test_other_tags_are_not_for_this_nic(firewall: Callable[..., Firewall], tags: str) -> None:
    assert not firewall().applies(event(tags))
    assert promised(event(tags)) == set()


@pytest.mark.parametrize("mode", [Mode.OPENVSWITCH, Mode.EXTERNAL])
def test_a_mode_that_it_cannot_filter_is_not_served_but_promised(
    firewall: Callable[..., Firewall], mode: Mode
) -> None:
    one = event("synnefo:network:1:protected", mode)
    assert not firewall().applies(one)
    assert promised(one) == {"synnefo:network:1:protected"}


def test_what_is_wanted_of_a_routed_nic(firewall: Callable[..., Firewall]) -> None:
    (item,) = (
        firewall().wanted(event("synnefo:network:1:limited", Mode.ROUTED, link="100"), NODE).items
    )
    assert item.key == ("element", "inet firewall_profiles", "tap0")
    assert item.value == "jump firewall_profile_limited"


def test_what_is_wanted_of_a_bridged_nic(firewall: Callable[..., Firewall]) -> None:
    items = firewall().wanted(event("synnefo:network:1:limited"), NODE).items
    assert [(item.object, item.attribute) for item in items] == [
        ("bridge firewall_profiles", "tap0"),
        ("bridge firewall_zones", "tap0"),
        ("bridge firewall_guests", "br0 aa:00:10:38:54:25"),
        ("bridge firewall_marks", "tap0"),
        ("bridge firewall_origins", "tap0 7"),
    ]
    assert items[3].value == "7"


def test_the_strictest_of_contradicting_tags_stands_with_a_warning(
    firewall: Callable[..., Firewall], caplog: pytest.LogCaptureFixture
) -> None:
    setup = firewall("web: tcp 80", "range: udp 1-3")
    tags = "synnefo:network:1:{} synnefo:network:lan:{}"
    with caplog.at_level(logging.WARNING):
        for one, other in [
            ("protected", "limited"),
            ("web", "limited"),
            ("limited", "range"),
            ("web", "unprotected"),
        ]:
            assert profile(setup, tags.format(one, other)) == one
            assert profile(setup, tags.format(other, one)) == one
            assert f"{', '.join(sorted((one, other)))}): the strictest" in caplog.text
    caplog.clear()
    assert profile(setup, tags.format("web", "web")) == "web"
    assert caplog.text == ""


def test_an_unknown_profile_is_refused_by_its_name(firewall: Callable[..., Firewall]) -> None:
    one = event("synnefo:network:1:protected synnefo:network:lan:tight")
    assert firewall().applies(one)
    with pytest.raises(NetworkError, match=r"'tight', which is not defined.*protected, limited"):
        firewall().wanted(one, NODE)


def test_profiles_of_the_configuration_add_and_replace(firewall: Callable[..., Firewall]) -> None:
    setup = firewall("web: tcp 80, udp 8000-8099,", "limited :", "limited: tcp 22")
    for mode in (Mode.BRIDGED, Mode.ROUTED):
        chains = dict(
            re.findall(r"chain firewall_profile_(\w+) \{\n(.*?)\n  \}", setup.ruleset(mode), re.S)
        )
        opened = {
            name: re.findall(r"(\S+ dport \S+) accept", text) for name, text in chains.items()
        }
        assert opened == {
            "protected": [],
            "limited": ["tcp dport 22"],
            "web": ["tcp dport 80", "udp dport 8000-8099"],
        }
        assert all(text.endswith("    drop") for text in chains.values())
    assert setup.ruleset(Mode.OPENVSWITCH) == ""


@pytest.mark.parametrize(
    "wrong",
    [
        "web",
        "Web: tcp 80",
        "unprotected: tcp 80",
        "web: 80",
        "web: sctp 80",
        "web: tcp 0",
        "web: tcp 65536",
        "web: tcp 90-80",
        "web: tcp 80 accept",
        "web { accept }: tcp 80",
        "a" * 33 + ": tcp 80",
    ],
)
def test_a_wrong_profile_is_refused_with_file_and_option(
    firewall: Callable[..., Firewall], wrong: str
) -> None:
    with pytest.raises(ConfigError, match=r"snf\.conf: option 'profile'.*expected"):
        firewall("fine: tcp 80", wrong)


def test_zones_are_those_of_segments(firewall: Callable[..., Firewall]) -> None:
    tag = "synnefo:network:1:protected"
    setup = firewall()
    segments = [
        event(tag),
        event(tag, link="br1"),
        event(tag, vlan=".100"),
        event(tag, vlan=".101"),
        event(tag, network_tags="private-filtered"),
        event(tag, network_tags="private-filtered", network_name="net2"),
    ]
    assert len({zone(setup, one) for one in segments}) == len(segments)
    assert zone(setup, event(tag, network_name="net2")) == zone(setup, event(tag))
    assert zone(setup, event(tag, vlan="100")) == zone(setup, event(tag, vlan=".100"))


def test_a_trunk_is_refused(firewall: Callable[..., Firewall]) -> None:
    with pytest.raises(NetworkError, match=r"tagged VLANs \(tagged 100,200\)"):
        firewall().wanted(event("synnefo:network:1:protected", vlan=":100:200"), NODE)
