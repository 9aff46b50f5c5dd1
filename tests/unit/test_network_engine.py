"""The engine, against a kernel in memory; tests/network has the real one."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import IPv4Address
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from snf_core.contract import Setup
from snf_core.errors import NetworkError
from snf_core.model import Action, Migration, Mode, Network, Nic, NicEvent
from snf_core.network import engine as engine_module
from snf_core.network.document import Documents, Identity, facts
from snf_core.network.engine import Engine
from snf_core.network.node import Link
from snf_core.network.reconcile import reconcile, standing, tidied
from snf_core.network.state import (
    ELEMENT,
    LINK,
    NEIGHBOUR,
    ROUTE,
    RULE,
    Announcement,
    Change,
    Item,
    State,
)
from snf_core.network.status import lines, status
from tests.fakes.kernel import FakeKernel

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from snf_core.network.node import Node
    from snf_core.network.state import Key

DOWN = NicEvent(Action.DOWN, "tap0", "")
BEFORE = Link(7, "tap0", "tun", 1500, False, "02:00:00:00:00:01")

MTU = Item(LINK, "tap0", "mtu", 9000)
MASTER = Item(LINK, "tap0", "master", "br0")
UP = Item(LINK, "tap0", "up", True)
MAC = Item(ELEMENT, "bridge wire_macs", "tap0 aa:00:10:38:54:25", True)
RULE_ = Item(RULE, "tap0", "inet 100 20000", True)
ROUTE_ = Item(ROUTE, "198.51.100.3/32", "100", "dev tap0")
ALL = (MTU, MASTER, UP, RULE_, ROUTE_, MAC)
MARKER = Item(ELEMENT, "inet nics", "tap0", True)


class Wire(Setup):
    """A third party's setup that always wants the same."""

    api_version = "1.0"

    def __init__(self, *wanted: Item, fulfilled: str = "") -> None:
        super().__init__(SimpleNamespace())
        self.state = State(wanted)
        self.fulfilled = fulfilled

    def applies(self, event: NicEvent) -> bool:
        """To bridged NICs."""
        return event.nic is not None and event.nic.mode is Mode.BRIDGED

    def serves(self) -> str:
        """In words."""
        return "mode bridged"

    def fulfils(self, tag: str) -> bool:
        """What the test says."""
        return tag in self.fulfilled.split()

    def ruleset(self, mode: Mode) -> str:
        """By the mode."""
        return f"table bridge snf {{ # {mode.value}\n}}"

    def wanted(self, event: NicEvent, node: Node) -> State:
        """The same."""
        return self.state


def event(
    mode: Mode = Mode.BRIDGED, *, network_tags: str | None = None, instance_tags: str = ""
) -> NicEvent:
    network = None
    if network_tags is not None:
        network = Network(name="net1", tags=frozenset(network_tags.split()))
    nic = Nic(0, "aa:00:10:38:54:25", mode, link="br0", name="lan", network=network)
    tags = frozenset(instance_tags.split())
    return NicEvent(Action.UP, "tap0", "web1", nic=nic, instance_tags=tags)


@pytest.fixture
def kernel() -> FakeKernel:
    return FakeKernel()


@pytest.fixture
def documents(tmp_path: Path) -> Documents:
    return Documents(tmp_path / "network")


@pytest.fixture
def engine(kernel: FakeKernel, documents: Documents) -> Engine:
    return Engine({"wire": Wire(*ALL)}, kernel, documents)


def is_whole(kernel: FakeKernel) -> bool:
    """Whether everything of ``ALL`` is there."""
    here, _ = kernel.snapshot(ALL)
    return all(here.get(item.key) == item.value for item in (*ALL, MARKER))


def is_untouched(kernel: FakeKernel) -> bool:
    return kernel.fake_links.links["tap0"] == BEFORE and not kernel.values


@pytest.mark.parametrize("mode", [Mode.ROUTED, Mode.OPENVSWITCH, Mode.EXTERNAL])
def test_a_nic_that_no_setup_serves_is_refused_by_name(
    engine: Engine, kernel: FakeKernel, mode: Mode
) -> None:
    with pytest.raises(NetworkError, match=rf"mode {mode.value} \(network tags: lan\)") as caught:
        engine.up(event(mode, network_tags="lan"))
    assert "wire serves mode bridged" in str(caught.value)
    assert is_untouched(kernel)


