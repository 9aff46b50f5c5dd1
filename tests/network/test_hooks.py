"""``snf ganeti hook`` on a node whose hypervisor never says that a NIC is gone."""

from __future__ import annotations

import itertools
import json
import signal
from typing import TYPE_CHECKING, Any

import pytest
from scapy.layers.inet6 import ICMPv6ND_NA
from scapy.layers.l2 import ARP, Ether

from snf_core import cli
from tests.fakes.hook import environment
from tests.locks import until_waiting
from tests.network import nics, packets
from tests.network.interrupted import HERE, Accident
from tests.network.nics import FILTERED, PROTECTED
from tests.network.subnet import IP, IP6, ROUTED, ROUTED_2, TABLE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.network.child import Child
    from tests.network.host import Host

WEB1, WEB2 = "web1.gnt.test", "web2.gnt.test"
MINE = (FILTERED, PROTECTED)
"""What web1 has: tap1 is bridged and filtered; tap4 routed, masqueraded and behind a firewall."""
TAPS = [nic["INTERFACE"] for nic in MINE]

ENDING = ["instance-stop", "instance-remove"]
STAYING = ["instance-start", "instance-modify", "instance-migrate"]


@pytest.fixture
def node(host: Host) -> Host:
    """A node with an uplink, whose tables have been filled and emptied once."""
    nics.prepare(host, TAPS)
    nics.wire(host, MINE)
    nics.unwire(host, TAPS)
    unplug(host)
    return host


@pytest.fixture
def left(node: Host) -> dict[str, Any]:
    """What the kernel had before web1 was wired, started and ended without a word."""
    before = nics.state(node)
    start(node)
    assert nics.state(node) != before
    unplug(node)
    assert nics.state(node) != before, "the kernel forgets by itself what there is to forget"
    return before


def start(node: Host) -> None:
    """web1's taps appear and are wired."""
    node.ip(*(f"tuntap add dev {tap} mode tap" for tap in TAPS))
    nics.wire(node, MINE)


def unplug(node: Host, *taps: str) -> None:
    """QEMU has ended, and its taps are gone."""
    node.ip(*(f"link delete {tap}" for tap in taps or TAPS))


def hook(
    node: Host, operation: str, before: Mapping[str, str] | None = None, **more: str
) -> list[str]:
    """What ``snf ganeti hook`` prints after an operation; it must succeed."""
    status, output, errors = started(node, environment(operation, before) | more).ended()
    assert (status, errors) == (0, ""), output
    return output.splitlines()


def started(node: Host, environ: Mapping[str, str], accident: Accident | None = None) -> Child:
    """Start ``snf ganeti hook``, with an accident perhaps."""
    words = ["ganeti", "hook"]
    return node.fork(lambda: (accident.handle if accident else cli.main)(words), **environ)


@pytest.mark.parametrize("operation", [*ENDING, *STAYING])
def test_what_is_left_is_taken_back(node: Host, left: dict[str, Any], operation: str) -> None:
    """Rules, proxied addresses on the uplink, filters: the kernel keeps them beyond the tap."""
    assert ("up0", IP) in node.proxies()
    assert ("up0", IP6) in node.proxies()
    assert hook(node, operation) == [f"{tap}: it is gone; repaired" for tap in TAPS]
    assert nics.state(node) == left
    assert node.left() == ["up0.json"]
    assert nics.check(node) == []
    assert nics.untouched(node, lambda: hook(node, operation)) == []


def test_under_its_old_name_when_it_is_renamed(node: Host, left: dict[str, Any]) -> None:
    hook(node, "instance-rename", {"INSTANCE_NEW_NAME": "other.gnt.test"})
    assert nics.state(node) == left


@pytest.mark.parametrize(
    "environ",
    [
        environment("instance-stop", {"INSTANCE_NAME": WEB2}),
        environment("instance-stop", {"INSTANCE_NAME": "gnt.test"}),
        environment("instance-stop", phase="pre"),
        environment("instance-reinstall"),
    ],
)
def test_what_is_another_instances_is_left(
    node: Host, left: dict[str, Any], environ: dict[str, str]
) -> None:
    assert nics.untouched(node, lambda: started(node, environ).ended()) == (0, "", "")
    assert nics.state(node) != left


def test_a_nic_that_was_unplugged_is_found_without_being_named(node: Host) -> None:
    """After ``modify``, Ganeti tells of those that are left, before and after."""
    node.ip("tuntap add dev tap1 mode tap")
    nics.wire(node, [FILTERED])
    before = nics.without_addresses(nics.state(node))
    node.ip("tuntap add dev tap4 mode tap")
    nics.wire(node, [PROTECTED])
    unplug(node, "tap4")
    assert hook(node, "instance-modify") == ["tap4: it is gone; repaired"]
    assert nics.without_addresses(nics.state(node)) == before
    assert nics.check(node) == []


