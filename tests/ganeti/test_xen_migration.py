"""Instances of xen-pvm that move, running, between the nodes of a real Ganeti. Xen is a stand-in.

Ganeti describes their NICs only where it starts them.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.ganeti import xen
from tests.ganeti.cluster import Cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.ganeti.node import Node, Outcome

NAME = "pv1.gnt.test"
DESCRIBED = f"/run/ganeti/xen-hypervisor/nic/{NAME}"
HOOK = "/etc/ganeti/hooks/instance-migrate-pre.d/snf"


@pytest.fixture(name="cluster", scope="module")
def _cluster() -> Iterator[Cluster]:
    """Two nodes of Xen, the first of which is the master."""
    with Cluster.create(nodes=2, hypervisors=["fake"], appliance=False) as made:
        for node in made.nodes:
            xen.install(node)
            node.snf("ganeti", "install")
            node.snf("network", "uplink", "up")
        made.run(
            *("gnt-cluster", "modify", "--enabled-hypervisors=fake,xen-pvm"),
            *("-H", f"xen-pvm:{xen.SETTINGS}"),
        )
        made.run("gnt-network", "add", "--network=198.51.100.0/24", "--tags=filtered", "net1")
        made.run("gnt-network", "connect", "-N", "mode=bridged,link=br0", "net1")
        yield made


@pytest.fixture(name="before")
def _before(cluster: Cluster) -> Iterator[list[dict[str, Any]]]:
    """What the instance's NICs are wired by on the master, where it runs; removed at the end."""
    cluster.run(
        *("gnt-instance", "add", "-t", "diskless", "-H", "xen-pvm", "-B", "memory=64"),
        *("--no-name-check", "--no-ip-check", "-n", cluster.master.name, "--tags=one,two"),
        *("-o", "snf-image+default", "-O", "img_id=null,img_format=diskdump"),
        *("--net", "0:network=net1,ip=198.51.100.7,name=lan"),
        *("--net", "1:mode=routed,link=100,ip=203.0.113.77", NAME),
    )
    yield events(cluster.master)
    cluster.run("gnt-instance", "remove", "-f", "--shutdown-timeout=0", NAME)
    for node in cluster.nodes:
        assert events(node) == []
        assert not node.path(DESCRIBED).exists()


def events(node: Node) -> list[dict[str, Any]]:
    """The events of the vifs that are wired on a node, as they should be, and connected."""
    lines = json.loads(node.snf("network", "status", "--json").stdout)
    vifs = [line for line in lines if line["interface"].startswith("vif")]
    assert all(line["agrees"] for line in vifs)
    keys = xen.store(node) if node.path(str(xen.STORE)).exists() else {}
    backends = [key for key in keys if key.startswith(xen.BACKEND) and key.endswith("/state")]
    assert [keys[key] for key in backends] == ["4"] * len(vifs)
    return [line["event"] for line in vifs]


def migrate(cluster: Cluster, target: Node, *, check: bool = True) -> Outcome:
    """``gnt-instance migrate``."""
    words = ("gnt-instance", "migrate", "-f", "-n", target.name, NAME)
    return cluster.run(*words, check=check)


def test_to_a_node_that_cannot_ask(cluster: Cluster, before: list[dict[str, Any]]) -> None:
    """The hook has described the NICs there, for this domain and for those that follow it."""
    first, second = cluster.nodes
    assert len(before) == 2
    moved = migrate(cluster, second)
    assert "WARNING" not in moved.output
    assert events(second) == before
    assert events(first) == []
    second.run("xl", "reboot", NAME)  # as guests do by themselves
    assert events(second) == before

    migrate(cluster, first)
    assert events(first) == before
    assert events(second) == []


def test_without_the_hook(cluster: Cluster, before: list[dict[str, Any]]) -> None:
    """The other node refuses them, and the instance stays where it is. The master asks Ganeti.

    What is said on a node where an instance arrives, Ganeti lets nobody see.
    """
    first, second = cluster.nodes
    for node in cluster.nodes:
        node.path(HOOK).rename(node.path("/etc/ganeti/pre"))
    failed = migrate(cluster, second, check=False)
    assert failed.status != 0
    assert "domain creation failed" in failed.output
    assert events(first) == before
    assert events(second) == []
    second.path("/etc/ganeti/pre").rename(second.path(HOOK))
    migrate(cluster, second)
    assert events(second) == before
    migrate(cluster, first)
    assert events(first) == before
    first.path("/etc/ganeti/pre").rename(first.path(HOOK))