@pytest.mark.parametrize(
    ("network_tags", "instance_tags"),
    [
        ("private-filtered", ""),
        ("nfdhcpd", ""),
        ("lan", "gnt:isolate"),
        ("lan", "gnt:whitelist_ip:192.0.2.1"),
        ("lan", "synnefo:network:0:protected"),
        ("lan", "synnefo:network:lan:limited"),
    ],
)
def test_a_promise_is_kept_by_some_setup_or_the_nic_is_refused(
    engine: Engine, kernel: FakeKernel, network_tags: str, instance_tags: str
) -> None:
    promising = event(network_tags=network_tags, instance_tags=instance_tags)
    with pytest.raises(NetworkError, match="promises"):
        engine.up(promising)
    assert is_untouched(kernel)
    engine.setups = {"wire": Wire(*ALL, fulfilled=f"{network_tags} {instance_tags}")}
    engine.up(promising)
    assert is_whole(kernel)


def test_tags_that_promise_nothing_of_this_nic_are_ignored(engine: Engine) -> None:
    tags = "prod synnefo:network:1:protected synnefo:network:0:unprotected"
    assert engine.plan(event(instance_tags=tags)).items


def test_a_plan_touches_nothing_and_says_who_wants_what(
    engine: Engine, kernel: FakeKernel, documents: Documents
) -> None:
    plan = engine.plan(event())
    assert [(item.key, item.setup) for item in plan.items] == [
        (MARKER.key, "core"),
        *((item.key, "wire") for item in ALL),
    ]
    assert is_untouched(kernel)
    assert kernel.calls == []
    assert documents.interfaces() == []


def test_setups_that_contradict_each_other_are_both_named(
    engine: Engine, kernel: FakeKernel
) -> None:
    engine.setups = {"wire": Wire(*ALL), "acme": Wire(replace(MTU, value=1280))}
    with pytest.raises(NetworkError, match="'wire' and 'acme' contradict"):
        engine.up(event())
    assert is_untouched(kernel)


def test_the_rules_of_the_setups_that_have_a_say_are_required(
    engine: Engine, kernel: FakeKernel
) -> None:
    engine.setups = {"wire": Wire(*ALL), "acme": Wire(MTU)}
    engine.up(event())
    assert kernel.fake_nft.required == {"wire-bridged": "table bridge snf { # bridged\n}"}


def test_guarded_before_connected_and_taken_back_in_reverse(
    engine: Engine, kernel: FakeKernel, documents: Documents
) -> None:
    engine.up(event())
    assert is_whole(kernel)
    assert [attribute for _, attribute, _ in kernel.calls] == [
        *("tap0", MAC.attribute),
        *("mtu", "master", "up", RULE_.attribute, ROUTE_.attribute),
    ]
    kernel.calls.clear()
    engine.down(DOWN)
    assert [attribute for _, attribute, _ in kernel.calls] == [
        *(ROUTE_.attribute, RULE_.attribute, "up", "master", "mtu"),
        *(MAC.attribute, "tap0"),
    ]
    assert is_untouched(kernel)
    assert documents.interfaces() == []


def test_a_second_up_makes_again_what_is_missing_and_writes_nothing(
    engine: Engine, kernel: FakeKernel, tmp_path: Path
) -> None:
    engine.up(event())
    path = tmp_path / "network/tap0.json"
    written = path.stat().st_ino
    del kernel.values[ROUTE_.key]
    del kernel.values[MAC.key]
    engine.up(event())
    assert is_whole(kernel)
    assert path.stat().st_ino == written
    engine.down(DOWN)
    assert is_untouched(kernel)


def test_what_a_later_event_no_longer_wants_is_taken_back(
    engine: Engine, kernel: FakeKernel
) -> None:
    engine.up(event())
    engine.setups = {"acme": Wire(MTU, UP)}
    engine.up(event())
    assert kernel.values == {MARKER.key: True}
    assert kernel.fake_links.links["tap0"] == replace(BEFORE, mtu=9000, up=True)
    engine.down(DOWN)
    assert is_untouched(kernel)


