"""The rtnetlink gate, in a real kernel that is asked for the outcome by ip(8)."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from snf_core.errors import NetworkError
from snf_core.network.links import Links
from snf_core.network.netlink import Netlink
from snf_core.network.state import Change, Item
from tests.machine import NetworkNamespace
from tests.network.packets import enter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from snf_core.network.state import Key, Value

_CLONE_NEWNET = 0x40000000  # sched.h

BEFORE = """
link add br0 address 02:00:00:00:00:02 type bridge
link set br0 up
link add tap0 address 02:00:00:00:00:01 type veth peer name wire0
link set wire0 up
link set lo up
address add 192.0.2.1/24 dev br0
route add blackhole 203.0.113.9/32 table 100
route add 203.0.113.8/32 dev br0 table 100
route add 198.51.100.3/32 dev br0 table 101
rule add iif tap0 lookup 100 priority 20001
-6 rule add iif tap0 lookup 100 priority 20000
neighbour add proxy 198.51.100.99 dev br0
"""
"""br0, tap0 (unwired) with the other end wire0, and routes, rules and a neighbour of others."""

WIRED = (
    ("link", "tap0", "address", "fe:00:00:00:00:01", "02:00:00:00:00:01"),
    ("link", "tap0", "mtu", 1400, 1500),
    ("link", "tap0", "master", "br0", None),
    ("link", "tap0", "up", True, False),
    ("rule", "tap0", "inet 100 20000", True, None),
    ("rule", "tap0", "inet6 4294967295 20002", True, None),
    ("route", "198.51.100.3/32", "100", "dev tap0", None),
    ("route", "2001:db8::3/128", "100", "dev tap0", None),
    ("route", "198.51.100.128/25", "1000", "via 192.0.2.9 dev br0", None),
    ("route", "0.0.0.0/0", "100", "dev br0", None),
    ("route", "::/0", "100", "dev br0", None),
    ("neighbour", "br0", "198.51.100.3", True, None),
    ("neighbour", "br0", "2001:db8::3", True, None),
)
"""Kind, object, attribute, value, and the value before."""


def change(kind: str, name: str, attribute: str, value: Value, before: Value = None) -> Change:
    return Change(Item(kind, name, attribute, value), before)


def changes() -> list[Change]:
    return [change(*words) for words in WIRED]


def listed_as(node: Links, items: list[Item]) -> dict[Key, Value]:
    """What a snapshot says of the items, without the numbers of all links."""
    return {key: value for key, value in node.snapshot(items).items() if key[2] != "index"}


def back(done: list[Change]) -> list[Change]:
    return [one.reversed for one in reversed(done)]


def ip(*lines: str) -> None:
    """Run commands of ip(8) in the thread's namespace."""
    for six, some in itertools.groupby(lines, lambda line: line.startswith("-6 ")):
        text = "\n".join(line.removeprefix("-6 ") for line in some)
        command = ["ip", *(["-6"] if six else []), "-batch", "-"]
        done = subprocess.run(command, input=text, text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr


def asked(words: str) -> list[dict[str, Any]]:
    """What ``ip -json ...`` answers."""
    done = subprocess.run(["ip", "-json", *words.split()], check=True, capture_output=True)
    answer: list[dict[str, Any]] = json.loads(os.fsdecode(done.stdout) or "[]")
    return answer


def kernel() -> dict[str, Any]:
    """All that the gate may change, as the kernel has it; without its own routes."""
    return {
        "link": {
            one["ifname"]: (one["address"], one["mtu"], one.get("master"), "UP" in one["flags"])
            for one in asked("link show")
        },
        "rule": [asked("-4 rule show"), asked("-6 rule show")],
        "route": [
            one | {"family": family, "flags": []}  # those of the carrier come and go
            for family in ("-4", "-6")
            for one in asked(f"{family} -details route show table all")
            if one.get("protocol") != "kernel"
        ],
        "neighbour": sorted(map(str, asked("-4 neigh show proxy") + asked("-6 neigh show proxy"))),
    }


@pytest.fixture
def node() -> Iterator[Links]:
    """The gate, in a namespace of its own, which the test's thread is in too."""
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        with NetworkNamespace() as namespace:
            enter(namespace.name)
            try:
                ip(*BEFORE.split("\n"))
                with Links() as links:
                    yield links
            finally:
                assert libc.setns(home, _CLONE_NEWNET) == 0
    finally:
        os.close(home)


def test_a_link_as_it_is(node: Links) -> None:
    ip("link set tap0 master br0 mtu 1400")
    tap, bridge = node.get("tap0"), node.get("br0")
    assert tap is not None
    assert bridge is not None
    assert (tap.kind, tap.mtu, tap.up, tap.address, tap.master, tap.vlan_aware) == (
        *("veth", 1400, False, "02:00:00:00:00:01", "br0", False),
    )
    assert (bridge.kind, bridge.mtu, bridge.up, bridge.master) == ("bridge", 1400, True, None)
    assert [one["ifindex"] for one in asked("link show br0")] == [bridge.index]


@pytest.mark.parametrize("name", ["", "nothing", "n" * 15, "n" * 16, "n" * 2000, "ä" * 8])
def test_no_link(node: Links, name: str) -> None:
    assert node.get(name) is None
    assert node.read([Item("link", name, "mtu", 1500)]) == {}


@pytest.mark.parametrize(
    "name", ["tap0.100", "$(reboot)", "a;b'c\"d\\e", "täp€", "-mtu", "tap\udcff", "x" * 15]
)
def test_names_are_only_names(node: Links, name: str) -> None:
    ip("link set wire0 down")
    rename = ["ip", "link", "set", "wire0", "name", name]
    subprocess.run([os.fsencode(word) for word in rename], check=True)
    done = [
        change("link", name, "mtu", 1400, 1500),
        change("link", name, "up", True, False),
        change("rule", name, "inet 100 20000", True),
        change("route", "198.51.100.4/32", "100", f"dev {name}"),
        change("neighbour", name, "198.51.100.5", True),
    ]
    items = [one.item for one in done]
    before = kernel()

    assert node.apply(done) == set()

    assert listed_as(node, items) == {item.key: item.value for item in items}
    assert kernel()["link"][name][1:] == (1400, None, True)
    link = node.get(name)
    assert link is not None
    assert link.name == name
    assert node.apply(back(done)) == set()
    assert kernel() == before


def test_every_kind_is_made_and_taken_back(node: Links) -> None:
    before = kernel()

    assert node.apply(changes()) == set()

    after = kernel()
    assert after["link"]["tap0"] == ("fe:00:00:00:00:01", 1400, "br0", True)
    ours = [one for one in itertools.chain(*after["rule"]) if one.get("protocol") == "static"]
    assert [(one["iif"], one["table"], one["priority"]) for one in ours] == [
        ("tap0", "100", 20000),
        ("tap0", "4294967295", 20002),
    ]
    assert [
        (one["family"], one["dst"], one["table"], one.get("gateway"), one["dev"], one.get("scope"))
        for one in after["route"]
        if one["protocol"] == "static"
    ] == [
        ("-4", "default", "100", None, "br0", "link"),
        ("-4", "198.51.100.3", "100", None, "tap0", "link"),
        ("-4", "198.51.100.128/25", "1000", "192.0.2.9", "br0", "global"),
        ("-6", "2001:db8::3", "100", None, "tap0", "global"),
        ("-6", "default", "100", None, "br0", "global"),
    ]
    proxied = asked("-4 neigh show proxy") + asked("-6 neigh show proxy")
    assert {(one["dst"], one["dev"]) for one in proxied} == {
        ("198.51.100.3", "br0"),
        ("198.51.100.99", "br0"),
        ("2001:db8::3", "br0"),
    }

    assert node.apply(back(changes())) == set()
    assert kernel() == before


def test_neighbours_are_proxied_for_through_a_loss_of_carrier(node: Links) -> None:
    ip("link set tap0 up", "link set wire0 up")
    wait_for_state("tap0", "UP")
    added = [change("neighbour", "tap0", one, True) for one in ("198.51.100.3", "2001:db8::3")]
    items = {one.item.key: True for one in added}
    node.apply(added)
    ip("link set wire0 down")
    wait_for_state("tap0", "LOWERLAYERDOWN")
    assert listed_as(node, [one.item for one in added]) == items


def wait_for_state(name: str, state: str) -> None:
    """The kernel deals with a change of carrier some time after it."""
    deadline = time.monotonic() + 60
    while asked(f"link show {name}")[0]["operstate"] != state:
        assert time.monotonic() < deadline, asked(f"link show {name}")


def test_what_is_read(node: Links) -> None:
    node.apply(changes())
    items = [one.item for one in changes()]
    gone = [Item("link", "tap9", "mtu", 1400), Item("neighbour", "tap9", "198.51.100.3", True)]
    lost = Item("rule", "tap9", "inet 100 20000", True)

    wanted = {item.key: item.value for item in items}
    assert listed_as(node, [*items, *gone, lost]) == wanted | {lost.key: None}
    links = {key: value for key, value in wanted.items() if key[0] == "link"}
    assert node.read([*items, *gone, lost]) == links, "the others are not asked for"

    node.apply(back(changes()))
    assert listed_as(node, items) == {one.item.key: one.before for one in changes()}


def test_a_rule_of_others_is_seen_but_only_where_it_is_the_same(node: Links) -> None:
    ip(
        "rule add iif tap0 from 192.0.2.0/24 lookup 100 priority 30000",
        "rule add not iif tap0 lookup 100 priority 30001",
        "rule add iif tap0 lookup 100 priority 30002 suppress_prefixlength 0",
        "rule add iif tap0 lookup 100 priority 30003 fwmark 1",
        "rule add iif tap0 priority 30004 blackhole",
        "rule add iif tap0 lookup 100 priority 30005",
    )
    items = [Item("rule", "tap0", f"inet 100 {30000 + number}", True) for number in range(6)]
    assert list(listed_as(node, items).values()) == [None] * 5 + [True]


def test_a_failure_at_any_position_leaves_the_kernel_as_before(node: Links) -> None:
    before = kernel()
    for position in range(len(WIRED) + 1):
        wrong = changes()
        wrong.insert(position, change("link", "wire0", "mtu", 1 << 20, 1500))

        with pytest.raises(NetworkError, match=r"wire0: mtu cannot be set to 1048576: .*driver"):
            node.apply(wrong)

        assert kernel() == before, f"wrong at {position}"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (("link", "tap9", "up", True), "tap9 does not exist"),
        (("link", "tap0", "master", "br9"), "br9 does not exist"),
        (("link", "tap0", "master", "wire0"), "tap0: master cannot be set to wire0"),
        (("link", "tap0", "address", "01:00:00:00:00:01"), "tap0: address cannot be set to 01"),
        (("route", "203.0.113.1/32", "100", "dev tap9"), "tap9 does not exist"),
        (("route", "203.0.113.1/24", "100", "dev br0"), "host bits"),
        (("route", "203.0.113.1", "100", "dev br0"), "'203.0.113.1' is not the prefix"),
        (("route", "203.0.113.1/32", "vms", "dev br0"), "'vms' is not the number"),
        (("route", "203.0.113.1/32", "100", "br0"), "'br0' is not where"),
        (("route", "203.0.113.1/32", "100", "via 203.0.113.7 dev br0"), "gateway"),
        (("route", "203.0.113.1/32", "100", "via 2001:db8::1 dev br0"), "is malformed"),
        (("rule", "tap0", "inet 100", True), "FAMILY TABLE PRIORITY"),
        (("rule", "tap0", "ipx 100 20000", True), "FAMILY TABLE PRIORITY"),
        (("rule", "tap0", "inet 4294967296 20000", True), "'4294967296' is not"),
        (("neighbour", "br0", "198.51.100", True), "'198.51.100' is not an IP address"),
        (("link", "tap0", "address", "none"), "tap0 address none is malformed"),
        (("neighbour", "tap9", "198.51.100.3", True), "tap9 does not exist"),
    ],
)
def test_what_is_wrong_is_named_and_leaves_the_kernel_as_before(
    node: Links, wrong: tuple[str, str, str, Value], said: str
) -> None:
    before = kernel()
    with pytest.raises(NetworkError, match=said):
        node.apply([*changes()[4:6], change(*wrong)])
    assert kernel() == before


