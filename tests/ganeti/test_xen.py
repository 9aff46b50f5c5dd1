"""Instances of xen-pvm on a real Ganeti: their vifs are wired as taps are. Xen is a stand-in."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.ganeti import xen
from tests.ganeti.cluster import Cluster
from tests.ganeti.node import CommandFailedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.ganeti.node import Node, Outcome

NAME = "pv1.gnt.test"
OS = ("-o", "snf-image+default", "-O", "img_id=null,img_format=diskdump")


@pytest.fixture(name="cluster", scope="module")
def _cluster() -> Iterator[Cluster]:
    """A node of Xen."""
    with Cluster.create(hypervisors=["fake"]) as made:
        xen.install(made.master)
        assert "vif-custom" in made.master.snf("ganeti", "install").stdout
        made.run(
            *("gnt-cluster", "modify", "--enabled-hypervisors=fake,xen-pvm"),
            *("-H", f"xen-pvm:{xen.SETTINGS}"),
        )
        made.run(
            *("gnt-network", "add", "--network=198.51.100.0/24", "--gateway=198.51.100.1"),
            *("--tags=filtered,web", "net1"),
        )
        made.run("gnt-network", "connect", "-N", "mode=bridged,link=br0", "net1")
        made.master.snf("network", "uplink", "up")
        yield made


@pytest.fixture(name="node")
def _node(cluster: Cluster) -> Iterator[Node]:
    """The node; afterwards nothing of what was made in the test is left on it."""
    before = kernel(cluster.master)
    yield cluster.master
    cluster.run("gnt-instance", "remove", "-f", "--shutdown-timeout=0", NAME, check=False)
    assert kernel(cluster.master) == before


def add(cluster: Cluster, *nics: str, check: bool = True) -> Outcome:
    """Make the instance, without a disk, and start it."""
    return cluster.run(
        *("gnt-instance", "add", "-t", "diskless", "-H", "xen-pvm", "-B", "memory=64"),
        *("--no-name-check", "--no-ip-check", *OS, "-n", cluster.master.name),
        *(word for number, nic in enumerate(nics) for word in ("--net", f"{number}:{nic}")),
        NAME,
        check=check,
    )


def kernel(node: Node) -> dict[str, str]:
    """What events may leave in the kernel, and in xenstore; rules are loaded once, and stay."""
    seen = {
        word: node.run("ip", *word.split()).stdout
        for word in ("-br link", "rule", "-6 rule", "route show table 100", "neighbour show proxy")
    }
    seen["nft"] = "\n".join(
        line for line in node.run("nft", "list", "ruleset").stdout.splitlines() if "vif" in line
    )
    seen["status"] = node.run("ls", "/run/snf/network").stdout
    seen["xenstore"] = str([key for key in _keys(node) if "backend" in key])
    return seen


def _keys(node: Node) -> list[str]:
    return sorted(xen.store(node)) if node.path(str(xen.STORE)).exists() else []


def status(node: Node) -> dict[str, Any]:
    """What is known of vifs, by their names."""
    lines = json.loads(node.snf("network", "status", "--json").stdout)
    return {line["interface"]: line for line in lines if line["interface"].startswith("vif")}


def states(node: Node) -> dict[str, str]:
    """Whether vifs are connected (4), by their places."""
    return {
        key.removeprefix(f"{xen.BACKEND}/").removesuffix("/state"): value
        for key, value in xen.store(node).items()
        if key.startswith(xen.BACKEND) and key.endswith("/state")
    }


def port(node: Node, interface: str) -> dict[str, Any]:
    """A link as the kernel shows it."""
    found: list[dict[str, Any]] = json.loads(node.run("ip", "-j", "link", "show", interface).stdout)
    return found[0]


def test_life(cluster: Cluster, node: Node) -> None:
    """Two NICs from start to stop, and a reboot, through which the domain's number changes."""
    add(cluster, "network=net1,ip=pool,name=lan", "mode=routed,link=100,ip=203.0.113.77")
    cluster.run("gnt-instance", "add-tags", NAME, "one", "two")
    (first, second) = sorted(status(node))
    assert first.endswith(".0")
    assert second.endswith(".1")
    assert set(states(node).values()) == {"4"}
    cluster.run("gnt-instance", "reboot", "--type=soft", NAME)

    again = status(node)
    assert sorted(again) == [first.replace("vif1", "vif2"), second.replace("vif1", "vif2")]
    assert all(line["agrees"] for line in again.values())
    assert set(states(node).values()) == {"4"}
    assert port(node, "vif2.0")["master"] == "br0"
    assert "UP" in port(node, "vif2.0")["flags"]
    assert "203.0.113.77 dev vif2.1" in node.run("ip", "route", "show", "table", "100").stdout
    assert '"vif2.0"' in node.run("nft", "list", "ruleset").stdout  # the network is filtered

    cluster.run("gnt-instance", "stop", "--timeout=0", NAME)
    assert status(node) == {}
    assert states(node) == {}
    cluster.run("gnt-instance", "start", NAME)
    assert sorted(status(node)) == ["vif3.0", "vif3.1"]
    document = json.loads(node.path("/run/snf/network/vif3.0.json").read_text())
    assert document["event"]["tags"] == ["one", "two"]  # which Ganeti writes oddly
    assert document["event"]["network_tags"] == ["filtered", "web"]


