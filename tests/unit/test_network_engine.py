"""The engine, against a kernel in memory; tests/network has the real one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from snf_core.contract import Setup
from snf_core.errors import NetworkError
from snf_core.model import Action, Mode, Network, Nic, NicEvent
from snf_core.network import engine
from snf_core.network.document import Documents
from snf_core.network.node import Link, Node
from snf_core.network.setup.bridged import Bridged
from snf_core.network.state import LINK, Item, State, Value
from tests.fakes.links import FakeLinks

if TYPE_CHECKING:
    from pathlib import Path

TAP = {"mtu": 9000, "master": "br0", "up": True, "address": "fe:00:10:38:54:25"}
DOWN = NicEvent(Action.DOWN, "tap0", "")


class Fixed(Setup):
    """A third party's setup that always wants the same of an object."""

    api_version = "1.0"

    def __init__(self, **wanted: Value) -> None:
        super().__init__(SimpleNamespace())
        self.object = "tap0"
        self.items = wanted

    def applies(self, event: NicEvent) -> bool:
        """Always."""
        return True

    def fulfils(self, tag: str) -> bool:
        """Its own tag."""
        return tag == "gnt:isolate"

    def wanted(self, event: NicEvent, node: Node) -> State:
        """The same."""
        return State(tuple(Item(LINK, self.object, *item) for item in self.items.items()))


def bridged(*tags: str) -> Bridged:
    return Bridged(SimpleNamespace(tags=["bridged", "physical-vlan", *tags]))


def event(
    mode: Mode = Mode.BRIDGED,
    link: str = "br0",
    *,
    network_tags: str | None = None,
    instance_tags: str = "",
    mac: str = "aa:00:10:38:54:25",
    vlan: str = "",
) -> NicEvent:
    network = None
    if network_tags is not None:
        network = Network(name="net1", tags=frozenset(network_tags.split()))
    nic = Nic(index=0, mac=mac, mode=mode, link=link, vlan=vlan, name="lan", network=network)
    tags = frozenset(instance_tags.split())
    return NicEvent(Action.UP, "tap0", "web1", nic=nic, instance_tags=tags)


def tap(links: FakeLinks) -> dict[str, object]:
    link = links.links["tap0"]
    return {name: getattr(link, name) for name in TAP}


@pytest.fixture
def links() -> FakeLinks:
    return FakeLinks()


@pytest.fixture
def documents(tmp_path: Path) -> Documents:
    return Documents(tmp_path / "network")


@pytest.mark.parametrize("tags", [None, "", "bridged", "physical-vlan dns", "dns bridged"])
def test_bridged_is_chosen_by_mode_and_tags(links: FakeLinks, tags: str | None) -> None:
    state = engine.plan(event(network_tags=tags), {"bridged": bridged()}, Node(links))
    assert {item.attribute: item.value for item in state.items} == TAP
    assert {item.setup for item in state.items} == {"bridged"}
    assert links.calls == [], "a plan touches nothing"


@pytest.mark.parametrize(
    ("refused", "message"),
    [
        (event(Mode.ROUTED, "100"), r"mode routed \(network tags: none\)"),
        (event(Mode.OPENVSWITCH), "mode openvswitch"),
        (event(Mode.EXTERNAL), "mode ext"),
        (event(Mode.ROUTED, "100", network_tags="ip-less-routed"), "network tags: ip-less-routed"),
        (event(network_tags="lan private-filtered"), "network tags: lan, private-filtered"),
    ],
)
def test_a_nic_that_no_setup_serves_is_refused_by_name(
    links: FakeLinks, refused: NicEvent, message: str
) -> None:
    with pytest.raises(NetworkError, match=message) as caught:
        engine.plan(refused, {"bridged": bridged()}, Node(links))
    assert "bridged serves mode bridged, without network tags or with one of" in str(caught.value)


@pytest.mark.parametrize(
    ("network_tags", "instance_tags"),
    [
        ("bridged private-filtered", ""),
        ("bridged nfdhcpd", ""),
        ("bridged", "gnt:isolate"),
        ("bridged", "gnt:whitelist_ip:192.0.2.1"),
        ("bridged", "synnefo:network:0:protected"),
        ("bridged", "synnefo:network:lan:limited"),
    ],
)
def test_a_tag_that_promises_what_no_setup_does_is_refused(
    links: FakeLinks, network_tags: str, instance_tags: str
) -> None:
    promising = event(network_tags=network_tags, instance_tags=instance_tags)
    with pytest.raises(NetworkError, match="promises"):
        engine.plan(promising, {"bridged": bridged()}, Node(links))


def test_tags_that_promise_nothing_of_this_nic_are_ignored(links: FakeLinks) -> None:
    tags = "prod synnefo:network:1:protected synnefo:network:0:unprotected"
    assert engine.plan(event(instance_tags=tags), {"bridged": bridged()}, Node(links)).items


def test_a_promise_can_be_kept_by_another_setup_or_waived_by_the_operator(
    links: FakeLinks,
) -> None:
    isolated = event(instance_tags="gnt:isolate")
    assert engine.plan(isolated, {"bridged": bridged(), "x": Fixed()}, Node(links)).items
    waived = event(network_tags="nfdhcpd")
    assert engine.plan(waived, {"bridged": bridged("nfdhcpd")}, Node(links)).items


