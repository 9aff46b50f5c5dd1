"""The gate to nftables, against the kernel. Setups' own rules are tested with the setups."""

from __future__ import annotations

import contextlib
import json
import os
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from snf_core.errors import NetworkError
from snf_core.network.nft import Nft
from snf_core.network.state import ELEMENT, Change, Item, Value
from tests.locks import until_waiting
from tests.machine import NetworkNamespace
from tests.network import abilities, foreign, packets
from tests.network.child import Child

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
    from pathlib import Path

    from snf_core.network.state import Key

T = TypeVar("T")

FILTER = """\
table bridge snf {
    set filter_macs { typeof iifname . ether saddr
        size 1048576
    }
    set filter_addresses { typeof iifname . ip saddr
        size 1048576
    }
    set filter_prefixes { typeof iifname . ip6 saddr
        size 1048576
    }
    set filter_types { type ether_type
        elements = { ip, arp, ip6 }
    }
    chain filter_prerouting {
        type filter hook prerouting priority -300; policy accept
        iifname . ether saddr != @filter_macs drop
    }
}
table arp snf {
    map filter_gateways { typeof oifname : arp saddr ip
        size 1048576
    }
}
"""
PROFILES = """\
table inet snf {
    map profiles_verdicts { type ifname : verdict
        size 1048576
    }
    map profiles_ports { typeof oifname . ip daddr : ip saddr . tcp dport
        size 1048576
    }
    set profiles_services { typeof iifname . tcp dport
        size 1048576
    }
    set profiles_types { typeof iifname . ether type
        size 1048576
    }
    chain profiles_strict {
        drop
    }
    chain profiles_loose {
        accept
    }
    chain profiles_forward {
        type filter hook forward priority 0; policy accept
        oifname vmap @profiles_verdicts
    }
}
"""
RULESETS = {"filter-bridged": FILTER, "profiles-bridged": PROFILES}

NICS = "inet nics"
MACS = "bridge filter_macs"
ADDRESSES = "bridge filter_addresses"
VERDICTS = "inet profiles_verdicts"


def item(place: str, key: str, value: Value = True) -> Item:
    return Item(ELEMENT, place, key, value, "filter")


def nic(interface: str, number: int = 1) -> list[Item]:
    """What a NIC has, the marker first."""
    return [
        item(NICS, interface),
        item(MACS, f"{interface} 02:00:00:00:{number >> 8:02x}:{number & 255:02x}"),
        item(ADDRESSES, f"{interface} 192.0.2.{number % 250}"),
        item(VERDICTS, interface, "jump profiles_strict"),
    ]


def new(items: Iterable[Item]) -> list[Change]:
    return [Change(one, None) for one in items]


def gone(items: Iterable[Item]) -> list[Change]:
    return [Change(one, None).reversed for one in items]


def values(*lists: list[Item]) -> dict[Key, Value]:
    return {one.key: one.value for items in lists for one in items}


@dataclass
class Node:
    """A network namespace, and what the state documents of its NICs say."""

    namespace: NetworkNamespace
    lock: Path
    documents: list[Item] = field(default_factory=list)
    rulesets: Mapping[str, str] = field(default_factory=lambda: RULESETS)
    restored: int = 0
    """How often the documents were read."""

    def inside(self, function: Callable[[], T]) -> T:
        return packets.inside(self.namespace.name, function)

    def gate(self, rulesets: Mapping[str, str] | None = None) -> Nft:
        made = Nft(self._restore, self.lock)
        made.require(self.rulesets if rulesets is None else rulesets)
        return made

    def apply(
        self, changes: list[Change], rulesets: Mapping[str, str] | None = None
    ) -> Collection[Key]:
        """An event; nothing of it is written to the documents. What was found to be there."""

        def event() -> Collection[Key]:
            with contextlib.closing(self.gate(rulesets)) as gate:
                return gate.apply(changes)

        return self.inside(event)

    def up(self, *nics: list[Item]) -> None:
        """Events of NICs that are in the documents, too."""
        for items in nics:
            self.documents += items
            assert self.apply(new(items)) == ()

    def elements(self) -> dict[Key, Value]:
        return self.inside(lambda: self.gate().elements())

    def missing(self) -> list[str]:
        return self.inside(lambda: self.gate().missing())

    def nft(self, commands: str) -> str:
        return self.namespace.run(["nft", commands])

    def _restore(self) -> tuple[Mapping[str, str], list[Item]]:
        self.restored += 1
        return (self.rulesets if self.documents else {}), list(self.documents)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """A node on which somebody else has tables, which must be there unchanged in the end."""
    with NetworkNamespace() as namespace:
        made = Node(namespace, tmp_path / "nftables.lock")
        made.nft(foreign.RULES)
        before = _foreign(made)
        assert len(before) > 10
        yield made
        assert _foreign(made) == before


