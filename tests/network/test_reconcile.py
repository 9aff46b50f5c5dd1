"""``snf network reconcile``: whatever has happened to the kernel, or to what is kept."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from snf_core.network.reconcile import TOGETHER
from tests.network import nics, packets
from tests.network.nics import ALL, FILTERED, PROTECTED
from tests.network.subnet import GATEWAY6, IP, IP6, TABLE
from tests.network.traffic import MARKER, VICTIM, ethernet

if TYPE_CHECKING:
    from tests.network.host import Host

BOOT = "00000000-0000-4000-8000-000000000000"

LACKING = {
    "nft delete element bridge snf filtered_macs { tap1 . aa:00:10:38:54:01 }": 1,
    f"nft delete element inet snf routed_sources4 {{ tap4 . {IP} }}": 1,
    "nft delete element inet snf nics { tap2 }": 1,
    "nft delete element bridge snf filtered_prefixes6 "
    "{ tap2 . 0xfe800000000000000000000000000000 }": 1,
    "nft delete element arp snf routed_senders { tap4 }; "
    "add element arp snf routed_senders { tap4 : 198.51.100.99 }": 1,
    f"nft delete element inet snf masquerade_sources {{ up0 . {IP} }}": 1,
    "nft flush set bridge snf filtered_pairs6": 6,
    "nft flush map inet snf firewall_profiles": 1,
    "nft delete element inet snf routed_uplinks { up0 }": 1,
}
"""What somebody takes out of our sets, and how many elements that are."""
ADDED = {
    "nft add element bridge snf filtered_macs { tap1 . aa:00:10:00:00:99 }": "tap1",
    "nft add element bridge snf filtered_interfaces { nobody0 }": "nobody0",
    "nft add element inet snf masquerade_sources { up0 . 198.51.100.66 }": "up0",
    "nft add element inet snf firewall_profiles { nobody1 : accept }": "nobody1",
}
"""What somebody adds, and to whom."""
CHAINS = {
    "emptied": "nft flush chain bridge snf {bridge}",
    "opened": "nft insert rule bridge snf {bridge} accept",
    "opened for one": 'nft insert rule inet snf {inet} iifname "tap4" accept',
    "another": "nft add chain inet snf nobodys",
    "table of bridges": "nft delete table bridge snf",
    "table of ARP": "nft delete table arp snf",
    "table of the markers": "nft delete table inet snf",
}
KERNEL = {
    "settings of ports": (
        "link set tap0 mtu 1280",
        "link set tap1 nomaster",
        "link set tap2 down",
        "link set tap2 address 02:00:00:00:00:66 up",
        "link set tap2 type bridge_slave group_fwd_mask 0",
        "link set tap3 master br1",
    ),
    "down": ("link set tap0 down", "link set tap1 down nomaster", "link set tap4 down"),
    "a guest's own": (
        f"route delete {IP}/32 table {TABLE}",
        f"-6 route delete {IP6}/128 table {TABLE}",
        f"rule delete iif tap4 lookup {TABLE}",
        f"-6 rule delete iif tap4 lookup {TABLE}",
        f"neigh delete proxy {IP} dev up0",
        f"-6 neigh delete proxy {IP6} dev up0",
        f"-6 neigh delete proxy {GATEWAY6} dev tap4",
    ),
    "an uplink's own": (
        f"route delete default table {TABLE}",
        f"-6 route flush table {TABLE}",
        f"rule delete iif up0 lookup {TABLE}",
        f"-6 rule delete iif up0 lookup {TABLE}",
    ),
    "uplink down": ("link set up0 down",),
}
SETTINGS = {
    "net/ipv6/conf/tap1/disable_ipv6": "0",
    "net/ipv4/conf/tap4/rp_filter": "0",
    "net/ipv4/conf/tap4/forwarding": "0",
    "net/ipv6/conf/tap4/accept_ra": "2",
    "net/ipv4/conf/up0/proxy_arp": "1",
    "net/ipv4/conf/up0/forwarding": "0",
    "net/ipv6/conf/all/forwarding": "0",
}


@pytest.fixture
def node(host: Host) -> Host:
    """A node with an uplink and a NIC of each kind, all of them wired."""
    nics.prepare(host, ["tap1", "tap2", "tap3", "tap4"])
    nics.wire(host, ALL)
    return host


def harm(node: Host, *commands: str) -> None:
    """What a careless hand does."""
    for command in commands:
        if command.startswith("nft "):
            node.nft(command.removeprefix("nft "))
        else:
            node.ip(command)


def mended(node: Host, *commands: str) -> list[str]:
    """What is found after that; what reconcile finds of it, it repairs, and all is as it was."""
    state, rules = nics.state(node), nics.rules(node)
    harm(node, *commands)
    said = nics.untouched(node, lambda: nics.check(node))
    assert said, "nothing is wrong"
    found = nics.reconciled(node)
    assert {line.removesuffix("; repaired") for line in found} <= {*said}
    assert nics.state(node) == state
    assert nics.rules(node) == rules
    assert nics.check(node) == []
    return said


def base_chain(node: Host, family: str) -> str:
    """The name of a chain of ours that has a rule and a hook."""
    entries = node.nft(f"list table {family} snf")
    ruled = {one["rule"]["chain"] for one in entries if "rule" in one}
    chains = [one["chain"] for one in entries if "chain" in one]
    return str(next(one["name"] for one in chains if "hook" in one and one["name"] in ruled))


def documents(node: Host) -> dict[str, Any]:
    """By the names of their interfaces."""
    return {
        path.stem: json.loads(path.read_text()) for path in sorted(node.documents.glob("*.json"))
    }


# What has been changed by hand


def test_nothing_is_wrong(node: Host) -> None:
    assert nics.untouched(node, lambda: nics.check(node)) == []
    assert nics.untouched(node, lambda: nics.reconciled(node)) == []


def test_a_node_without_nics(host: Host) -> None:
    assert nics.untouched(host, lambda: nics.reconciled(host)) == []
    assert nics.check(host) == []
    assert not [one for one in host.nft() if one.get("table", {}).get("name") == "snf"]


def test_a_flushed_ruleset(node: Host) -> None:
    state, rules = nics.state(node), nics.rules(node)
    nics.flush(node)
    found = nics.check(node)
    named = {line.split(" of ")[1].split(" ")[0] for line in found if " rules of " in line}
    assert {"base", "filtered-bridged", "routed-routed", "masquerade-routed"} <= named
    nics.reconciled(node)
    assert nics.state(node) == state
    assert nics.rules(node) == rules
    assert nics.check(node) == []


def test_changed_rules(node: Host) -> None:
    for name, damage in CHAINS.items():
        chains = {family: base_chain(node, family) for family in ("bridge", "inet")}
        [first, *_] = mended(node, damage.format(**chains))
        assert first.startswith("the nftables rules of "), name


def test_a_filter_works_again(node: Host) -> None:
    guest, wire = node.guest("tap1"), node.peer("wire0")
    forged = bytes(ethernet(source=VICTIM)) + b"forged"
    marker = MARKER.replace(bytes.fromhex("aa0010385425"), bytes.fromhex("aa0010385401"))

    def passes() -> bool:
        return bool(packets.passed(guest, wire, [forged], marker))

    assert not passes()
    harm(node, f"nft flush chain bridge snf {base_chain(node, 'bridge')}")
    nics.lose(node)
    assert passes()
    nics.reconciled(node)
    assert not passes()


def test_what_is_missing_in_nftables(node: Host) -> None:
    found = mended(node, *LACKING)
    assert len(found) == sum(LACKING.values())
    assert all(" element " in line for line in found)
    assert "tap4: element arp routed_senders tap4 198.51.100.1, but is 198.51.100.99" in found


def test_what_is_in_nftables_for_nothing(node: Host) -> None:
    found = mended(node, *ADDED)
    assert {*found} == {f"{name}: an element in nftables for nothing" for name in ADDED.values()}


@pytest.mark.parametrize("damage", KERNEL.values(), ids=KERNEL)
def test_changed_links_and_routes(node: Host, damage: tuple[str, ...]) -> None:
    node.ip("link add br1 address 02:00:00:00:00:b1 type bridge")
    assert len(mended(node, *damage)) >= len(damage)


def test_changed_settings(node: Host) -> None:
    state = nics.state(node)
    for path, value in SETTINGS.items():
        assert node.sysctl(path) != value
        node.sysctl(path, value)
    found = nics.check(node)
    assert all(any(f" {path} " in line for line in found) for path in SETTINGS), found
    nics.reconciled(node)
    assert nics.state(node) == state
    assert nics.check(node) == []


def test_all_at_once(node: Host) -> None:
    ours = KERNEL["a guest's own"] + KERNEL["an uplink's own"]
    mended(node, *LACKING, *ADDED, *ours, "link set tap1 mtu 1280", "link set tap2 nomaster")


def test_what_cannot_be_repaired(node: Host) -> None:
    """Whatever else can be is."""
    state = nics.state(node)
    node.ip("link delete br0", f"neigh delete proxy {IP} dev up0")
    (node.documents / "tap2.json").unlink()
    status, output, errors = node.snf("reconcile")
    assert (status, errors) == (1, "")
    lines = output.splitlines()
    lines.remove("tap2: the state document of a NIC was lost: take it down and up again")
    assert [line for line in lines if line.endswith("; repaired")] == [
        f"tap4: neighbour up0 {IP} yes, but is absent; repaired"
    ]
    failed = [line for line in lines if "; not repaired: br0 does not exist" in line]
    assert {line.split(":")[0] for line in failed} == {"tap0", "tap1", "tap3"}
    assert len(failed) == len(lines) - 1
    node.ip("link add br0 type bridge", "link set br0 mtu 1400 up", "link set veth0 master br0")
    nics.wire(node, ALL[2:3])
    nics.reconciled(node)
    assert nics.without_addresses(nics.state(node)) == nics.without_addresses(state)


def test_a_prefix_that_somebody_has_taken(node: Host) -> None:
    node.ip(f"route replace {IP}/32 dev br0 table {TABLE}")
    taken = node.routes(TABLE)
    status, output, errors = node.snf("reconcile")
    assert (status, errors) == (1, "")
    assert f"not repaired: {IP}/32 of table {TABLE} already goes to br0" in output
    assert node.routes(TABLE) == taken
    node.ip(f"route delete {IP}/32 table {TABLE}")
    nics.reconciled(node)
    assert nics.check(node) == []


# What is gone, or half there


@pytest.mark.parametrize("gone", [["tap1"], ["tap4"], [f"tap{number}" for number in range(5)]])
def test_vanished_taps(node: Host, gone: list[str]) -> None:
    state = nics.state(node)
    node.ip(*(f"link delete {tap}" for tap in gone))
    assert [line.split(":")[0] for line in nics.check(node)] == gone
    assert nics.reconciled(node) == [f"{tap}: it is gone; repaired" for tap in gone]
    text = json.dumps([nics.state(node)[kind] for kind in ("nftables", "rules", "proxies")])
    assert not [tap for tap in gone if f'"{tap}' in text.replace("\\", "") and tap != "tap0"]
    assert not {f"{tap}.json" for tap in gone} & {*node.left()}

    # What the others have is there as before, and the same again makes all of it again.
    node.ip(*(f"tuntap add dev {tap} mode tap" for tap in gone))
    nics.wire(node, [nic for nic in ALL if nic["INTERFACE"] in gone])
    assert nics.state(node) == state


def test_vanished_taps_leave_nothing_at_all(host: Host) -> None:
    nics.prepare(host, ["tap1", "tap2", "tap3", "tap4"])
    before = nics.state(host)
    taps = [*(f"tap{number}" for number in range(5))]
    nics.wire(host, ALL)
    host.ip(*(f"link delete {tap}" for tap in taps))
    nics.reconciled(host)
    host.ip(*(f"tuntap add dev {tap} mode tap" for tap in taps))
    assert nics.without_addresses(nics.state(host)) == nics.without_addresses(before)
    assert host.left() == ["up0.json"]


def test_more_vanished_taps_than_are_looked_at_together(host: Host) -> None:
    nics.prepare(host)
    before = nics.state(host)
    taps = [f"vm{number:03}" for number in range(TOGETHER + 10)]
    host.ip(*(f"tuntap add dev {tap} mode tap" for tap in taps))
    routed = [number for number in range(len(taps)) if number % 10 == 9]
    events = [{"INTERFACE": tap, "MAC": f"aa:00:01:00:00:{n:02x}"} for n, tap in enumerate(taps)]
    for number in routed:
        events[number] = PROTECTED | events[number] | {"IP": f"198.51.100.{number + 20}"}
    nics.wire(host, events)
    assert len(host.rules()) == len(before["rules"]) + 2 * len(routed)
    host.ip(*(f"link delete {tap}" for tap in taps))
    assert nics.reconciled(host) == [f"{tap}: it is gone; repaired" for tap in taps]
    assert nics.state(host) == before
    assert host.left() == ["up0.json"]
    assert nics.check(host) == []


def test_half_done_ones(host: Host) -> None:
    """Three events that were killed at different steps; one of the taps is gone."""
    nics.prepare(host, ["tap1", "tap2", "tap4"])
    nics.wire(host, ALL[:3])
    nics.unwire(host, ["tap0", "tap1", "tap2"])
    nics.wire(host, ALL[:1])
    before = nics.state(host)
    for step, nic in (("links 2", FILTERED), ("links 0", ALL[2]), ("links 9", PROTECTED)):
        status, name, _ = host.interrupted("kill", step, "up", **nic)
        assert (status, name) == (-9, step)
    host.ip("link delete tap4")
    assert nics.check(host) == [
        "tap1: an event did not end",
        "tap2: an event did not end",
        "tap4: it is gone",
    ]
    assert len(nics.reconciled(host)) == 3
    host.ip("tuntap add dev tap4 mode tap")
    assert nics.without_addresses(nics.state(host)) == nics.without_addresses(before)
    assert nics.check(host) == []


def test_a_tap_made_anew(node: Host) -> None:
    """Of the same name and another instance's; the hypervisor has said nothing of either."""
    node.ip("link delete tap1", "tuntap add dev tap1 mode tap")
    fresh = node.links()["tap1"]
    assert nics.reconciled(node) == ["tap1: it is gone; repaired"]
    assert node.links()["tap1"] == fresh
    assert "tap1.json" not in node.left()
    assert '"tap1"' not in json.dumps(nics.state(node)["nftables"]).replace("\\", "")
    assert nics.check(node) == []