def test_a_failure_names_the_first_of_those_that_depend_on_each_other(node: Links) -> None:
    before = kernel()
    wrong = [one for one in changes() if one.item.attribute != "up"]
    with pytest.raises(NetworkError, match=r"198.51.100.3/32 .*must be up"):
        node.apply(wrong)
    assert kernel() == before


def test_a_duplicate_address_is_named_with_what_holds_it(node: Links) -> None:
    node.apply(changes())
    before = kernel()
    ip("link set wire0 up")
    for prefix, holder in (
        ("198.51.100.3/32", "tap0"),
        ("2001:db8::3/128", "tap0"),
        ("203.0.113.9/32", "blackhole"),
        ("198.51.100.128/25", "via 192.0.2.9 dev br0"),
    ):
        table = "1000" if "/25" in prefix else "100"
        added = [
            change("rule", "wire0", "inet 100 20000", True),
            change("route", prefix, table, "dev wire0"),
        ]
        said = f"{prefix} of table {table} already goes to {holder} "
        with pytest.raises(NetworkError) as caught:
            node.apply(added)
        assert str(caught.value).startswith(said)
        assert kernel() == before


def test_what_is_there_already_is_reported_and_outlives_a_failure(node: Links) -> None:
    there = [
        change("rule", "tap0", "inet 100 20000", True),
        change("route", "203.0.113.8/32", "100", "dev br0"),
        change("neighbour", "br0", "198.51.100.99", True),
    ]
    ip("rule add iif tap0 lookup 100 priority 20000 protocol static")
    before = kernel()

    assert set(node.apply(there)) == {one.item.key for one in there}
    assert kernel() == before

    with pytest.raises(NetworkError):
        node.apply([*there, change("link", "wire0", "mtu", 1 << 20, 1500)])
    assert kernel() == before