def test_a_port_leaves_its_bridge_before_it_gets_another(
    engine: Engine, kernel: FakeKernel
) -> None:
    engine.up(event())
    kernel.calls.clear()
    other = (replace(MTU, value=1400), replace(MASTER, value="br1"))
    engine.setups = {"wire": Wire(*other, UP)}
    engine.up(event())
    changed = [(attribute, value) for name, attribute, value in kernel.calls if name == "tap0"]
    assert [one for one in changed if one[0] in {"mtu", "master"}] == [
        ("master", None),
        ("mtu", 1500),
        ("mtu", 1400),
        ("master", "br1"),
    ]


def test_filters_that_change_change_at_once(engine: Engine, kernel: FakeKernel) -> None:
    class Counting(FakeKernel):
        transactions: list[list[Change]]

        def apply(self, gate: str, changes: Sequence[Change]) -> Collection[Key]:
            if gate == "nft":
                self.transactions.append(list(changes))
            return super().apply(gate, changes)

    kernel = Counting()
    kernel.transactions = []
    engine.kernel = kernel
    engine.up(event())
    other = replace(MAC, attribute="tap0 aa:00:10:38:54:26")
    engine.setups = {"wire": Wire(MTU, UP, other)}
    engine.up(event())
    assert len(kernel.transactions) == 2, "the old goes with the transaction that brings the new"
    assert kernel.values == {MARKER.key: True, other.key: True}


def test_an_object_that_does_not_exist_is_refused_before_anything_is_touched(
    engine: Engine, kernel: FakeKernel, documents: Documents
) -> None:
    engine.setups = {"acme": Wire(MAC, UP, replace(MTU, object="eth7"))}
    with pytest.raises(NetworkError, match="acme wants link eth7 mtu 9000"):
        engine.up(event())
    assert is_untouched(kernel)
    assert documents.interfaces() == []


@pytest.mark.parametrize("broken", [*ALL, MARKER], ids=str)
def test_a_failure_takes_everything_back(
    engine: Engine, kernel: FakeKernel, documents: Documents, broken: Item
) -> None:
    kernel.broken = {(broken.attribute, broken.value)}
    with pytest.raises(NetworkError, match="cannot be made"):
        engine.up(event())
    assert is_untouched(kernel)
    assert documents.interfaces() == []


def test_a_failing_end_takes_everything_back(
    engine: Engine, kernel: FakeKernel, documents: Documents
) -> None:
    def fail() -> None:
        assert is_whole(kernel), "it comes last"
        raise NetworkError("the program of the administrator failed")

    with pytest.raises(NetworkError, match="administrator"):
        engine.up(event(), fail)
    assert is_untouched(kernel)
    assert documents.interfaces() == []


def test_a_failing_second_event_leaves_the_first(engine: Engine, kernel: FakeKernel) -> None:
    engine.up(event())
    engine.setups = {"wire": Wire(replace(MTU, value=1280), MASTER, UP, MAC, RULE_, ROUTE_)}
    kernel.broken = {("mtu", 1280)}
    with pytest.raises(NetworkError):
        engine.up(event())
    assert is_whole(kernel)
    (found,) = status(engine)
    assert found["agrees"], "\n".join(lines(found))


def test_announced_once_all_is_there(
    engine: Engine, kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Announcement] = []

    def announce(announcements: Sequence[Announcement]) -> None:
        assert not announcements or is_whole(kernel)
        told.extend(announcements)

    monkeypatch.setattr(engine_module, "announce", announce)
    setup = Wire(*ALL)
    gratuitous = Announcement("eth0", IPv4Address("198.51.100.3"), "02:00:00:00:00:03")
    setup.state = State(ALL, (gratuitous,))
    engine.setups = {"wire": setup}
    engine.up(event())
    engine.up(event())
    assert told == [gratuitous, gratuitous], "a second event, after a migration, tells it again"
    assert engine.announce("web1")
    assert told == [gratuitous] * 3
    assert not engine.announce("web2")
    kernel.fake_links.links["tap0"] = replace(BEFORE, index=8)
    assert not engine.announce("web1"), "it is another interface by now"
    assert told == [gratuitous] * 3