# What is kept


def test_an_emptied_directory(node: Host) -> None:
    state = nics.state(node)
    shutil.rmtree(node.documents)
    lost = "the state document of a NIC was lost: take it down and up again"
    everything = sorted([*(f"tap{number}" for number in range(5)), "up0"])
    assert nics.check(node) == [f"{name}: {lost}" for name in everything]
    status, output, errors = node.snf("reconcile")
    assert (status, errors) == (1, "")
    assert output.splitlines() == [f"{name}: {lost}" for name in everything]
    assert nics.state(node) == state, "filters are kept"

    nics.wire(node, [FILTERED])
    assert nics.state(node) == state
    assert [line.split(":")[0] for line in nics.check(node)] == [
        name for name in everything if name != "tap1"
    ]
    assert node.snf("uplink", "up") == (0, "", "")
    nics.wire(node, ALL)
    assert nics.state(node) == state
    assert nics.reconciled(node) == []

    node.ip(*(f"link delete tap{number}" for number in range(5)))
    nics.reconciled(node)
    left = json.dumps([nics.state(node)[kind] for kind in ("nftables", "rules", "proxies")])
    assert '"tap4' not in left.replace("\\", "")
    assert IP not in left
    assert IP6 not in left


def test_an_emptied_directory_and_other_addresses(node: Host) -> None:
    """What another instance's NIC, of the same name, must not keep of the one before."""
    shutil.rmtree(node.documents)
    other = {**FILTERED, "MAC": "aa:00:10:38:54:99", "IP": "10.0.0.99", "NETWORK_SUBNET6": ""}
    other["NETWORK_GATEWAY6"] = ""
    nics.wire(node, [other])
    text = json.dumps(nics.state(node)["nftables"])
    assert "10.0.0.99" in text
    assert "10.0.0.5" not in text
    assert "aa:00:10:38:54:01" not in text