@pytest.mark.parametrize(
    ("refused", "message"),
    [
        (event(vlan=".10"), "VLAN-aware bridges are not served yet"),
        (event(link="br9"), "bridge br9 does not exist"),
        (event(link="eth0"), "eth0 is not a bridge but a hardware interface"),
        (event(link="tap0"), "port of itself"),
    ],
)
def test_what_bridged_cannot_do_is_refused(
    links: FakeLinks, documents: Documents, refused: NicEvent, message: str
) -> None:
    with pytest.raises(NetworkError, match=message):
        engine.up(refused, {"bridged": bridged()}, links, documents)
    assert links.calls == []
    assert documents.interfaces() == []


def test_the_hosts_address_is_never_the_guests(links: FakeLinks) -> None:
    state = engine.plan(event(mac="fe:00:00:00:00:01"), {"b": bridged()}, Node(links))
    assert state.items[0].value == "fa:00:00:00:00:01"


def test_setups_that_contradict_each_other_are_both_named(
    links: FakeLinks, documents: Documents
) -> None:
    setups = {"bridged": bridged(), "acme": Fixed(mtu=1280)}
    with pytest.raises(NetworkError, match="'bridged' and 'acme' contradict"):
        engine.up(event(), setups, links, documents)
    assert links.calls == []


def test_only_the_difference_is_applied_in_order_and_taken_back_in_reverse(
    links: FakeLinks, documents: Documents
) -> None:
    links.links["tap0"] = Link(7, "tap0", "tun", 9000, False, "02:00:00:00:00:01")
    before = dict(links.links)
    engine.up(event(), {"bridged": bridged()}, links, documents)
    assert [attribute for _, attribute, _ in links.calls] == ["address", "master", "up"]
    assert tap(links) == TAP
    links.calls.clear()
    engine.up(event(), {"bridged": bridged()}, links, documents)
    assert links.calls == []
    engine.down(DOWN, links, documents)
    assert [attribute for _, attribute, _ in links.calls] == ["up", "master", "address"]
    assert links.links == before


def test_what_a_later_event_no_longer_wants_is_taken_back(
    links: FakeLinks, documents: Documents
) -> None:
    before = dict(links.links)
    engine.up(event(), {"bridged": bridged()}, links, documents)
    engine.up(event(), {"acme": Fixed(mtu=9000, up=True)}, links, documents)
    assert tap(links) == TAP | {"master": None, "address": "02:00:00:00:00:01"}
    engine.down(DOWN, links, documents)
    assert links.links == before


def test_a_port_leaves_its_bridge_before_it_gets_another(
    links: FakeLinks, documents: Documents
) -> None:
    links.links["br1"] = Link(3, "br1", "bridge", 1400, True, "02:00:00:00:00:04")
    engine.up(event(), {"bridged": bridged()}, links, documents)
    links.calls.clear()
    engine.up(event(link="br1"), {"bridged": bridged()}, links, documents)
    assert [(attribute, value) for _, attribute, value in links.calls] == [
        ("master", None),
        ("mtu", 1500),
        ("mtu", 1400),
        ("master", "br1"),
    ]
    assert tap(links) == TAP | {"mtu": 1400, "master": "br1"}


def test_an_object_that_does_not_exist_is_refused_before_anything_is_touched(
    links: FakeLinks, documents: Documents
) -> None:
    acme = Fixed(mtu=1280)
    acme.object = "eth7"
    with pytest.raises(NetworkError, match="acme wants mtu 1280 of link eth7"):
        engine.up(event(), {"bridged": bridged(), "acme": acme}, links, documents)
    assert links.calls == []
    assert documents.interfaces() == []


@pytest.mark.parametrize("broken", [("up", True), ("master", "br0"), ("mtu", 9000)])
def test_a_failure_takes_everything_back(
    links: FakeLinks, documents: Documents, broken: tuple[str, Value]
) -> None:
    before = dict(links.links)
    links.broken = {broken}
    with pytest.raises(NetworkError, match=f"{broken[0]} cannot be set"):
        engine.up(event(), {"bridged": bridged()}, links, documents)
    assert links.links == before
    assert documents.interfaces() == []


def test_what_cannot_be_taken_back_stays_on_record_until_it_can(
    links: FakeLinks, documents: Documents, caplog: pytest.LogCaptureFixture
) -> None:
    before = dict(links.links)
    links.broken = {("up", True), ("master", None)}
    with pytest.raises(NetworkError, match="up cannot be set"):
        engine.up(event(), {"bridged": bridged()}, links, documents)
    assert "cannot be taken back: tap0: master" in caplog.text
    (state,) = engine.status(links, documents)
    assert (state["phase"], state["agrees"]) == ("applying", False)
    with pytest.raises(NetworkError, match="master cannot be set"):
        engine.down(DOWN, links, documents)
    assert documents.interfaces() == ["tap0"]
    links.broken.clear()
    engine.down(DOWN, links, documents)
    assert links.links == before
    assert documents.interfaces() == []


def test_a_tap_that_goes_half_way_fails_the_event_and_leaves_nothing(documents: Documents) -> None:
    class Vanishing(FakeLinks):
        def set(self, name: str, attribute: str, value: Value) -> None:
            if attribute == "up":
                self.links.pop("tap0", None)
            super().set(name, attribute, value)

    with pytest.raises(NetworkError, match="up cannot be set"):
        engine.up(event(), {"bridged": bridged()}, Vanishing(), documents)
    assert documents.interfaces() == []