def test_before_a_guest_is_here_nothing_draws_its_traffic(
    engine: Engine, kernel: FakeKernel, documents: Documents
) -> None:
    """Whichever setup wants it: a plugin's need not know of migrations."""
    proxied = Item(NEIGHBOUR, "eth0", "198.51.100.3", True)
    setup = Wire(*ALL, proxied)
    gratuitous = Announcement("eth0", IPv4Address("198.51.100.3"), "02:00:00:00:00:03")
    setup.state = State((*ALL, proxied), (gratuitous,))
    engine.setups = {"wire": setup}
    before = replace(event(), migration=Migration.PRE)
    state = engine.plan(before)
    assert {item.kind for item in state.items} == {LINK, RULE, ELEMENT}
    assert state.announcements == ()
    engine.up(before)
    assert not {ROUTE, NEIGHBOUR} & {key[0] for key in kernel.values}
    assert not engine.announce("web1")
    (found,) = status(engine)
    assert found["agrees"]
    waiting = "tap0 of web1: applied, as wanted, waits for the end of a migration"
    assert next(lines(found)) == waiting
    del found["event"]["migration"]
    assert next(lines(found)) == "tap0 of web1: applied, as wanted", "as of earlier documents"
    assert engine.plan(replace(before, migration=Migration.POST)) == engine.plan(event())
    engine.down(DOWN)
    assert is_untouched(kernel)
    assert documents.interfaces() == []


def test_the_interface_of_another_instance_stays_wired(
    engine: Engine, kernel: FakeKernel, documents: Documents
) -> None:
    engine.up(event())
    late = NicEvent(Action.DOWN, "tap0", "web2")
    assert engine.known(late) is None
    engine.down(late)
    assert is_whole(kernel)
    known = engine.known(NicEvent(Action.DOWN, "tap0", "web1"))
    assert known == engine.known(DOWN) == facts(event())
    engine.down(NicEvent(Action.DOWN, "tap0", "web1"))
    assert is_untouched(kernel)
    assert engine.known(late) == facts(late), "nothing is known of anybody's"


def test_only_what_is_gone_of_an_instance_is_tidied(
    engine: Engine, kernel: FakeKernel, documents: Documents
) -> None:
    engine.up(event())
    assert list(tidied(engine, "web1")) == []
    kernel.fake_links.links["tap0"] = replace(BEFORE, index=8)
    assert list(tidied(engine, "web2")) == []
    assert documents.interfaces() == ["tap0"]
    assert [str(one) for one in tidied(engine, "web1")] == ["tap0: it is gone; repaired"]
    assert kernel.values == {ROUTE_.key: ROUTE_.value}, "which a real kernel takes back itself"
    assert documents.interfaces() == []


def test_what_was_there_already_is_left_when_we_go(engine: Engine, kernel: FakeKernel) -> None:
    kernel.values[RULE_.key] = True
    engine.up(event())
    assert is_whole(kernel)
    engine.down(DOWN)
    assert kernel.values == {RULE_.key: True}


def test_what_somebody_else_has_changed_is_not_taken_back(
    engine: Engine, kernel: FakeKernel
) -> None:
    engine.up(event())
    kernel.fake_links.links["tap0"] = replace(kernel.fake_links.links["tap0"], master="br7")
    engine.down(DOWN)
    assert kernel.fake_links.links["tap0"] == replace(BEFORE, master="br7")


def test_what_cannot_be_taken_back_stays_on_record_until_it_can(
    engine: Engine, kernel: FakeKernel, documents: Documents, caplog: pytest.LogCaptureFixture
) -> None:
    kernel.broken = {(ROUTE_.attribute, ROUTE_.value), (MAC.attribute, None)}
    with pytest.raises(NetworkError, match=r"198\.51\.100\.3"):
        engine.up(event())
    assert "cannot be taken back" in caplog.text
    (found,) = status(engine)
    assert (found["phase"], found["agrees"]) == ("applying", False)
    with pytest.raises(NetworkError, match="cannot be made"):
        engine.down(DOWN)
    assert documents.interfaces() == ["tap0"]
    kernel.broken.clear()
    engine.down(DOWN)
    assert is_untouched(kernel)
    assert documents.interfaces() == []


