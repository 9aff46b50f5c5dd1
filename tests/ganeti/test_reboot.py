"""NICs on a real cluster when things go wrong: they cannot be wired, their guest dies, the node
reboots. What the kernel holds of them is compared with what it held before.

The guests are empty diskless machines: none needs to boot.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.ganeti import kernel, outside
from tests.ganeti.commands import each, failure, instances

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from tests.ganeti.cluster import Cluster
    from tests.ganeti.node import Node, Outcome

PATIENCE = 60
"""Seconds that a killed process may take to go: no figure of anything, only no endless wait."""

NETWORKS = {
    "bridged": (f"--network={outside.GUESTS}", "mode=bridged,link=br0"),
    "filtered": ("--network=198.18.0.0/24 --tags=filtered", "mode=bridged,link=br0"),
    "routed": (
        f"--network={outside.UPLINK} --gateway={outside.UPLINK_GATEWAY}"
        f" --network6={outside.UPLINK6} --gateway6={outside.UPLINK6_GATEWAY} --tags=ip-less-routed",
        "mode=routed,link=100",
    ),
}
"""What ``gnt-network add`` and ``connect`` get."""

GUESTS = {
    "web1": ("--net=0:network=bridged,ip=198.51.100.51", "--net=1:network=filtered,ip=198.18.0.51"),
    "web2": ("--net=0:network=routed,ip=203.0.113.52",),
    "web3": (
        *("--net=0:network=routed,ip=203.0.113.53", "--net=1:mode=bridged,link=br0"),
        "--tags=synnefo:network:0:limited",
    ),
}
"""Instances that run, each with what kinds of NICs: what ``gnt-instance add`` gets."""


def add(cluster: Cluster, name: str, words: Iterable[str]) -> Outcome:
    return cluster.run(
        *("gnt-instance", "add", "-t", "diskless", "-H", "kvm", "--no-install", "--no-start"),
        *("--no-name-check", "--no-ip-check", "-n", cluster.master.name, "-B", "memory=64"),
        *("-o", "snf-image+default", "-O", "img_id=null,img_format=diskdump"),
        *(*words, f"{name}.gnt.test"),
    )


def start(cluster: Cluster, *names: str, check: bool = True) -> Outcome:
    instance_names = [f"{name}.gnt.test" for name in names]
    words = ("gnt-instance", "start", "--force-multiple", *instance_names)
    return cluster.run(*words, check=check)


def wiring(node: Node) -> Any:
    """What the kernel holds of NICs, comparable between boots.

    A tap is called by whose it is, and interfaces of the node's, which get other MAC addresses at
    every boot, show none.
    """
    found = kernel.state(node)
    for name in found["links"].keys() - kernel.taps(found):
        del found["links"][name]["address"]
    names = {}
    for file in node.path("/run/snf/network").glob("tap*.json"):
        event = json.loads(file.read_text())["event"]
        names[file.stem] = f"{event['instance']}-{event['mac']}"
    return _called(found, names)


def _called(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {_called(key, names): _called(one, names) for key, one in value.items()}
    if isinstance(value, (list, set, tuple)):
        return sorted((_called(one, names) for one in value), key=repr)
    if isinstance(value, str):
        return re.sub(r"\btap[0-9]+\b", lambda found: names.get(found[0], found[0]), value)
    return value


def assert_wired(cluster: Cluster, wired: Any) -> None:
    """All guests run, and their NICs are what they were; there is nothing to reconcile."""
    node = cluster.master
    assert instances(cluster) == {f"{name}.gnt.test": "running" for name in GUESTS}
    assert node.snf("network", "reconcile", "--check", check=False).output == ""
    assert node.snf("network", "reconcile").output == ""
    assert wiring(node) == wired


@pytest.fixture(name="nothing", scope="module", autouse=True)
def _nothing(cluster: Cluster) -> Any:
    """The wiring when no guest runs and the uplink is not prepared."""
    for name, (addresses, link) in NETWORKS.items():
        cluster.run("gnt-network", "add", *addresses.split(), name)
        cluster.run("gnt-network", "connect", "-N", link, name)
    return wiring(cluster.master)


# -- NICs that cannot be wired -----------------------------------------------------------------


@dataclass(frozen=True)
class Bad:
    """An instance with a NIC that cannot be wired, and why, as it is to be shown."""

    words: tuple[str, ...]
    reason: str
    remedy: str


UPLINK = 'say "snf network uplink up", with a group [network.uplink.TABLE] in the configuration'
BAD = {
    "uplink": Bad(
        ("--net=0:network=routed,ip=203.0.113.90",),
        "TAP: routing table 100 has no IPv4 default route, by which 203.0.113.90 could be reached",
        UPLINK,
    ),
    "table": Bad(
        ("--net=0:mode=routed,link=999,ip=198.18.91.1",),
        "TAP: routing table 999 has no IPv4 default route, by which 198.18.91.1 could be reached",
        UPLINK,
    ),
    "vlan": Bad(
        ("--net=0:mode=bridged,link=br0,vlan=7",),
        "TAP: the NIC asks for VLANs (untagged 7), and the bridge br0 knows none",
        "make it VLAN-aware (ip link set br0 type bridge vlan_filtering 1 vlan_default_pvid 0), or "
        "use a bridge of that VLAN and leave the NIC's vlan empty",
    ),
    "switch": Bad(
        ("--net=0:mode=openvswitch,link=ovs0",),
        "the Open vSwitch bridge ovs0 does not exist on this node",
        "create it (ovs-vsctl add-br ovs0), or correct the NIC's link",
    ),
    "profile": Bad(
        ("--net=0:mode=bridged,link=br0", "--tags=synnefo:network:0:protcted"),
        "TAP: a tag of profile.gnt.test asks for the firewall profile 'protcted', which is not "
        "defined",
        "use one of protected, limited, unprotected, or define it by profile in "
        "[network.setup.firewall]",
    ),
}
START = (
    "Could not start instance '{}': Hypervisor error: Failed to configure interface b'TAP': "
    "exited with exit code 1; network configuration script output: "
)


@pytest.fixture(name="refused", scope="module")
def _refused(cluster: Cluster) -> dict[str, Outcome]:
    """How the start of each ended."""
    each(BAD, lambda name: add(cluster, name, BAD[name].words))
    return each(BAD, lambda name: start(cluster, name, check=False))


def assert_refused(outcome: Outcome, name: str, bad: Bad) -> None:
    shown = [re.sub(r"\btap[0-9]+\b", "TAP", line) for line in failure(outcome)]
    assert shown == [
        f"{START.format(f'{name}.gnt.test')}snf: error: {bad.reason}",
        f"snf: remedy: {bad.remedy}",
    ]


@pytest.mark.parametrize("name", BAD)
def test_start_refused(refused: dict[str, Outcome], name: str) -> None:
    assert_refused(refused[name], name, BAD[name])


def test_bridge_missing(cluster: Cluster, refused: dict[str, Outcome]) -> None:
    """Ganeti looks for bridges itself, before any script is run."""
    cluster.master.run("ip", "link", "add", "br7", "type", "bridge")
    add(cluster, "bridge", ["--net=0:mode=bridged,link=br7"])
    cluster.master.run("ip", "link", "delete", "br7")
    outcome = start(cluster, "bridge", check=False)
    assert outcome.status == 1
    assert outcome.output.endswith("Missing bridges br7\n")
    cluster.run("gnt-instance", "remove", "-f", "bridge.gnt.test")


def test_nothing_remains(cluster: Cluster, nothing: Any, refused: dict[str, Outcome]) -> None:
    assert wiring(cluster.master) == nothing
    each(refused, lambda name: cluster.run("gnt-instance", "remove", "-f", f"{name}.gnt.test"))


def test_second_nic_refused(cluster: Cluster, nothing: Any) -> None:
    """The first one has been wired by then, and nobody says that it goes. What is next, does."""
    bad, node = BAD["table"], cluster.master
    (wrong,) = bad.words
    add(
        cluster,
        "second",
        ["--net=0:network=filtered,ip=pool", wrong.replace("--net=0:", "--net=1:")],
    )
    assert_refused(start(cluster, "second", check=False), "second", bad)
    checked = node.snf("network", "reconcile", "--check", check=False)
    assert (checked.status, checked.output) == (3, "tap0: it is gone\n")
    cluster.run("gnt-instance", "remove", "-f", "second.gnt.test")
    assert wiring(node) == nothing


# -- guests and nodes that go down -------------------------------------------------------------


@pytest.fixture(name="wired", scope="module")
def _wired(cluster: Cluster) -> Any:
    """The wiring when all guests run."""
    cluster.master.snf("network", "uplink", "up")
    each(GUESTS, lambda name: add(cluster, name, GUESTS[name]))
    start(cluster, *GUESTS)
    found = wiring(cluster.master)
    text = repr(found)
    for address in ("198.18.0.51", "203.0.113.52", "2001:db8:2::1", "firewall_profile_limited"):
        assert address in text
    return found


def test_documents_lost(cluster: Cluster, wired: Any) -> None:
    """The kernel still holds all: what comes next for each NIC takes it over, and back later."""
    node = cluster.master
    shutil.rmtree(node.path("/run/snf/network"))
    node.snf("network", "uplink", "up")
    for name in GUESTS:
        words = ("gnt-instance", "reboot", "--type=hard", "--shutdown-timeout=0")
        cluster.run(*words, f"{name}.gnt.test")
    assert_wired(cluster, wired)


def kill(node: Node, name: str) -> None:
    """End a guest's QEMU as the kernel does where memory is short."""
    pid = node.path(f"/run/ganeti/kvm-hypervisor/pid/{name}.gnt.test").read_text().strip()
    node.run("kill", "-9", pid)
    deadline = time.monotonic() + PATIENCE
    while node.path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("then", ["start", "reboot", "stop --timeout=0", "reconcile"])
