"""``snf network plan`` and ``status``: what would be, and what is, without touching anything."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.network import nics
from tests.network.nics import ALL, BRIDGED, FILTERED, PROTECTED
from tests.network.subnet import GATEWAY, IP, IP6, MAC, TABLE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.network.host import Host

REFUSED = {
    "interface": {"INTERFACE": "tap0;reboot"},
    "no such bridge": {"LINK": "br7", "BRIDGE": "br7"},
    "promise": {"NETWORK_NAME": "n", "NETWORK_TAGS": "ip-less-routed"},
    "no address": {**PROTECTED, "IP": "", "NETWORK_SUBNET6": "", "NETWORK_GATEWAY6": ""},
    "no such table": {**PROTECTED, "LINK": "101"},
    "tag": {"TAGS": "x:$(reboot)"},
}


def planned(node: Host, nic: Mapping[str, str]) -> set[tuple[str, str, str, Any, str]]:
    """What plan says as JSON: kind, object, attribute, value and setup."""
    status, output, errors = node.snf("plan", "--json", **nic)
    assert (status, errors) == (0, "")
    return {tuple(one.values()) for one in json.loads(output)}


def found(node: Host, *words: str) -> list[dict[str, Any]]:
    """What status says as JSON; its exit status must say the same."""
    status, output, errors = node.snf("status", *words, "--json")
    assert errors == ""
    answer: list[dict[str, Any]] = json.loads(output)
    assert status == (0 if all(one["agrees"] for one in answer) else 3)
    return answer


def read(value: object) -> str:
    """As people read it."""
    words = {True: "yes", False: "no", None: "absent"}
    return words[value] if value is None or isinstance(value, bool) else str(value)


# plan


@pytest.mark.parametrize("nic", ALL, ids=lambda nic: nic["INTERFACE"])
def test_a_plan_touches_nothing_and_is_what_up_does(host: Host, nic: Mapping[str, str]) -> None:
    nics.prepare(host, ["tap1", "tap2", "tap3", "tap4"])
    assert host.snf("uplink", "down") == (0, "", "")
    nics.lose(host)
    if nic is PROTECTED:
        assert host.snf("uplink", "up") == (0, "", "")
    text = nics.untouched(host, lambda: host.snf("plan", **nic))
    assert text[::2] == (0, "")
    plan = nics.untouched(host, lambda: planned(host, nic))
    for kind, thing, attribute, value, setup in plan:
        words = f"{kind} {thing} {attribute} {read(value)}"
        assert f"{words} ({setup})\n" in text[1] if setup else f"{words}\n" in text[1]
    assert len(text[1].splitlines()) == len(plan)

    host.up(**nic)

    [one] = found(host, nic["INTERFACE"])
    wired = {
        (item["kind"], item["object"], item["attribute"], item["wanted"], item["setup"])
        for item in one["items"]
    }
    assert wired == {item for item in plan if item[0] != "announcement"}
    assert one["agrees"], "the kernel has it"


def test_a_plan_says_who_wants_what(host: Host) -> None:
    nics.prepare(host)
    assert {
        ("link", "tap0", "master", "br0", "bridged"),
        ("element", "inet nics", "tap0", True, "core"),
    } <= planned(host, BRIDGED)
    assert {
        ("link", "tap1", "master", "br0", "bridged"),
        ("element", "bridge filtered_macs", "tap1 aa:00:10:38:54:01", True, "filtered"),
        ("link", "tap1", "group_fwd_mask", 0xFFFD, "filtered"),
    } <= planned(host, FILTERED)
    profile = "jump firewall_profile_protected"
    assert {
        ("rule", "tap4", f"inet {TABLE} 20000", True, "routed"),
        ("route", f"{IP}/32", TABLE, "dev tap4", "routed"),
        ("route", f"{IP6}/128", TABLE, "dev tap4", "routed"),
        ("neighbour", "up0", IP, True, "routed"),
        ("element", "arp routed_senders", "tap4", GATEWAY, "routed"),
        ("element", "inet routed_macs", f"tap4 {MAC}", True, "routed"),
        ("element", "inet masquerade_sources", f"up0 {IP}", True, "masquerade"),
        ("element", "inet firewall_profiles", "tap4", profile, "firewall"),
        ("announcement", "up0", IP, "02:00:00:00:00:0a", ""),
        ("announcement", "up0", IP6, "02:00:00:00:00:0a", ""),
    } <= planned(host, PROTECTED)


@pytest.mark.kernel("bridge-conntrack")
def test_a_plan_of_a_bridged_firewall(host: Host) -> None:
    nic = FILTERED | {"INTERFACE": "tap0", "TAGS": "synnefo:network:0:limited"}
    plan = nics.untouched(host, lambda: planned(host, nic))
    profile = "jump firewall_profile_limited"
    assert ("element", "bridge firewall_profiles", "tap0", profile, "firewall") in plan
    host.up(**nic)
    assert found(host, "tap0")[0]["agrees"]


@pytest.mark.parametrize("nic", REFUSED.values(), ids=REFUSED)
def test_a_plan_of_what_up_refuses(host: Host, nic: Mapping[str, str]) -> None:
    nics.prepare(host)
    status, output, errors = nics.untouched(host, lambda: host.snf("plan", **nic))
    assert (status, output) == (1, "")
    assert "snf: remedy: " in errors
    assert nics.untouched(host, lambda: host.snf("up", **nic)) == (1, "", errors)


def test_a_plan_for_a_wired_nic(host: Host) -> None:
    host.up()
    before = planned(host, BRIDGED)
    host.ip("link set tap0 mtu 1280 nomaster")
    assert nics.untouched(host, lambda: planned(host, BRIDGED)) == before


# status


def test_status_of_all_and_of_one(host: Host) -> None:
    nics.prepare(host, ["tap1", "tap2", "tap3", "tap4"])
    nics.wire(host, ALL)
    everything = nics.untouched(host, lambda: found(host))
    assert [one["interface"] for one in everything] == [
        "tap0",
        "tap1",
        "tap2",
        "tap3",
        "tap4",
        "up0",
    ]
    assert all(one["agrees"] and one["phase"] == "applied" for one in everything)
    assert all(item["actual"] == item["wanted"] for one in everything for item in one["items"])
    assert found(host, "tap4") == [everything[4]]
    assert everything[4]["event"]["instance"] == "web1.gnt.test"
    text = nics.untouched(host, lambda: host.snf("status"))[1]
    heads = [line for line in text.splitlines() if not line.startswith(" ")]
    assert heads == [
        *(f"tap{number} of web1.gnt.test: applied, as wanted" for number in range(5)),
        "up0: applied, as wanted",
    ]
    assert host.snf("status", "tap9") == (0, "tap9 is not wired by us\n", "")
    assert found(host, "tap9") == []


def test_status_after_changes_by_hand(host: Host) -> None:
    """One of each kind."""
    nics.prepare(host, ["tap1", "tap4"])
    nics.wire(host, [BRIDGED, FILTERED, PROTECTED])
    host.ip(
        "link set tap1 mtu 1280 nomaster",
        f"rule delete iif tap4 lookup {TABLE}",
        f"route replace {IP}/32 dev br0 table {TABLE}",
        f"neigh delete proxy {IP} dev up0",
    )
    host.nft("delete element bridge snf filtered_macs { tap1 . aa:00:10:38:54:01 }")
    host.nft("delete element arp snf routed_senders { tap4 }")
    host.nft("add element arp snf routed_senders { tap4 : 198.51.100.99 }")
    host.sysctl("net/ipv4/conf/tap4/rp_filter", "0")
    changed = [
        ("link", "tap1", "mtu", 1400, 1280),
        ("link", "tap1", "master", "br0", None),
        ("link", "tap1", "group_fwd_mask", 0xFFFD, 0),
        ("element", "bridge filtered_macs", "tap1 aa:00:10:38:54:01", True, None),
        ("rule", "tap4", f"inet {TABLE} 20000", True, None),
        ("route", f"{IP}/32", TABLE, "dev tap4", "dev br0"),
        ("neighbour", "up0", IP, True, None),
        ("element", "arp routed_senders", "tap4", GATEWAY, "198.51.100.99"),
        ("sysctl", "net/ipv4/conf/tap4/rp_filter", "value", "1", "0"),
    ]
    names = ("kind", "object", "attribute", "wanted", "actual")
    answer = nics.untouched(host, lambda: found(host))
    differing = [
        tuple(item[name] for name in names)
        for one in answer
        for item in one["items"]
        if item["actual"] != item["wanted"]
    ]
    assert {*differing} == {*changed}
    assert len(differing) == len(changed)
    agrees = {one["interface"]: one["agrees"] for one in answer}
    assert agrees == {"tap0": True, "tap1": False, "tap4": False, "up0": True}
    text = host.snf("status")[1]
    for kind, thing, attribute, wanted, actual in changed:
        line = f"  {kind} {thing} {attribute} {read(wanted)} ("
        [shown] = [one for one in text.splitlines() if one.startswith(line)]
        assert shown.endswith(f", but is {read(actual)}")


def test_status_of_what_is_not_whole(host: Host) -> None:
    """A flushed ruleset, an event that did not end, a tap that is gone, a document of no use."""
    nics.prepare(host, ["tap1", "tap2", "tap4"])
    nics.wire(host, [BRIDGED, FILTERED, ALL[2]])
    nics.lose(host)
    assert host.interrupted("kill", "links 3", "up", **PROTECTED)[0] == -9
    nics.lose(host)
    host.ip("link delete tap1")
    (host.documents / "tap2.json").write_text("{")
    answer = {one["interface"]: one for one in nics.untouched(host, lambda: found(host))}
    assert not any(one["agrees"] for one in answer.values())
    assert [item["actual"] for item in answer["tap0"]["items"] if item["kind"] == "element"] == [
        None
    ]
    assert {item["actual"] for item in answer["tap1"]["items"]} == {None}
    assert "cannot be read" in answer["tap2"]["error"]
    assert answer["tap4"]["phase"] == "applying"
    lines = host.snf("status")[1].splitlines()
    assert "tap1 of web1.gnt.test: applied, NOT as wanted" in lines
    assert "tap4 of web1.gnt.test: applying, NOT as wanted" in lines
    assert [line for line in lines if line.startswith("tap2: the state document ")]