def test_of_an_interface_that_is_another_by_now_only_what_outlives_it_is_taken_back(
    engine: Engine, kernel: FakeKernel
) -> None:
    engine.up(event())
    another = Link(8, "tap0", "tun", 9000, True, "02:00:00:00:00:09", master="br0")
    kernel.fake_links.links["tap0"] = another
    del kernel.values[ROUTE_.key]  # as the kernel does
    kernel.calls.clear()
    engine.down(DOWN)
    assert kernel.fake_links.links["tap0"] == another
    assert not kernel.values
    assert [attribute for _, attribute, _ in kernel.calls] == [
        *(RULE_.attribute, MAC.attribute, "tap0")
    ]


def test_nothing_is_wrong(engine: Engine, kernel: FakeKernel) -> None:
    engine.up(event())
    kernel.calls.clear()
    assert list(reconcile(engine)) == []
    assert kernel.calls == []


def test_what_is_missing_is_found_and_made_again(engine: Engine, kernel: FakeKernel) -> None:
    engine.up(event())
    del kernel.values[ROUTE_.key]
    del kernel.values[MAC.key]
    kernel.fake_links.links["tap0"] = replace(kernel.fake_links.links["tap0"], mtu=1300)
    found = list(reconcile(engine, check=True))
    assert {finding.interface for finding in found} == {"tap0"}
    assert len(found) == 3
    assert not any(finding.repaired for finding in found)
    assert not is_whole(kernel), "only looked at"
    found = list(reconcile(engine))
    assert len(found) == 3
    assert all(finding.repaired for finding in found)
    assert is_whole(kernel)
    assert list(reconcile(engine)) == []
    engine.down(DOWN)
    assert is_untouched(kernel), "what was there before us is still known"


def test_what_cannot_be_repaired_is_said(engine: Engine, kernel: FakeKernel) -> None:
    engine.up(event())
    del kernel.values[ROUTE_.key]
    kernel.broken = {(ROUTE_.attribute, ROUTE_.value)}
    (found,) = reconcile(engine)
    assert not found.repaired
    assert "198.51.100.3" in str(found)


def test_what_a_vanished_interface_has_left_goes(
    engine: Engine, kernel: FakeKernel, documents: Documents
) -> None:
    engine.up(event())
    del kernel.fake_links.links["tap0"]
    (found,) = reconcile(engine, check=True)
    assert str(found) == "tap0: it is gone"
    assert kernel.values
    assert [str(one) for one in reconcile(engine)] == ["tap0: it is gone; repaired"]
    assert not kernel.values or set(kernel.values) == {ROUTE_.key}, "the kernel forgets the route"
    assert documents.interfaces() == []


def test_after_a_reboot_only_documents_are_left(
    engine: Engine, kernel: FakeKernel, tmp_path: Path
) -> None:
    engine.up(event())
    path = tmp_path / "network/tap0.json"
    data = json.loads(path.read_text())
    data["identity"]["boot"] = "an earlier one"
    path.write_text(json.dumps(data))
    kernel.values.clear()
    kernel.calls.clear()
    assert [finding.repaired for finding in reconcile(engine)] == [True]
    assert kernel.calls == []
    assert not path.exists()


def test_elements_of_nobody_go_and_those_of_an_unknown_nic_stay(
    engine: Engine, kernel: FakeKernel
) -> None:
    engine.up(event())
    orphan = replace(MAC, attribute="tap9 aa:00:10:38:54:99")
    surplus = replace(MAC, attribute="tap0 aa:00:10:38:54:99")
    lost = replace(MAC, attribute="eth0 aa:00:10:38:54:77")
    marker = replace(MARKER, attribute="eth0")
    kernel.values |= {one.key: True for one in (orphan, surplus, lost, marker)}
    found = {finding.interface: finding.repaired for finding in reconcile(engine)}
    assert found == {"tap9": True, "tap0": True, "eth0": False}
    assert is_whole(kernel)
    assert kernel.values.get(lost.key) is True, "filters of a NIC are better than none"
    assert not {orphan.key, surplus.key} & set(kernel.values)