@pytest.mark.parametrize("content", ["", '{"version": 1}', "\x00\xff", '{"version": 2}'])
def test_a_corrupt_document_of_a_nic(node: Host, content: str) -> None:
    state = nics.state(node)
    (node.documents / "tap1.json").write_text(content)
    [first, *_] = nics.check(node)
    assert first.startswith("tap1: the state document ")
    status, output, _ = node.snf("reconcile")
    assert status == 1
    assert "not repaired: the next event of the NIC will do" in output
    assert nics.state(node) == state, "filters are kept"
    assert node.snf("up", **FILTERED)[0] == 0
    assert nics.state(node) == state
    assert nics.check(node) == []


def test_a_corrupt_document_of_a_tap_that_is_gone(node: Host) -> None:
    (node.documents / "tap1.json").write_text("{")
    node.ip("link delete tap1")
    assert all(line.startswith("tap1: ") for line in nics.check(node))
    nics.reconciled(node)
    assert '"tap1"' not in json.dumps(nics.state(node)["nftables"]).replace("\\", "")
    assert "tap1.json" not in node.left()
    assert nics.check(node) == []


def test_a_copy_of_a_document(node: Host) -> None:
    """Somebody's own: what it says is of another interface than its name."""
    state = nics.state(node)
    shutil.copy(node.documents / "tap1.json", node.documents / "tap1.old.json")
    [line] = nics.check(node)
    assert line.startswith("tap1.old: it is gone, and the state document ")
    nics.reconciled(node)
    assert nics.state(node) == state
    assert "tap1.json" in node.left()
    assert "tap1.old.json" not in node.left()