def test_the_like_of_others_is_left(node: Links) -> None:
    """Of the route and the rules: ip(8)'s are of another protocol (``boot``)."""
    before = kernel()
    taken = [
        change("route", "203.0.113.8/32", "100", None, "dev br0"),
        change("rule", "tap0", "inet6 100 20000", None, True),
        change("rule", "tap0", "inet 100 20001", None, True),
        change("route", "203.0.113.9/32", "100", None, "dev br0"),
        change("route", "198.51.100.3/32", "101", None, "dev tap0"),
    ]
    assert node.apply(taken) == set()
    assert kernel() == before


def test_what_is_gone_is_taken_back(node: Links) -> None:
    node.apply(changes())
    ip("link del wire0", "rule del iif tap0 lookup 100 priority 20000", "link del br0")
    with Links() as later:
        for links in (node, later):
            whole = [one for one in back(changes()) if one.item.kind != "link"]
            assert links.apply([*whole, change("link", "tap0", "master", None, "br0")]) == set()
    assert not [one for one in kernel()["route"] if one.get("protocol") == "static"]


def test_what_was_lost_is_made_again_and_unmade_by_a_failure(node: Links) -> None:
    node.apply(changes())
    ensured = [Change(one.item, one.item.value) for one in changes() if one.item.kind != "link"]
    whole = kernel()
    assert set(node.apply(ensured)) == {one.item.key for one in ensured}
    assert kernel() == whole

    ip(
        "rule del iif tap0 lookup 100 priority 20000 protocol static",
        "route del 198.51.100.3/32 table 100",
        "neighbour del proxy 2001:db8::3 dev br0",
    )
    lacking = kernel()
    assert lacking != whole
    with pytest.raises(NetworkError):
        node.apply([*ensured, change("link", "wire0", "mtu", 1 << 20, 1500)])
    assert kernel() == lacking

    assert len(node.apply(ensured)) == len(ensured) - 3
    assert kernel()["neighbour"] == whole["neighbour"]
    assert sorted(map(str, kernel()["route"])) == sorted(map(str, whole["route"]))
    assert sorted(map(str, kernel()["rule"][0])) == sorted(map(str, whole["rule"][0]))