def test_a_nic_that_cannot_be_wired(cluster: Cluster, node: Node) -> None:
    """Ganeti shows the reason, which xl was told through xenstore; nothing is left."""
    failed = add(
        cluster, "network=net1,ip=pool", "mode=routed,link=200,ip=203.0.113.78", check=False
    )
    assert failed.status != 0
    assert "script: snf: " in failed.output
    assert "200" in failed.output
    assert status(node) == {}
    assert states(node) == {}


def test_without_ganeti(cluster: Cluster, node: Node) -> None:
    """Xen itself stops and starts domains, as when guests restart: no hook runs, vif scripts do."""
    before = kernel(node)
    add(cluster, "network=net1,ip=pool", "mode=routed,link=100,ip=203.0.113.79")
    node.run("xl", "destroy", NAME)
    assert kernel(node) == before

    node.run("env", "-i", "/usr/sbin/xl", "create", f"/etc/xen/{NAME}")  # without a PATH
    assert all(line["agrees"] for line in status(node).values())
    assert len(status(node)) == 2
    node.run("xl", "destroy", NAME)
    assert kernel(node) == before


def test_a_nic_that_is_not_described(cluster: Cluster, node: Node) -> None:
    """As on the target of a migration. Ganeti is asked, and where it cannot be, the NIC refused."""
    before = kernel(node)
    add(cluster, "network=net1,ip=pool,name=lan", "mode=routed,link=100,ip=203.0.113.80")
    cluster.run("gnt-instance", "add-tags", NAME, "one", "two")
    cluster.run("gnt-instance", "reboot", "--type=hard", NAME)
    described = events(node)
    node.run("xl", "destroy", NAME)
    node.run("rm", "-r", f"/run/ganeti/xen-hypervisor/nic/{NAME}")

    node.run("xl", "create", f"/etc/xen/{NAME}")
    assert events(node) == described
    assert set(states(node).values()) == {"4"}
    node.run("xl", "destroy", NAME)

    asked = node.path("/run/ganeti/socket/ganeti-query")
    away = asked.rename(asked.with_name("away"))  # as on any node but the master
    try:
        with pytest.raises(
            CommandFailedError, match=r"script: snf: .*cannot be asked on this node"
        ):
            node.run("xl", "create", f"/etc/xen/{NAME}")
    finally:
        away.rename(asked)
    assert kernel(node) == before


def test_a_vif_that_nobody_has_wired(cluster: Cluster, node: Node) -> None:
    """Reconciling finds it, and the next change to the instance wires it."""
    add(cluster, "mode=routed,link=100,ip=203.0.113.81")
    (vif,) = status(node)
    node.run("rm", f"/run/snf/network/{vif}.json")
    found = node.snf("network", "reconcile", "--check", check=False)
    assert found.status != 0
    assert f"{vif}: nobody has wired NIC 0 of {NAME}" in found.output
    cluster.run("gnt-instance", "modify", "-B", "vcpus=1", NAME)
    assert status(node)[vif]["agrees"]


def events(node: Node) -> list[dict[str, Any]]:
    """What NICs are wired by, but for the names of their vifs."""
    documents = [
        json.loads(node.path(f"/run/snf/network/{vif}.json").read_text())
        for vif in sorted(status(node))
    ]
    return [document["event"] for document in documents]