def _foreign(node: Node) -> list[Any]:
    listed = json.loads(node.namespace.run(["nft", "--json", "list", "ruleset"]))["nftables"]
    return [
        entry
        for entry in listed
        for one in entry.values()
        if "foreign" in (one.get("table"), one.get("name"))
    ]


# What stands in the kernel.


def test_the_first_event_of_a_boot_loads_what_it_needs(node: Node) -> None:
    node.apply(new(nic("tap0")))
    assert node.elements() == values(nic("tap0"))
    assert node.missing() == []
    tables = node.nft("list tables").split("\n")
    assert {"table bridge snf", "table inet snf", "table arp snf"} <= set(tables)
    assert "ether saddr != @filter_macs drop" in node.nft("list table bridge snf")


EVERYTHING = [
    *nic("tap0", 7),
    item("bridge filter_prefixes", "tap0 2001:db8::"),
    item("bridge filter_prefixes", "tap0 ::ffff:c000:201"),
    item("bridge filter_prefixes", "tap0 ::c000:201"),
    item("bridge filter_prefixes", "tap0 1:0:2:0:3:0:4:0"),
    item("bridge filter_prefixes", "tap0 fe80::1:0:0:1"),
    item("arp filter_gateways", "tap0", "192.0.2.1"),
    item("inet profiles_ports", "tap0 192.0.2.7", "192.0.2.9 80"),
    item("inet profiles_services", "tap0 22"),
    item("inet profiles_types", "tap0 ip6"),
]


def test_every_kind_of_element_is_listed_as_it_was_stated(node: Node) -> None:
    node.apply(new(EVERYTHING))
    assert node.elements() == values(EVERYTHING)
    node.apply(gone(EVERYTHING))
    assert node.elements() == {}


@pytest.mark.parametrize(
    "interface",
    [
        "ip6",
        "10",
        "0x10",
        "lo",
        "drop",
        "tap0.100",
        "vif1.0-emu",
        "a:b.1",
        "jump",
        "1.2.3.4",
    ],
)
def test_an_interface_may_have_any_name(node: Node, interface: str) -> None:
    items = [*nic(interface), item("arp filter_gateways", interface, "192.0.2.1")]
    node.apply(new(items))
    assert node.elements() == values(items)
    assert f'"{interface}" . 02:00' in node.nft("list set bridge snf filter_macs")
    node.apply(gone(items))
    assert node.elements() == {}


def test_the_data_of_a_map_is_replaced(node: Node) -> None:
    node.up(nic("tap0"))
    other = item(VERDICTS, "tap0", "jump profiles_loose")
    node.apply([Change(other, "jump profiles_strict")])
    assert node.elements()[other.key] == "jump profiles_loose"
    # As the engine states it: what was is taken back, what shall be is made.
    node.apply([Change(item(VERDICTS, "tap0", None), other.value), Change(nic("tap0")[3], None)])
    assert node.elements() == values(nic("tap0"))
    assert node.restored == 1  # for the first event, and never since