def test_a_route_moves_or_stays(node: Links) -> None:
    node.apply(changes())
    before = kernel()
    moved = change("route", "198.51.100.3/32", "100", "via 192.0.2.7 dev br0", "dev tap0")

    with pytest.raises(NetworkError):
        node.apply([moved, change("link", "wire0", "mtu", 1 << 20, 1500)])
    assert sorted(map(str, kernel()["route"])) == sorted(map(str, before["route"]))

    node.apply([moved])
    assert listed_as(node, [moved.item]) == {moved.item.key: "via 192.0.2.7 dev br0"}
    assert node.apply([moved.reversed]) == set()
    assert kernel() == before

    unreachable = moved._replace(
        item=Item("route", *moved.item.key[1:], "via 203.0.113.7 dev wire0")
    )
    with pytest.raises(NetworkError, match="reachable"):
        node.apply([unreachable])
    assert kernel() == before, "taken away, and put back"


def test_a_failure_while_taking_back_restores_in_the_reverse_order(node: Links) -> None:
    node.apply(changes())
    before = kernel()
    with pytest.raises(NetworkError):
        node.apply([*back(changes()), change("link", "wire0", "mtu", 1 << 20, 1500)])
    after = kernel()
    for found in (before, after):
        found["route"] = sorted(map(str, found["route"]))
    assert after == before, "a route needs its interface up again before it"