def test_shared_elements_of_nobody_go_once_no_document_is_lost(
    engine: Engine, kernel: FakeKernel
) -> None:
    engine.up(event())
    of_uplink = replace(MAC, attribute="eth0 198.51.100.3")
    kernel.values[of_uplink.key] = True
    assert [finding.repaired for finding in reconcile(engine)] == [True]
    assert of_uplink.key not in kernel.values
    assert is_whole(kernel)


def test_down_takes_what_stands_of_a_nic_whose_document_was_lost(
    engine: Engine, kernel: FakeKernel, tmp_path: Path
) -> None:
    engine.up(event())
    (tmp_path / "network/tap0.json").unlink()
    engine.down(DOWN)
    assert not {key for key in kernel.values if key[0] == ELEMENT}


def test_a_nic_that_setups_would_only_guard_is_refused(engine: Engine, kernel: FakeKernel) -> None:
    engine.setups = {"guard": Wire(MAC)}
    with pytest.raises(NetworkError, match="no network setup in use serves"):
        engine.up(event())
    assert is_untouched(kernel)


def test_what_only_ports_have_comes_after_the_port_whatever_the_order_of_setups(
    engine: Engine, kernel: FakeKernel
) -> None:
    mask = Item(LINK, "tap0", "group_fwd_mask", 0xFFFD)
    engine.setups = {"guard": Wire(mask), "wire": Wire(*ALL)}
    engine.up(event())
    links = [attribute for name, attribute, _ in kernel.calls if name == "tap0"]
    assert links.index("master") < links.index("group_fwd_mask")
    kernel.calls.clear()
    engine.down(DOWN)
    links = [attribute for name, attribute, _ in kernel.calls if name == "tap0"]
    assert links.index("group_fwd_mask") < links.index("master")


def test_a_half_done_event_is_taken_back(engine: Engine, kernel: FakeKernel) -> None:
    class KilledError(BaseException):
        """As if by SIGKILL: nothing is cleaned up."""

    def die() -> None:
        engine.documents.write = engine.documents.remove = fail  # type: ignore[method-assign,assignment]
        raise KilledError

    def fail(*_: object) -> None:
        raise KilledError

    whole = (engine.documents.write, engine.documents.remove)
    with pytest.raises(KilledError):
        engine.up(event(), die)
    engine.documents.write, engine.documents.remove = whole  # type: ignore[method-assign]
    (found,) = reconcile(engine)
    assert str(found) == "tap0: an event did not end; repaired"
    assert is_untouched(kernel)


def test_what_stands_in_nftables_is_known_from_the_documents(
    engine: Engine, documents: Documents, caplog: pytest.LogCaptureFixture
) -> None:
    engine.up(event())
    texts, items = standing(documents.all(), engine.setups)
    assert list(texts) == ["wire-bridged"]
    assert {item.key for item in items} == {MARKER.key, MAC.key}
    _, items = standing(documents.all(), {})
    assert {item.key for item in items} == {MARKER.key}
    assert "setup wire is not in use any more" in caplog.text


def test_outdated_rules_are_found_and_loaded(engine: Engine, kernel: FakeKernel) -> None:
    engine.up(event())
    kernel.fake_nft.outdated = ["wire-bridged"]
    (found,) = reconcile(engine, check=True)
    assert "nftables rules of wire-bridged" in str(found)
    assert kernel.fake_nft.outdated
    assert [finding.repaired for finding in reconcile(engine)] == [True]
    assert kernel.fake_nft.outdated == []


def test_the_identity_of_another_boot_is_another_kernels() -> None:
    here = Identity.of(7)
    assert here.same_kernel()
    assert not replace(here, boot="another").same_kernel()
    assert not replace(here, namespace=1).same_kernel()