def test_a_second_time_changes_nothing(node: Node) -> None:
    node.up(nic("tap0"))
    node.apply([Change(one, one.value) for one in nic("tap0")])
    assert node.elements() == values(nic("tap0"))
    assert node.restored == 1


def test_snapshot(node: Node) -> None:
    node.up(nic("tap0"))
    absent = item(MACS, "tap1 02:00:00:00:00:01")
    found = node.inside(lambda: node.gate().snapshot([absent, *nic("tap0")[:2]]))
    assert found == {absent.key: None} | values(nic("tap0"))
    assert node.inside(lambda: node.gate().read([absent])) == {}


def test_without_tables_there_are_no_elements(node: Node) -> None:
    assert node.elements() == {}


# What is not as an event takes it to be.


def test_what_is_gone_already_can_be_taken_back(node: Node) -> None:
    node.up(nic("tap0"), nic("tap1"))
    node.nft("delete element bridge snf filter_macs { tap0 . 02:00:00:00:00:01 }")
    node.apply(gone(nic("tap0")), {})
    assert node.elements() == values(nic("tap1"))


def test_what_nobody_remembers_of_a_nic_goes_when_another_gets_its_name(node: Node) -> None:
    old = [*nic("tap0", 3), *EVERYTHING[4:]]
    node.up(nic("tap01"))
    assert node.apply(new(old)) == ()  # of which no document tells
    assert node.apply(new(nic("tap0", 4))) == (item(NICS, "tap0").key,)
    assert node.elements() == values(nic("tap01"), nic("tap0", 4))


def test_data_that_somebody_has_changed_is_replaced(node: Node) -> None:
    node.up(nic("tap0"))
    verdict = nic("tap0")[3]
    node.nft("delete element inet snf profiles_verdicts { tap0 }")
    node.nft("add element inet snf profiles_verdicts { tap0 : accept }")
    node.apply([Change(verdict, None)])
    assert node.elements() == values(nic("tap0"))


def test_a_flush_is_repaired_for_all_by_the_next_event(node: Node) -> None:
    node.up(nic("tap0"), nic("tap1", 2))
    for family in ("bridge", "inet", "arp"):
        node.nft(f"delete table {family} snf")
    assert node.missing() == ["base", *RULESETS]
    node.up(nic("tap2", 3))
    assert node.elements() == values(nic("tap0"), nic("tap1", 2), nic("tap2", 3))
    assert node.missing() == []


def test_a_flush_is_repaired_by_a_down(node: Node) -> None:
    node.up(nic("tap0"), nic("tap1", 2))
    node.nft("delete table inet snf")

    def down() -> None:
        gate = Nft(lambda: (RULESETS, [*nic("tap0"), *nic("tap1", 2)]), node.lock)
        with contextlib.closing(gate):
            gate.apply(gone(nic("tap0")))

    node.inside(down)
    assert node.elements() == values(nic("tap1", 2))
    assert node.missing() == []


@pytest.mark.parametrize(
    "command",
    [
        "delete table bridge snf",
        "delete table arp snf",
        "flush chain bridge snf filter_prerouting; delete set bridge snf filter_macs",
    ],
)
def test_a_table_or_set_that_somebody_has_deleted_is_made_again(node: Node, command: str) -> None:
    node.up(nic("tap0"))
    node.nft(command)
    node.up([*nic("tap1", 2), item("arp filter_gateways", "tap1", "192.0.2.1")])
    assert node.elements() == values(node.documents)
    assert node.missing() == []


def test_rules_that_somebody_has_changed_are_noticed_and_repaired(node: Node) -> None:
    node.up(nic("tap0"), nic("tap1", 2))
    node.nft("add element bridge snf filter_macs { tap9 . 02:00:00:00:00:09 }")
    assert node.missing() == []  # elements are not rules
    node.nft("flush chain bridge snf filter_prerouting")
    assert node.missing() == ["table bridge snf"]
    node.inside(lambda: node.gate().rebuild())
    assert node.missing() == []
    assert "@filter_macs drop" in node.nft("list table bridge snf")
    assert node.elements() == values(nic("tap0"), nic("tap1", 2))