def test_what_cannot_be_taken_back_hides_neither_the_failure_nor_keeps_the_rest(
    node: Links, caplog: pytest.LogCaptureFixture
) -> None:
    before = kernel()
    wrong = change("link", "wire0", "mtu", 1 << 20, 1500)
    lies = [
        change("link", "tap0", "mtu", 1400, 1 << 20),
        change("route", "198.51.100.4/32", "100", None, "dev br0"),
        change("link", "br0", "master", None, "br9"),
    ]
    ip("route add 198.51.100.4/32 dev br0 table 100 protocol static")
    with pytest.raises(NetworkError, match="wire0"):
        node.apply([*changes()[2:], *lies, wrong])

    assert [record.getMessage().split(" (")[0] for record in caplog.records] == [
        "cannot be taken back: br9 does not exist",
        "cannot be taken back: tap0: mtu cannot be set to 1048576: Invalid argument",
    ]
    ip("link set tap0 mtu 1500", "route del 198.51.100.4/32 table 100")
    assert kernel() == before


def test_an_interface_that_is_made_anew_is_another(node: Links) -> None:
    node.get("tap0")
    ip("link del tap0")
    with pytest.raises(NetworkError, match="disappeared"):
        node.apply([change("link", "tap0", "mtu", 1400, 1500)])
    assert node.get("tap0") is None
    with pytest.raises(NetworkError, match="tap0 does not exist"):
        node.apply([change("link", "tap0", "mtu", 1400, 1500)])
    ip("link add tap0 type bridge")
    assert node.apply([change("link", "tap0", "mtu", 1400, 1500)]) == set()
    assert kernel()["link"]["tap0"][1] == 1400


def test_a_thousand_links(node: Links) -> None:
    ip(
        *(
            f"link add a{number} mtu {1000 + number} type veth peer name b{number}"
            for number in range(500)
        )
    )
    listed = asked("link show")
    items = [Item("link", one["ifname"], "mtu", 1) for one in listed]
    wanted = {item.key: one["mtu"] for item, one in zip(items, listed, strict=True)}
    assert len(wanted) > 1000
    assert node.read(items) == wanted
    numbers = {("link", one["ifname"], "index"): one["ifindex"] for one in listed}
    assert node.snapshot(items) == wanted | numbers

    # Many batches: what the first made is taken back where the last fails.
    many = [change("link", one["ifname"], "mtu", 1280, one["mtu"]) for one in listed[4:]]
    with pytest.raises(NetworkError, match="wire0"):
        node.apply([*many, change("link", "wire0", "mtu", 1 << 20, 1500)])
    assert node.read(items) == wanted
    node.apply(many)
    assert set(node.read([one.item for one in many]).values()) == {1280}


def test_lists_are_of_one_moment(node: Links) -> None:
    """Links come and go while they are listed; those that stay are in every list."""
    ip(*(f"link add a{number} type veth peer name b{number}" for number in range(100)))
    items = [Item("link", f"{end}{number}", "mtu", 1) for end in "ab" for number in range(100)]
    churn = "while :; do ip link add c0 type veth peer name d0; ip link del c0; done"
    with subprocess.Popen(["sh", "-c", churn]) as process:
        try:
            for _ in range(30):
                with contextlib.suppress(NetworkError):
                    assert len(listed_as(node, items)) == 200
        finally:
            process.kill()


def test_the_default_route_of_a_table(node: Links) -> None:
    assert [node.default_route(table, "inet") for table in (100, 999)] == [None, None]
    ip(
        "link set tap0 up",
        "route add default dev wire0 metric 7 table 100",
        "route add default dev tap0 metric 5 table 100",
        "route add default dev br0 metric 9 table 100",
        "-6 route add 2001:db8::/64 dev br0 table 100",
        "-6 route add default dev tap0 metric 9 table 100",
        "-6 route add default dev wire0 metric 5 table 100",
        "route add blackhole default table 200",
        "-6 route add blackhole default table 200",
    )
    assert node.default_route(100, "inet") == "tap0"
    assert node.default_route(100, "inet6") == "wire0"
    assert [node.default_route(200, family) for family in ("inet", "inet6")] == [None, None]
    assert node.default_route(4294967295, "inet6") is None