def test_what_is_missing_of_a_started_instance_is_made_again(node: Host) -> None:
    start(node)
    whole = nics.state(node)
    node.ip(f"neigh delete proxy {IP} dev up0", "link set tap1 nomaster")
    damaged = nics.state(node)
    assert hook(node, "instance-stop") == [], "nothing is gone"
    assert nics.state(node) == damaged
    found = hook(node, "instance-start")
    assert {line.partition(":")[0] for line in found} == {*TAPS}
    assert nics.state(node) == whole


def test_only_of_that_instance(node: Host) -> None:
    start(node)
    node.up(**ROUTED_2, INTERFACE="tap0")
    node.ip("link set tap0 down")
    damaged = nics.state(node)
    assert hook(node, "instance-start") == []
    assert nics.state(node) == damaged


def test_a_tap_of_the_same_name_is_not_taken_for_it(node: Host, left: dict[str, Any]) -> None:
    """Another instance's: made, but not wired yet; then wired."""
    del left
    node.ip("tuntap add dev tap4 mode tap")
    hook(node, "instance-stop")
    assert ("up0", IP) not in node.proxies()
    node.up(**ROUTED_2, INTERFACE="tap4")
    nics.untouched(node, lambda: hook(node, "instance-stop"))
    assert nics.check(node) == []


def test_a_tap_of_the_same_name_that_is_being_wired(node: Host, left: dict[str, Any]) -> None:
    """The hook has seen what is left when another instance's event takes the name over."""
    node.ip("tuntap add dev tap4 mode tap")
    up = node.start_interrupted("wait", "nft 0", "up", **ROUTED_2, INTERFACE="tap4")
    assert up.line() == f"{HERE}nft 0\n"
    waiting = started(node, environment("instance-stop"))
    until_waiting(node.documents / "tap4.lock")
    up.tell("\n")
    assert up.ended()[::2] == (0, "")
    assert waiting.ended() == (0, "tap1: it is gone; repaired\n", "")
    assert json.loads((node.documents / "tap4.json").read_text())["event"]["instance"] == WEB2
    assert nics.check(node) == []
    unplug(node, "tap4")
    hook(node, "instance-stop", {"INSTANCE_NAME": WEB2})
    assert nics.state(node) == left


def test_two_at_once(node: Host, left: dict[str, Any]) -> None:
    """The first is about to forget when the second comes."""
    environ = environment("instance-stop")
    first = started(node, environ, Accident("wait", "before document remove"))
    assert first.line().startswith(HERE)
    second = started(node, environ)
    until_waiting(node.documents / "tap1.lock")
    first.tell("\n")
    assert first.ended() == (0, "".join(f"{tap}: it is gone; repaired\n" for tap in TAPS), "")
    assert second.ended() == (0, "", "")
    assert nics.state(node) == left
    assert nics.check(node) == []


@pytest.mark.parametrize("operation", ["instance-stop", "instance-start"])
def test_killed_at_any_step(node: Host, operation: str) -> None:
    """The next one takes the rest."""
    before = nics.state(node)
    environ = environment(operation)
    for step in itertools.count():
        start(node)
        unplug(node)
        status, output, errors = started(node, environ, Accident("kill", step)).ended()
        if HERE not in output:
            assert (status, errors) == (0, "")
            assert step > 2
            break
        assert status == -signal.SIGKILL
        hook(node, operation)
        assert nics.state(node) == before, output
        assert nics.check(node) == []


def test_a_failure_is_said(node: Host, left: dict[str, Any]) -> None:
    """Ganeti shows what a hook printed where it failed."""
    lock = node.documents / "tap1.lock"
    lock.mkdir()
    status, output, errors = started(node, environment("instance-stop")).ended()
    assert (status, output) == (1, "")
    assert f"{lock} cannot be locked: Is a directory" in errors
    lock.rmdir()
    hook(node, "instance-stop")
    assert nics.state(node) == left


def test_a_migrated_guest_is_announced_again(node: Host) -> None:
    """Twice: the node that it has left may have answered for it after the first."""
    start(node)
    with packets.peer(node.namespace.name, "up1") as wire:
        migrating = started(node, environment("instance-migrate"))
        seen = announced(wire, 2)
        assert migrating.ended() == (0, "", "")
    assert seen == [("arp", 1), ("arp", 2), ("na", 0)] * 2