def test_nothing_is_missing_where_nothing_was_needed_yet(node: Node) -> None:
    assert node.inside(lambda: node.gate({}).missing()) == []
    assert node.missing() == ["base", *RULESETS]
    node.apply(new([item(NICS, "tap0")]), {})
    assert node.inside(lambda: node.gate({}).missing()) == []
    node.nft("delete table inet snf")
    assert node.inside(lambda: node.gate({}).missing()) == ["base"]


# Rulesets that change.


def test_another_ruleset_is_loaded_beside_those_there(node: Node) -> None:
    only = {"filter-bridged": FILTER}
    node.apply(new(nic("tap0")[:3]), only)
    node.apply(new(nic("tap1")), RULESETS)
    assert node.restored == 1  # what is there stays, so nothing need be known of it
    assert node.elements() == values(nic("tap0")[:3], nic("tap1"))
    assert node.missing() == []


def test_a_changed_text_replaces_the_old_one_and_keeps_all_elements(node: Node) -> None:
    node.up(nic("tap0"), nic("tap1", 2))
    node.rulesets = RULESETS | {"filter-bridged": FILTER.replace("!=", "==")}
    node.up(nic("tap2", 3))
    assert node.elements() == values(node.documents)
    assert "!= @filter_macs" not in node.nft("list table bridge snf")
    assert node.missing() == []
    restored = node.restored
    node.up(nic("tap3", 4))
    assert node.restored == restored


def test_a_ruleset_that_cannot_be_loaded_is_named_and_all_is_as_before(node: Node) -> None:
    node.up(nic("tap0"))
    before = node.nft("list ruleset")
    wrong = "table inet snf { chain acme { no such rule; } }"
    with pytest.raises(NetworkError, match="the nftables rules acme-bridged cannot be loaded"):
        node.apply(new(nic("tap1")), RULESETS | {"acme-bridged": wrong})
    node.rulesets = RULESETS | {"filter-bridged": wrong}
    with pytest.raises(NetworkError, match="the nftables rules filter-bridged cannot be loaded"):
        node.apply(new(nic("tap1")))
    assert node.nft("list ruleset") == before


def test_rulesets_that_contradict_each_other_are_named(node: Node) -> None:
    other = "table bridge snf {\n set filter_macs { type ether_addr\n }\n}\n"
    with pytest.raises(NetworkError, match="filter-bridged, acme-bridged cannot be loaded togeth"):
        node.apply([], {"filter-bridged": FILTER, "acme-bridged": other})
    assert "snf" not in node.nft("list tables")


def test_a_kernel_that_lacks_something_is_said_to(node: Node) -> None:
    rules = "table bridge snf {\n chain acme {\n  ct state established accept\n }\n}\n"
    said = ""
    try:
        node.apply(new([item(NICS, "tap0")]), {"acme-bridged": rules})
    except NetworkError as error:
        said = str(error)
        assert node.elements() == {}
    lacks = bool(abilities.lacking({"bridge-conntrack"}))
    assert ("acme-bridged need: connection tracking on bridges" in said) == lacks
    assert ("nf_conntrack_bridge" in said) == lacks
    assert bool(said) == lacks


def test_foreign_tables_are_out_of_a_rulesets_reach(node: Node) -> None:
    with pytest.raises(NetworkError, match="acme-bridged hold 'flush ruleset"):
        node.apply([], {"acme-bridged": "flush ruleset\n" + FILTER})


def test_of_two_data_of_an_element_the_first_stands(node: Node) -> None:
    """A document of an event under way has what shall be first, then what was."""
    node.documents = [*nic("tap0"), item(VERDICTS, "tap0", "jump profiles_loose")]
    node.inside(lambda: node.gate().rebuild())
    assert node.elements() == values(nic("tap0"))


