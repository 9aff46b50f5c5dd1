"""Many events at once: those of one interface wait for each other, and nothing is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.locks import until_waiting
from tests.network import nics
from tests.network.nics import BRIDGED, FILTERED, PROTECTED
from tests.network.subnet import IP, TABLE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.network.child import Child
    from tests.network.host import Host

MANY = 200
SOME = 24


def nic(number: int, **changed: str) -> dict[str, str]:
    """One of many filtered NICs."""
    return {
        **FILTERED,
        "INTERFACE": f"vm{number}",
        "MAC": f"aa:00:10:00:01:{number:02x}",
        "IP": f"10.0.0.{number}",
        **changed,
    }


def taps(host: Host, count: int) -> list[str]:
    """Make them, and return their names."""
    names = [f"vm{number}" for number in range(1, count + 1)]
    host.ip(*(f"tuntap add dev {name} mode tap" for name in names))
    return names


def set_of(host: Host, family: str, name: str) -> set[str]:
    """The elements of a set, as keys of ours."""
    return {
        " ".join(one["concat"]) if isinstance(one, dict) else one
        for one in host.elements(family, name)
    }


def as_wanted(host: Host, wired: Mapping[str, Mapping[str, str]]) -> None:
    """AssertionError unless the kernel has exactly what these filtered NICs should have."""
    assert set_of(host, "inet", "nics") == {*wired}
    assert set_of(host, "bridge", "filtered_interfaces") == {*wired}
    for name, part in (("macs", "MAC"), ("addresses4", "IP")):
        expected = {f"{tap} {one[part]}" for tap, one in wired.items()}
        assert set_of(host, "bridge", f"filtered_{name}") == expected
    pairs = {f"{tap} {one['MAC']} {one['IP']}" for tap, one in wired.items()}
    assert set_of(host, "bridge", "filtered_pairs4") == pairs
    links = host.links()
    ports = {name: link for name, link in links.items() if name.startswith("vm") and link["master"]}
    assert {*ports} == {*wired}
    for tap, one in wired.items():
        mac = "fe" + one["MAC"][2:]
        assert links[tap] == {"mtu": 1400, "master": one["LINK"], "up": True, "address": mac}
    assert host.left() == sorted(f"{tap}.json" for tap in wired)
    assert nics.check(host) == []


# One interface


def stopped(host: Host, step: str, *words: str, **changed: str) -> Child:
    """An event that waits at a step, until it is told to go on."""
    child = host.start_interrupted("wait", step, *words, **changed)
    assert child.line() == f"an accident at: {step}\n"
    return child


def lock(host: Host, tap: str = "tap0") -> Path:
    return host.documents / f"{tap}.lock"


def go_on(*children: Child) -> list[str]:
    """Tell the first; all must succeed. What they print."""
    children[0].tell("go on\n")
    ends = [child.ended() for child in children]
    assert [(status, errors) for status, _, errors in ends] == [(0, "")] * len(ends)
    return [output for _, output, _ in ends]


@pytest.fixture
def node(host: Host) -> Host:
    """A node with the rules loaded, and no NIC."""
    nics.prepare(host, ["tap1", "tap4", "tap5"])
    nics.wire(host, [FILTERED, PROTECTED])
    nics.unwire(host, ["tap1", "tap4"])
    return host


def test_down_waits_for_up(node: Host) -> None:
    before = nics.state(node)
    up = stopped(node, "links 0", "up", **FILTERED)
    down = node.start("down", "tap1", "false", INTERFACE="tap1")
    until_waiting(lock(node, "tap1"))
    assert down.running()
    go_on(up, down)
    assert nics.state(node) == before
    assert node.left() == ["up0.json"]


def test_up_waits_for_down(node: Host) -> None:
    nics.wire(node, [FILTERED])
    wired = nics.state(node)
    down = stopped(node, "nft 0", "down", "tap1", "false", INTERFACE="tap1")
    up = node.start("up", **FILTERED)
    until_waiting(lock(node, "tap1"))
    assert up.running()
    go_on(down, up)
    assert nics.state(node) == wired
    assert nics.check(node) == []


def test_up_waits_for_another_up(node: Host) -> None:
    """What the second one says is what holds."""
    nics.wire(node, [PROTECTED])
    wired = nics.state(node)
    nics.unwire(node, ["tap4"])
    first = stopped(node, "links 0", "up", **PROTECTED | {"IP": "198.51.100.66", "TAGS": ""})
    second = node.start("up", **PROTECTED)
    until_waiting(lock(node, "tap4"))
    go_on(first, second)
    assert nics.state(node) == wired
    assert nics.check(node) == []


def test_reconcile_leaves_an_event_alone_that_has_not_ended(node: Host) -> None:
    nics.wire(node, [FILTERED])
    wired = nics.state(node)
    nics.unwire(node, ["tap1"])
    up = stopped(node, "links 0", "up", **FILTERED)
    reconcile = node.start("reconcile")
    until_waiting(lock(node, "tap1"))
    assert go_on(up, reconcile)[1] == "", "it is not what it was"
    assert nics.state(node) == wired
    assert nics.check(node) == []


def test_up_waits_for_reconcile(node: Host) -> None:
    """Which takes back what an earlier event has begun."""
    nics.wire(node, [FILTERED])
    wired = nics.state(node)
    nics.unwire(node, ["tap1"])
    assert node.interrupted("kill", "links 2", "up", **FILTERED)[0] == -9
    reconcile = stopped(node, "links 0", "reconcile")
    up = node.start("up", **FILTERED)
    until_waiting(lock(node, "tap1"))
    assert "tap1: an event did not end; repaired" in go_on(reconcile, up)[0]
    assert nics.state(node) == wired
    assert nics.check(node) == []


@pytest.mark.parametrize("words", [["reconcile"], ["reconcile", "--check"]], ids=["", "check"])
def test_reconcile_does_not_find_what_an_event_has_mended_meanwhile(
    node: Host, words: list[str]
) -> None:
    """That event wrote no document: it made again what its NIC should have had."""
    nics.wire(node, [PROTECTED])
    wired = nics.state(node)
    node.ip(f"rule delete iif tap4 lookup {TABLE}")
    up = stopped(node, "links 0", "up", **PROTECTED)
    reconcile = node.start(*words)
    until_waiting(lock(node, "tap4"))
    assert go_on(up, reconcile)[1] == ""
    assert nics.state(node) == wired


def test_reconcile_waits_for_another(node: Host) -> None:
    nics.wire(node, [FILTERED])
    node.ip("link delete tap1")
    first = stopped(node, "nft 0", "reconcile")
    second = node.start("reconcile")
    until_waiting(lock(node, "tap1"))
    assert go_on(first, second) == ["tap1: it is gone; repaired\n", ""]
    assert nics.check(node) == []


# What several interfaces share


@pytest.mark.parametrize(
    "words", [("down", "tap4", "true"), ("reconcile",)], ids=lambda one: one[0]
)
@pytest.mark.parametrize("step", ["links 0", "nft 0", "before document remove"])
def test_an_address_that_comes_back_while_its_old_tap_is_forgotten(
    node: Host, words: tuple[str, ...], step: str
) -> None:
    """The node answers for it, and masks it, whichever of both is first."""
    before = nics.state(node)
    nics.wire(node, [PROTECTED])
    node.ip("link delete tap4")
    old = stopped(node, step, *words, INTERFACE="tap4")
    node.up(**PROTECTED | {"INTERFACE": "tap5"})
    go_on(old)
    assert ("up0", IP) in node.proxies()
    assert set_of(node, "inet", "masquerade_sources") == {f"up0 {IP}"}
    assert nics.check(node) == []
    node.down("tap5")
    node.ip("tuntap add dev tap4 mode tap")
    assert nics.without_addresses(nics.state(node)) == nics.without_addresses(before)


@pytest.mark.parametrize("old_first", [True, False], ids=["old first", "new first"])
def test_an_address_behind_another_tap_is_forgotten_with_the_last(
    node: Host, old_first: bool
) -> None:
    before = nics.state(node)
    nics.wire(node, [PROTECTED])
    node.ip("link delete tap4")
    node.up(**PROTECTED | {"INTERFACE": "tap5"})
    order = ["tap4", "tap5"] if old_first else ["tap5", "tap4"]
    for tap in order:
        node.down(tap)
        if tap != order[-1] and old_first:
            assert ("up0", IP) in node.proxies()
    node.ip("tuntap add dev tap4 mode tap")
    assert nics.without_addresses(nics.state(node)) == nics.without_addresses(before)
    assert node.left() == ["up0.json"]


def test_what_somebody_else_has_made_stays(node: Host) -> None:
    """The same as we would have: it is left when the NIC goes, in whichever way that is."""
    made = [f"neigh add proxy {IP} dev up0", f"rule add iif tap4 lookup {TABLE} priority 20000"]
    node.ip(*made)
    before = nics.state(node)
    nics.wire(node, [PROTECTED])
    nics.unwire(node, ["tap4"])
    assert nics.state(node) == before
    nics.wire(node, [PROTECTED])
    node.ip("link delete tap4", "tuntap add dev tap4 mode tap")
    nics.reconciled(node)
    assert nics.without_addresses(nics.state(node)) == nics.without_addresses(before)


# Many


def test_two_hundred_ups_at_once(host: Host) -> None:
    """From a node without our rules; then as many downs."""
    names = taps(host, MANY)
    wired = {name: {"LINK": "br0", **nic(number)} for number, name in enumerate(names, 1)}

    failed, output, errors = nics.handled(
        host, [(["up"], one) for one in wired.values()], together=True
    )

    assert (failed, output, errors) == (0, "", ""), errors
    as_wanted(host, wired)

    downs = [(["down", name, "false"], {"INTERFACE": name}) for name in names]
    failed, output, errors = nics.handled(host, downs, together=True)
    assert (failed, output, errors) == (0, "", ""), errors
    as_wanted(host, {})


def test_ups_while_somebody_flushes_and_reconciles(host: Host) -> None:
    names = taps(host, SOME)
    wired = {name: {"LINK": "br0", **nic(number)} for number, name in enumerate(names, 1)}
    children = [host.start("up", **one) for one in wired.values()]
    rounds = 0
    while any(child.running() for child in children) or rounds < 2:
        nics.lose(host)
        status, _, errors = host.snf("reconcile")
        assert (status, errors) == (0, "")
        rounds += 1
    assert [child.ended() for child in children] == [(0, "", "")] * SOME
    nics.reconciled(host)
    as_wanted(host, wired)
    nics.flush(host)
    nics.reconciled(host)
    as_wanted(host, wired)


def test_a_coming_and_going(host: Host) -> None:
    """Events of all kinds for few interfaces, and reconcile; then each gets a last one."""
    host.ip("link add br1 type bridge", "link set br1 mtu 1400 up")
    names = taps(host, 8)
    before = host.links()
    numbered = list(enumerate(names, 1))
    churn: list[nics.Event] = []
    for number, name in numbered:
        other = nic(number, LINK="br1", BRIDGE="br1", IP=f"10.0.0.{number + 100}")
        other["NETWORK_TAGS"] = "private-filtered"
        churn += [
            (["up"], nic(number)),
            (["down", name, "false"], {"INTERFACE": name}),
            (["up"], other),
            (["up"], {**BRIDGED, "INTERFACE": name}),
        ]
    churn[::6] = [(["reconcile"], {}) for _ in churn[::6]]
    churn[4::6] = [(["reconcile", "--check"], {}) for _ in churn[4::6]]
    failed, output, errors = nics.handled(host, churn, together=True)
    assert (failed, errors) == (0, ""), output + errors

    last: list[nics.Event] = []
    wired = {}
    for number, name in numbered:
        if number % 2:
            wired[name] = {"LINK": "br0", **nic(number)}
            last.append((["up"], nic(number)))
        else:
            last.append((["down", name, "false"], {"INTERFACE": name}))
    failed, output, errors = nics.handled(host, [*last, (["reconcile"], {})], together=True)
    assert (failed, errors) == (0, ""), output + errors
    as_wanted(host, wired)
    for family, name in (("bridge", "filtered_private"), ("bridge", "filtered_private_prefixes")):
        assert set_of(host, family, name) == set()

    nics.unwire(host, names)
    as_wanted(host, {})
    left = host.links()
    assert {name: left[name] for name in names} == {name: before[name] for name in names}