def test_a_route_of_a_worse_metric_counts_while_the_other_has_no_carrier(node: Links) -> None:
    """By which a guest is behind the one or the other of two interfaces (setup ``routed``)."""
    ip(
        "link set wire0 down",
        "link set tap0 up",
        "link add tap1 type veth peer name wire1",
        "link set wire1 up",
        "link set tap1 up",
    )
    for family in ("ipv4", "ipv6"):
        with open(f"/proc/sys/net/{family}/conf/tap0/ignore_routes_with_linkdown", "w") as file:
            file.write("1")
    routes = [
        change("route", prefix, place, f"dev {tap}")
        for prefix in ("198.51.100.3/32", "2001:db8::3/128")
        for place, tap in (("254", "tap0"), ("254 2048", "tap1"))
    ]
    assert node.apply(routes) == set()
    assert node.apply(routes) == {one.item.key for one in routes}, "they are there already"
    items = [one.item for one in routes]
    assert listed_as(node, items) == {item.key: item.value for item in items}
    assert [way("198.51.100.3"), way("2001:db8::3")] == ["tap1", "tap1"]
    ip("link set wire0 up")
    wait_for_carrier("tap0")
    assert [way("198.51.100.3"), way("2001:db8::3")] == ["tap0", "tap0"]
    node.apply([one.reversed for one in routes[::2]])
    assert [way("198.51.100.3"), way("2001:db8::3")] == ["tap1", "tap1"]
    node.apply([one.reversed for one in routes[1::2]])
    assert listed_as(node, items) == {item.key: None for item in items}


def way(address: str) -> str:
    """The interface by which an address is reached."""
    done = subprocess.run(["ip", "-j", "route", "get", address], capture_output=True, check=True)
    return str(json.loads(done.stdout)[0]["dev"])


def wait_for_carrier(interface: str) -> None:
    """The kernel looks at it some time after it has come."""
    deadline = time.monotonic() + 10
    while (
        b'"operstate":"UP"'
        not in subprocess.run(
            ["ip", "-j", "link", "show", interface], capture_output=True, check=True
        ).stdout
    ):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_link_gets_another_name(node: Links) -> None:
    before = node.get("tap0")
    assert before
    node.rename("tap0", "web0")
    after = node.get("web0")
    assert after
    assert (after.index, node.get("tap0")) == (before.index, None)
    node.apply([change("link", "web0", "mtu", 1400, 1500)])
    for name, reason in (("br0", "another interface has that name"), ("a/b", "")):
        with pytest.raises(NetworkError, match=f"^web0 cannot be called {name}: .*{reason}"):
            node.rename("web0", name)
    node.rename("web0", "tap0")
    assert node.get("tap0") == replace(before, mtu=1400)


@pytest.mark.kernel("vlan-filtering")
def test_the_vlans_of_a_port(node: Links) -> None:
    ip(
        "link set br0 type bridge vlan_filtering 1",
        "link add br1 type bridge vlan_filtering 1 vlan_default_pvid 7",
        "link set wire0 master br1",
    )
    bridge = node.get("br0")
    assert bridge is not None
    assert bridge.vlan_aware
    before = kernel()
    joins = change("link", "tap0", "master", "br0")
    vlans = change("link", "tap0", "vlans", "untagged 100 tagged 200,300,301")

    assert listed_as(node, [vlans.item]) == {vlans.item.key: None}
    assert node.apply([joins, vlans]) == set()
    assert ports() == {
        "tap0": [(100, ["PVID", "Egress Untagged"]), (200, []), (300, []), (301, [])],
        "wire0": [(7, ["PVID", "Egress Untagged"])],
    }
    assert listed_as(node, [vlans.item]) == {vlans.item.key: vlans.item.value}

    # Again: nothing is touched. Others: only what differs.
    assert node.apply([change(*vlans.item.key, vlans.item.value, vlans.item.value)]) == {
        vlans.item.key
    }
    other = change("link", "tap0", "vlans", "untagged 200 tagged 100", vlans.item.value)
    wrong = change("link", "wire0", "mtu", 1 << 20, 1500)
    with pytest.raises(NetworkError):
        node.apply([other, wrong])
    assert listed_as(node, [vlans.item]) == {vlans.item.key: vlans.item.value}
    assert node.apply([other]) == set()
    assert ports()["tap0"] == [(100, []), (200, ["PVID", "Egress Untagged"])]

    assert node.apply([vlans.reversed, joins.reversed]) == set()
    assert "tap0" not in ports()
    assert kernel() == before

    with pytest.raises(NetworkError):
        node.apply([joins, vlans, wrong])
    assert "tap0" not in ports()
    for words in ("untagged 0", "untagged 4095", "tagged", "100", "tagged 1,x", "untagged 1 2"):
        with pytest.raises(NetworkError, match=r"tap0: vlans cannot|are not the VLANs"):
            node.apply([joins, change("link", "tap0", "vlans", words)])
        assert "tap0" not in ports()
    with pytest.raises(NetworkError, match="tap0: vlans cannot be set"):
        node.apply([vlans])  # of no bridge