@pytest.mark.parametrize("again", [True, False], ids=["same taps", "no taps"])
def test_a_reboot(host: Host, again: bool) -> None:
    """Everything is gone from the kernel; the documents are not, where they are on a disk."""
    nics.prepare(host, ["tap1", "tap2", "tap3", "tap4"])
    nics.wire(host, ALL)
    old = documents(host)
    taps = [*(f"tap{number}" for number in range(5))]
    host.ip(*(f"link delete {tap}" for tap in taps))
    assert host.snf("uplink", "down") == (0, "", "")
    nics.reconciled(host)
    host.ip("link delete up0")
    nics.lose(host)
    (host.directory / "run/nftables.lock").unlink()
    for name, document in old.items():
        document["identity"]["boot"] = BOOT
        (host.documents / f"{name}.json").write_text(json.dumps(document))
    if again:
        host.ip(*(f"tuntap add dev {tap} mode tap" for tap in taps))
    before = nics.state(host)
    assert nics.check(host) == [f"{name}: it is gone" for name in sorted(old)]
    assert len(nics.reconciled(host)) == len(old)
    assert nics.state(host) == before
    assert host.left() == []
    assert nics.check(host) == []


def test_a_node_that_came_back_and_wires_before_it_looks(node: Host) -> None:
    """Documents of the last boot do not keep the same NICs from being wired."""
    state = nics.state(node)
    old = documents(node)
    node.ip(*(f"link delete tap{number}" for number in range(5)))
    nics.reconciled(node)
    for name, document in old.items():
        if name != "up0":
            document["identity"]["boot"] = BOOT
            (node.documents / f"{name}.json").write_text(json.dumps(document))
    node.ip(*(f"tuntap add dev tap{number} mode tap" for number in range(5)))
    nics.wire(node, ALL)
    assert nics.without_addresses(nics.state(node)) == nics.without_addresses(state)
    assert nics.check(node) == []