# All or nothing.


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (item(ADDRESSES, "tap1 02:00:00:00:00:01"), "tap1: nftables refuses element 'tap1 02:00"),
        (item("bridge other_set", "tap1"), "tap1: nftables refuses element 'tap1' of bridge other"),
        (
            item(VERDICTS, "tap1", "jump nowhere"),
            "tap1: nftables refuses element 'tap1' of inet pr",
        ),
        (item(MACS, 'tap1 x" }; flush ruleset #'), "tap1 x"),
        (item("inet x; flush ruleset", "tap1"), "not a set of our"),
        (item(VERDICTS, "tap1", "drop }; flush ruleset"), "element 'tap1' of inet profiles_verd"),
    ],
)
def test_where_one_change_fails_none_is_made(node: Node, wrong: Item, said: str) -> None:
    node.up(nic("tap0"))
    before = node.nft("list ruleset")
    changes = [*gone(nic("tap0")), *new([*nic("tap1")[:3], wrong])]
    with pytest.raises(NetworkError, match=said):
        node.apply(changes)
    assert node.nft("list ruleset") == before
    node.apply(new(nic("tap2")))
    assert node.elements() == values(nic("tap0"), nic("tap2"))


def test_a_rebuild_that_fails_names_the_nic_and_leaves_all_as_before(node: Node) -> None:
    node.up(nic("tap0"))
    before = node.nft("list ruleset")
    node.documents += [item("bridge former_set", "tap5 192.0.2.5")]
    with pytest.raises(NetworkError, match=r"tap5: nftables refuses element .*snf network down"):
        node.inside(lambda: node.gate().rebuild())
    assert node.nft("list ruleset") == before


def test_who_is_not_root_is_told(node: Node) -> None:
    def listing() -> int:
        os.setresuid(65534, 65534, 65534)
        node.gate().elements()
        return 0

    with Child(node.namespace.name, {}, listing) as child:
        status, _, errors = child.ended()
    assert status == 1
    assert "NetworkError" in errors
    assert "run it as root" in errors


def test_ten_thousand_nics_are_rebuilt_in_one_transaction(node: Node) -> None:
    for number in range(10_000):
        tap = f"tap{number}"
        mac = f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}"
        address = f"10.0.{number >> 8}.{number & 255}"
        node.documents += [
            item(NICS, tap),
            item(MACS, f"{tap} {mac}"),
            item(ADDRESSES, f"{tap} {address}"),
            item(VERDICTS, tap, "jump profiles_loose"),
            item("bridge filter_prefixes", f"{tap} 2001:db8:0:{number + 1:x}::"),
            item("arp filter_gateways", tap, "10.0.0.1"),
            item("inet profiles_services", f"{tap} 22"),
            item("inet profiles_ports", f"{tap} {address}", "192.0.2.9 80"),
        ]
    more = nic("more0")
    node.apply(new(more))
    assert node.elements() == values(node.documents, more)


# Others at the same time.


def test_no_frame_passes_while_everything_is_rebuilt(node: Node) -> None:
    """The port's elements allow one address; frames of another are sent all the time."""
    run = node.namespace.run
    run(["ip", "link", "add", "br0", "up", "type", "bridge"])
    for name in ("port0", "port1"):
        run(["ip", "link", "add", name, "up", "type", "veth", "peer", f"wire-{name}"])
        run(["ip", "link", "set", name, "master", "br0"])
        run(["ip", "link", "set", f"wire-{name}", "up"])
    mine = [
        *nic("port0", 1),
        item(MACS, "port0 02:00:00:00:00:02"),
        item(MACS, "port1 02:00:00:00:00:03"),
    ]
    node.up(mine)

    def rebuilding() -> int:
        with contextlib.closing(node.gate()) as gate:
            for turn in range(40):  # each with another text, as after an upgrade
                gate.require({"filter-bridged": f"{FILTER}# {turn}\n"})
                gate.rebuild()
        return 0

    allowed = bytes.fromhex("ffffffffffff 020000000002 88b5") + bytes(46)
    forged = bytes.fromhex("ffffffffffff 020000000003 88b5") + bytes(46)
    with (
        packets.peer(node.namespace.name, "wire-port0") as wire,
        packets.peer(node.namespace.name, "wire-port1") as other,
    ):
        assert packets.passed(wire, other, [forged], allowed) == []
        sent = 0
        with Child(node.namespace.name, {}, rebuilding) as child:
            while child.running():
                wire.send(forged)
                sent += 1
                assert forged not in other.drain()
            assert child.ended()[0] == 0
        assert sent > 100
        assert packets.passed(wire, other, [forged], allowed) == []