def test_what_is_not_here_is_not_announced(node: Host) -> None:
    """On the node that it has left, and for what was only ever bridged."""
    start(node)
    unplug(node, "tap4")
    with packets.peer(node.namespace.name, "up1") as wire:
        hook(node, "instance-migrate")
        node.ip("tuntap add dev tap4 mode tap")
        nics.wire(node, [PROTECTED])
        assert announced(wire, 1) == [("arp", 1), ("arp", 2), ("na", 0)], "by up alone"


def test_before_a_guest_is_here_nothing_draws_its_traffic(node: Host) -> None:
    """Nothing is answered, routed or told in its name; in the second phase all is."""
    before = nics.state(node)
    nic = ROUTED | {"INTERFACE": "tap0", "ACTION": "up"}
    with packets.peer(node.namespace.name, "up1") as wire:
        node.up(**nic, MIGRATION_PHASE="pre")
        assert {one for one in node.proxies() if one[0] == "up0"} == set()
        assert [one for one in node.routes(TABLE) if one.get("dev") == "tap0"] == []
        assert node.links()["tap0"]["up"]
        assert nics.check(node) == [], "so it is meant"
        waiting = f"tap0 of {WEB1}: applied, as wanted, waits for the end of a migration"
        assert node.snf("status")[1].splitlines()[0] == waiting
        node.up(**nic, MIGRATION_PHASE="post")
        assert node.snf("status")[1].splitlines()[0] == f"tap0 of {WEB1}: applied, as wanted"
        assert announced(wire, 1) == [("arp", 1), ("arp", 2), ("na", 0)]
    assert {("up0", IP), ("up0", IP6)} <= node.proxies()
    assert {IP, IP6} <= {one["dst"] for one in node.routes(TABLE) if one.get("dev") == "tap0"}
    whole = nics.state(node)
    assert nics.check(node) == []
    status = node.snf("event", **nic | {"ACTION": "down"})
    assert status == (0, "", "")
    assert nics.state(node) == before
    node.up(**nic)
    assert nics.state(node) == whole, "the same as without phases"


@pytest.mark.parametrize("phases", [("pre",), ("pre", "post"), ("post",)])
def test_a_migration_that_fails_leaves_nothing(node: Host, phases: tuple[str, ...]) -> None:
    """Ganeti 3.2 says down on the target; what is left of a tap that has gone is a hook's."""
    before = nics.state(node)
    nic = ROUTED | {"INTERFACE": "tap4"}
    for gone in (False, True):
        node.ip("tuntap add dev tap4 mode tap")
        for phase in phases:
            node.up(**nic, ACTION="up", MIGRATION_PHASE=phase)
        if gone:
            unplug(node, "tap4")
        assert node.snf("event", **nic, ACTION="down") == (0, "", "")
        if not gone:
            unplug(node, "tap4")
        assert nics.state(node) == before
        assert node.left() == ["up0.json"]


def test_down_comes_late(node: Host) -> None:
    """The name has been used again: the NIC that has it now stays as it is."""
    node.up(**ROUTED_2, INTERFACE="tap0")
    nics.untouched(node, lambda: node.down("tap0"))
    assert node.snf("down", "tap0", "false", INSTANCE=WEB2) == (0, "", "")
    assert node.left() == ["up0.json"]


@pytest.mark.parametrize("words", [("up",), ("event",), ("down", "gnt.com.0", "false")])
def test_ganetis_own_nics_are_left_to_it(host: Host, words: tuple[str, ...]) -> None:
    action = "down" if words[0] == "down" else "up"
    nic = {"INTERFACE": "gnt.com.0", "MODE": "routed", "LINK": "", "BRIDGE": "", "ACTION": action}
    host.ip("tuntap add dev gnt.com.0 mode tap")
    before = nics.state(host)
    assert host.snf(*words, **nic) == (0, "", "")
    assert nics.state(host) == before
    assert not host.documents.exists()


def announced(wire: packets.Port, times: int) -> list[tuple[str, int]]:
    """What is told of the first guest out of the uplink, until its IPv6 address has been
    ``times`` times: kind, and for ARP the operation.
    """
    seen: list[tuple[str, int]] = []
    while seen.count(("na", 0)) < times:
        frame = Ether(packets.wait_for(wire, lambda data: bool(_told(Ether(data)))))
        seen += _told(frame)
    return seen


def _told(frame: Ether) -> list[tuple[str, int]]:
    if ARP in frame and frame[ARP].psrc == IP:
        return [("arp", frame[ARP].op)]
    if ICMPv6ND_NA in frame and frame[ICMPv6ND_NA].tgt == IP6:
        return [("na", 0)]
    return []