def test_guest_killed(cluster: Cluster, wired: Any, then: str) -> None:
    """Nobody says that its NICs go; whatever is done next, nothing of them stays."""
    node = cluster.master
    kill(node, "web2")
    assert "203.0.113.52" in repr(wiring(node))
    if then == "reconcile":
        assert node.snf("network", "reconcile").output.endswith(": it is gone; repaired\n")
    else:
        cluster.run("gnt-instance", *then.split(), "web2.gnt.test")
    if then not in {"start", "reboot"}:
        assert "203.0.113.52" not in repr(wiring(node))
        assert node.snf("network", "reconcile", "--check").output == ""
        start(cluster, "web2")
    assert_wired(cluster, wired)


def test_script_missing(cluster: Cluster, wired: Any) -> None:
    """Ganeti then wires NICs itself, without filters. That is told, and the next hook mends it."""
    node = cluster.master
    cluster.run("gnt-instance", "stop", "--timeout=0", "web1.gnt.test")
    ours = [
        node.path(f"/etc/ganeti/{place}")
        for place in ("kvm-vif-bridge", "hooks/instance-start-post.d/snf")
    ]
    for script in ours:
        script.chmod(0o644)
    start(cluster, "web1")
    assert "198.18.0.51" not in repr(wiring(node))
    for words, status in ((["--check"], 3), ([], 1)):
        checked = node.snf("network", "reconcile", *words, check=False)
        assert checked.status == status
        told = sorted(re.findall(r"^tap[0-9]+: (nobody has wired [^;\n]*)", checked.output, re.M))
        assert told == [f"nobody has wired NIC {index} of web1.gnt.test" for index in (0, 1)]
    for script in ours:
        script.chmod(0o755)
    cluster.run("gnt-instance", "modify", "-B", "vcpus=1", "web1.gnt.test")
    assert_wired(cluster, wired)


def boot(cluster: Cluster) -> None:
    """What a node does by itself: uplinks first, then Ganeti, whose watcher starts instances."""
    node = cluster.master
    node.snf("network", "uplink", "up")
    cluster.start_daemons(node)
    cluster.run("ganeti-watcher", "--wait-children")


@pytest.mark.parametrize("survives", [False, True], ids=["all lost", "documents survive"])
def test_reboot(cluster: Cluster, wired: Any, tmp_path: Path, survives: bool) -> None:
    """The kernel holds nothing any more, and documents, where they do, are of another time."""
    node = cluster.master
    shutil.copytree(node.path("/run/snf"), tmp_path / "run")
    node.stop()
    node.start()
    assert kernel.taps(kernel.state(node)) == set()
    if survives:
        shutil.copytree(tmp_path / "run", node.path("/run/snf"))
    boot(cluster)
    assert_wired(cluster, wired)


def test_all_removed(cluster: Cluster, nothing: Any, wired: Any) -> None:
    assert wired != nothing
    for name in GUESTS:
        cluster.run("gnt-instance", "remove", "-f", "--shutdown-timeout=0", f"{name}.gnt.test")
    cluster.master.snf("network", "uplink", "down")
    assert wiring(cluster.master) == nothing