def test_a_rebuild_waits_for_the_end_of_an_event_that_has_begun(node: Node) -> None:
    """Between its transaction and its end the document still has what the event has removed."""
    old, wanted = nic("tap0", 1), nic("tap0", 2)
    outdated = [one for one in old if one not in wanted]
    node.up(old)
    file = node.lock.with_name("document.json")
    file.write_text(json.dumps([one.key for one in [*wanted, *outdated]]))

    def rebuild() -> int:
        def restore() -> tuple[Mapping[str, str], list[Item]]:
            known = {one.key: one for one in old + wanted}
            return RULESETS, [known[tuple(key)] for key in json.loads(file.read_text())]

        Nft(restore, node.lock).rebuild()
        return 0

    def event() -> None:
        with (
            contextlib.closing(node.gate()) as gate,
            Child(node.namespace.name, {}, rebuild) as rebuilder,
        ):
            added = [one for one in wanted if one not in old]
            gate.apply([*gone(outdated), *new(added)])
            until_waiting(node.lock, lambda: not rebuilder.running())
            file.write_text(json.dumps([one.key for one in wanted]))
            gate.close()
            assert rebuilder.ended()[0] == 0

    node.inside(event)
    assert node.elements() == values(wanted)


class Documents:
    """State documents on disk, as many processes share them: a file of items for each NIC."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()

    def write(self, interface: str, items: list[Item]) -> None:
        path = self.directory / f"{interface}.json"
        data = [[one.object, one.attribute, one.value] for one in items]
        path.with_suffix(".new").write_text(json.dumps(data))
        path.with_suffix(".new").replace(path)

    def items(self) -> list[Item]:
        return [
            item(*entry)
            for path in sorted(self.directory.glob("*.json"))
            for entry in json.loads(path.read_text())
        ]


def test_nothing_is_lost_or_comes_back_where_others_rebuild(node: Node, tmp_path: Path) -> None:
    documents = Documents(tmp_path / "documents")

    def restore() -> tuple[Mapping[str, str], list[Item]]:
        return RULESETS, documents.items()

    def events(name: str) -> int:
        """A NIC's elements change, and change; it goes and comes."""
        chance = random.Random(name)
        held: dict[str, list[Item]] = {}
        for turn in range(100):
            interface = f"{name}{chance.randrange(4)}"
            old = held.get(interface, [])
            wanted = [] if old and turn % 5 == 0 else nic(interface, chance.randrange(1 << 16))
            outdated = [one for one in old if one not in wanted]
            documents.write(interface, wanted + outdated)
            gate = Nft(restore, node.lock)
            gate.require(RULESETS)
            known = {one.key for one in old}
            gate.apply(
                gone(outdated)
                + [Change(one, one.value if one.key in known else None) for one in wanted]
            )
            documents.write(interface, wanted)
            gate.close()
            held[interface] = wanted
        return 0

    def rebuilds() -> int:
        gate = Nft(restore, node.lock)
        gate.require(RULESETS)
        for _ in range(50):
            gate.rebuild()
        return 0

    name = node.namespace.name
    with (
        Child(name, {}, lambda: events("tap")) as one,
        Child(name, {}, lambda: events("vif")) as other,
        Child(name, {}, rebuilds) as rebuilder,
    ):
        for child in (one, other, rebuilder):
            status, _, errors = child.ended(300)
            assert (status, errors) == (0, "")
    assert node.elements() == values(documents.items())
    assert len(documents.items()) > 8
