"""Whatever happens half-way through an event: all of it, or nothing, or mended by the next one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.network.subnet import IP_2, ROUTED, TABLE, UPLINK

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.network.host import Host

FILTERED = {
    "IP": "192.0.2.10",
    "NETWORK_NAME": "lan",
    "NETWORK_SUBNET": "192.0.2.0/24",
    "NETWORK_SUBNET6": "2001:db8:2::/64",
    "NETWORK_TAGS": "filtered",
}


@dataclass(frozen=True)
class Case:
    """A NIC, and what a later event makes of it. A filtered one has all that a bridged one has."""

    nic: Mapping[str, str]
    later: Mapping[str, str]


CASES = {
    "filtered": Case(FILTERED, FILTERED | {"IP": "192.0.2.11", "LINK": "br1", "BRIDGE": "br1"}),
    "routed": Case(ROUTED, ROUTED | {"IP": IP_2}),
}

each_case = pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))


@pytest.fixture
def node(host: Host, case: Case) -> Host:
    """A node that has what the NICs of a case need, and has had one."""
    host.ip("link add br1 type bridge", "link set br1 up")
    if case.nic.get("MODE") == "routed":
        host.ip(
            "link add up0 type veth peer name up1",
            "link set up1 up",
            "link set up0 up",
        )
        host.configure(UPLINK)
        assert host.snf("uplink", "up") == (0, "", "")
    host.up(**case.nic)  # loads the rules, which stay
    host.down()
    return host


def _documents(host: Host) -> dict[str, Any]:
    """By the names of their files; not that of the uplink."""
    if not host.documents.exists():
        return {}
    names = set(host.left()) - {"up0.json"}
    return {name: json.loads((host.documents / name).read_text()) for name in names}


def _down(host: Host, case: Case) -> None:
    host.down()


def _up(host: Host, case: Case) -> None:
    host.up(**case.nic)


def _reconcile(host: Host, case: Case) -> None:
    assert host.snf("reconcile")[::2] == (0, "")
    assert host.snf("reconcile", "--check") == (0, "", "")


REPAIRS: tuple[Callable[[Host, Case], None], ...] = (_down, _up, _reconcile)


@each_case
def test_a_failure_at_any_step_of_up_leaves_the_kernel_as_before(node: Host, case: Case) -> None:
    before = node.state()
    for step in node.accidents("fail", "up", **case.nic):
        assert node.state() == before, step
        assert _documents(node) == {}, step


@pytest.mark.parametrize("case", [CASES["filtered"]], ids=["filtered"])
@pytest.mark.parametrize("action", ["fail", "kill"])
def test_the_first_event_of_all_is_as_good_as_any(node: Host, case: Case, action: str) -> None:
    before = node.state()
    _forget_rules(node)
    for step in node.accidents(action, "up", **case.nic):
        if action == "kill":
            node.up(**case.nic)
            node.down()
        assert node.state() == before, step
        assert _documents(node) == {}, step
        _forget_rules(node)


@each_case
def test_a_failure_at_any_step_of_a_later_up_leaves_the_earlier_one_standing(
    node: Host, case: Case
) -> None:
    node.up(**case.nic)
    before, documents = node.state(), _documents(node)
    for step in node.accidents("fail", "up", **case.later):
        # A bridge without ports has an address of chance.
        assert _without_bridges(node.state()) == _without_bridges(before), step
        assert _documents(node) == documents, step


@each_case
def test_after_a_failure_at_any_step_of_down_the_next_one_does_it(node: Host, case: Case) -> None:
    before = node.state()
    node.up(**case.nic)
    for step in node.accidents("fail", "down", "tap0", "false"):
        node.down()
        assert node.state() == before, step
        assert _documents(node) == {}, step
        node.up(**case.nic)
    assert node.state() == before


@each_case
@pytest.mark.parametrize("repair", REPAIRS, ids=["down", "up", "reconcile"])
def test_after_a_kill_at_any_step_of_up(
    node: Host, case: Case, repair: Callable[[Host, Case], None]
) -> None:
    before = node.state()
    node.up(**case.nic)
    wired = node.state()
    node.down()
    right = [wired] if repair is _up else [before]
    for step in node.accidents("kill", "up", **case.nic):
        repair(node, case)
        if step == "after document write" and repair is _reconcile:
            right = [before, wired]  # it may have been the document that says it is done
        assert node.state() in right, step
        if repair is not _down:
            node.down()
            assert node.state() == before, step
        assert _documents(node) == {}, step


@each_case
def test_after_a_kill_at_any_step_of_a_later_up(node: Host, case: Case) -> None:
    before = node.state()
    node.up(**case.later)
    wired = node.state()
    node.down()
    node.up(**case.nic)
    for step in node.accidents("kill", "up", **case.later):
        node.up(**case.later)
        assert _without_bridges(node.state()) == _without_bridges(wired), step
        node.down()
        assert _without_bridges(node.state()) == _without_bridges(before), step
        assert _documents(node) == {}, step
        node.up(**case.nic)


@each_case
@pytest.mark.parametrize("repair", REPAIRS, ids=["down", "up", "reconcile"])
def test_after_a_kill_at_any_step_of_down(
    node: Host, case: Case, repair: Callable[[Host, Case], None]
) -> None:
    before = node.state()
    node.up(**case.nic)
    wired = node.state()
    right = [wired] if repair is _up else [before]
    if repair is _reconcile:  # what the document says is what it makes true; that goes at last
        right = [before, wired]
    for step in node.accidents("kill", "down", "tap0", "false"):
        repair(node, case)
        assert node.state() in right, step
        if repair is not _down:
            node.down()
            assert node.state() == before, step
        assert _documents(node) == {}, step
        node.up(**case.nic)


@each_case
@pytest.mark.parametrize("action", ["kill", "fail"])
def test_a_reconcile_that_did_not_end_is_done_by_the_next(
    node: Host, case: Case, action: str
) -> None:
    node.up(**case.nic)
    wired = node.state()
    damage(node, case)
    for step in node.accidents(action, "reconcile"):
        _reconcile(node, case)
        assert node.state() == wired, step
        damage(node, case)


def damage(node: Host, case: Case) -> None:
    """What a careless hand does. With its device down, a route goes."""
    node.nft("delete table inet snf")
    node.ip("link set tap0 down nomaster")
    if case is CASES["routed"]:
        node.ip(f"rule delete iif tap0 lookup {TABLE}", f"-6 rule delete iif tap0 lookup {TABLE}")


def _forget_rules(node: Host) -> None:
    """As after a reboot."""
    tables = [f"{family} snf" for family in ("inet", "bridge", "arp")]
    node.nft("".join(f"add table {one}\ndelete table {one}\n" for one in tables))


def _without_bridges(state: dict[str, Any]) -> dict[str, Any]:
    links = {
        name: link | {"address": None} if name.startswith("br") else link
        for name, link in state["links"].items()
    }
    return state | {"links": links}