def test_documents_of_another_namespace(node: Host) -> None:
    """A node in a container, say, whose directory was handed on."""
    state = nics.state(node)
    for name, document in documents(node).items():
        document["identity"]["namespace"] += 1
        document["interface"] = f"{name}x"
        (node.documents / f"{name}x.json").write_text(json.dumps(document))
    assert len(nics.reconciled(node)) == len(ALL) + 1
    assert nics.state(node) == state
    assert nics.check(node) == []


# Uplinks


def test_an_uplink_that_is_gone(node: Host) -> None:
    node.ip("link delete up0")
    found = nics.check(node)
    assert "up0: it is gone" in found
    assert any(line.startswith("tap4: ") for line in found)
    status, output, errors = node.snf("reconcile")
    assert (status, errors) == (1, "")
    assert "up0: it is gone; repaired\n" in output
    assert "not repaired: up0 does not exist" in output
    assert [one for one in nics.check(node) if not one.startswith("tap4")] == []

    node.ip("link add up0 type veth peer name up1", "link set up1 up")
    assert node.snf("uplink", "up") == (0, "", "")
    nics.reconciled(node)
    assert nics.check(node) == []
    assert ("up0", IP) in node.proxies()


def test_what_an_uplink_and_its_nics_share(node: Host) -> None:
    """An uplink that is taken down, by its command, under a NIC."""
    state = nics.state(node)
    assert node.snf("uplink", "down") == (0, "", "")
    assert "up0.json" not in node.left()
    assert node.snf("uplink", "up") == (0, "", "")
    nics.reconciled(node)
    assert nics.state(node) == state
    assert nics.check(node) == []