@pytest.mark.kernel("vlan-filtering")
def test_vlans_that_others_set_are_put_back(node: Links) -> None:
    ip("link set br0 type bridge vlan_filtering 1", "link set tap0 master br0")
    subprocess.run(
        "bridge vlan add dev tap0 vid 5 pvid; bridge vlan add dev tap0 vid 6 untagged; "
        "bridge vlan add dev tap0 vid 10-14",
        shell=True,
        check=True,
    )
    before = ports()
    wrong = change("link", "wire0", "mtu", 1 << 20, 1500)
    with pytest.raises(NetworkError):
        node.apply([change("link", "tap0", "vlans", "untagged 100"), wrong])
    assert ports() == before
    assert listed_as(node, [Item("link", "tap0", "vlans", "untagged 1")]) == {
        ("link", "tap0", "vlans"): "tagged 10,11,12,13,14 pvid 5 egress 1,6"
    }


def test_vlans_that_the_kernel_cannot_do_are_refused(node: Links) -> None:
    """Directly for want of the ability, in the machine since tap0 is of no bridge."""
    before = kernel()
    vlans = change("link", "tap0", "vlans", "untagged 100")
    with pytest.raises(NetworkError, match=r"tap0: vlans cannot be set to untagged 100: "):
        node.apply([vlans])
    assert kernel() == before
    assert node.apply([vlans.reversed]) == set()


def ports() -> dict[str, list[tuple[int, list[str]]]]:
    """The VLANs of all ports but the bridges themselves, as bridge(8) has them."""
    done = subprocess.run(
        ["bridge", "-json", "-compressvlans", "vlan"], check=True, capture_output=True
    )
    found = {}
    for port in json.loads(done.stdout or b"[]"):
        if port["ifname"].startswith("br"):
            continue
        found[port["ifname"]] = [
            (number, one.get("flags", []))
            for one in port["vlans"]
            for number in range(one["vlan"], one.get("vlanEnd", one["vlan"]) + 1)
        ]
    return found


def test_answers_to_what_was_interrupted_are_passed_over(node: Links) -> None:
    netlink = Netlink()
    request = (40).to_bytes(4, "little") + bytes.fromhex("1200 0500 00000000 00000000")
    body = bytes(16) + bytes.fromhex("0800 0300 6c6f0000")  # RTM_GETLINK of lo
    netlink._sequence += 1
    netlink._socket.send(request + body)  # and nothing is read
    tap = bytes.fromhex("0900 0300 7461703000 000000")
    asked_for = (44).to_bytes(4, "little") + request[4:] + bytes(16) + tap
    [answer] = netlink.exchange([asked_for])
    assert answer.error == 0
    assert b"tap0\0" in answer.replies[0].body
    netlink.close()
    assert node.get("lo") is not None


def test_pyroute2_is_imported_narrowly_and_whole_for_others() -> None:
    program = """
import sys
import time
from snf_core.network.links import Links
with Links() as links:
    assert links.get("lo").index == 1
assert not [name for name in sys.modules if name.startswith("pyroute2")]
import pyroute2
from pyroute2.netlink.rtnl import ifinfmsg
assert pyroute2.netlink.rtnl.ifinfmsg is ifinfmsg
with pyroute2.IPRoute() as route:
    assert route.link_lookup(ifname="lo") == [1]
with Links() as links:
    assert links.get("lo").index == 1
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_pyroute2_that_is_imported_already_is_used() -> None:
    program = """
import pyroute2, sys
before = set(sys.modules)
from snf_core.network.links import Links
with Links() as links:
    assert links.get("lo").index == 1
assert sys.modules["pyroute2"] is pyroute2
assert {name for name in before if name.startswith("pyroute2")} <= set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True)
