"""Instances of xen-pvm on a real Ganeti and a real Xen: the life of a guest with two NICs.

What takes Xen's part to be true at its worst is in tests/ganeti/test_xen.py. Here a command of
Ganeti's takes a quarter of a minute or more, and so there are few.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.ganeti import kernel, outside
from tests.ganeti.cluster import Cluster
from tests.ganeti.node import CommandFailedError
from tests.xen import domu
from tests.xen.node import GANETIS_SCRIPT, Dom0

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.ganeti.node import Node, Outcome

NAME, NEW_NAME = "pv1.gnt.test", "pv2.gnt.test"
BRIDGED, ROUTED, ELSEWHERE = "198.51.100.7", "203.0.113.77", "203.0.113.78"
UNKNOWN = ("--no-name-check", "--no-ip-check")
"""Its names are nobody's but Ganeti's."""
NICS = (f"network=net1,ip={BRIDGED},name=lan", f"mode=routed,link=100,ip={ROUTED}")


@pytest.fixture(name="cluster", scope="module")
def _cluster() -> Iterator[Cluster]:
    """The dom0 as a cluster of one node, with a filtered network and an uplink."""
    image = domu.image()
    parameters = {
        "xen_cmd": "xl",
        "vif_script": GANETIS_SCRIPT,
        "kernel_path": image.kernel,
        "initrd_path": image.initrd,
        "kernel_args": "console=hvc0 quiet loglevel=1 mitigations=off panic=-1",
    }
    words = ",".join(f"{name}={value}" for name, value in parameters.items())
    with Cluster.create(
        hypervisors=["xen-pvm"], kind=Dom0, parameters=f"xen-pvm:{words}", appliance=False
    ) as made:
        made.run(
            *("gnt-network", "add", f"--network={outside.GUESTS}"),
            *(f"--gateway={outside.GUESTS_GATEWAY}", "--tags=filtered,web", "net1"),
        )
        made.run("gnt-network", "connect", "-N", "mode=bridged,link=br0", "net1")
        made.master.snf("network", "uplink", "up")
        yield made


@pytest.fixture(name="node")
def _node(cluster: Cluster) -> Iterator[Node]:
    """The node; afterwards nothing of what was made in the test is left on it."""
    before = state(cluster.master)
    yield cluster.master
    for name in (NAME, NEW_NAME):
        if domu.domid(name) is not None:
            domu.xl("destroy", name)
        cluster.run("gnt-instance", "remove", "-f", "--shutdown-timeout=0", name, check=False)
    assert state(cluster.master) == before


def state(node: Node) -> dict[str, Any]:
    """The kernel's, and what of vifs is in xenstore."""
    vifs = node.run("xenstore-ls", "backend/vif", check=False).stdout
    return {"vifs": vifs, **kernel.state(node)}


def add(cluster: Cluster, *nics: str, check: bool = True) -> Outcome:
    """Make the instance, without a disk, and start it."""
    return cluster.run(
        *("gnt-instance", "add", "-t", "diskless", "-H", "xen-pvm", "-B", "memory=128"),
        *UNKNOWN,
        *("-n", cluster.master.name),
        *("-o", "snf-image+default", "-O", "img_id=null,img_format=diskdump"),
        *(word for number, nic in enumerate(nics) for word in ("--net", f"{number}:{nic}")),
        NAME,
        check=check,
    )


def wired(node: Node, guest: domu.Guest) -> list[dict[str, Any]]:
    """The events of its vifs, which are all that are wired, as they should be, and connected."""
    lines = json.loads(node.snf("network", "status", "--json").stdout)
    found = {line["interface"]: line for line in lines if line["interface"].startswith("vif")}
    assert sorted(found) == [guest.vif(0), guest.vif(1)]
    assert all(line["agrees"] for line in found.values())
    for number in range(2):
        backend = f"backend/vif/{guest.domid}/{number}"
        assert domu.xenstore(f"{backend}/hotplug-status") == "connected"
    return [found[name]["event"] for name in sorted(found)]


def reaches_all(guest: domu.Guest, routed: str = ROUTED) -> None:
    """Through both of its NICs it gets answers from what is outside, and none for another."""
    guest.run(
        f"ip link set eth0 up; ip address add {BRIDGED}/24 dev eth0; "
        f"ip link set eth1 up; ip address add {routed}/24 dev eth1"
    )
    guest.run(
        f"ping -c 1 -W 30 {outside.GUESTS_GATEWAY} && ping -c 1 -W 30 {outside.UPLINK_GATEWAY}"
    )
    guest.run("ip address add 198.51.100.8/24 dev eth0; ip address add 203.0.113.8/24 dev eth1")
    for source, gateway in (
        ("198.51.100.8", outside.GUESTS_GATEWAY),
        ("203.0.113.8", outside.UPLINK_GATEWAY),
    ):
        status, _ = guest.status(f"ping -c 1 -W 3 -I {source} {gateway}")
        assert status != 0, f"the guest may call itself {source}"


def test_life(cluster: Cluster, node: Node) -> None:
    """Added, restarted without Ganeti, stopped, changed, renamed, started; removed at the end."""
    assert node.snf("ganeti", "install", "--check").status == 0
    added = add(cluster, *NICS)
    assert "script" not in added.output
    guest = domu.Guest.found(NAME)
    first, second = wired(node, guest)
    assert (first["called"], first["network_tags"]) == ("", ["filtered", "web"])
    assert second["instance"] == NAME
    reaches_all(guest)

    before = guest.domid
    domu.xl("reboot", NAME)  # the guest is asked to, and does
    guest.reattach(booting=True)
    assert guest.domid > before
    wired(node, guest)
    reaches_all(guest)

    cluster.run("gnt-instance", "stop", NAME)
    assert kernel.state(node)["documents"] == {"eth2.json"}
    cluster.run("gnt-instance", "modify", "--net", f"1:modify,ip={ELSEWHERE}", NAME)
    cluster.run("gnt-instance", "rename", "--force", *UNKNOWN, NAME, NEW_NAME)
    cluster.run("gnt-instance", "start", NEW_NAME)
    guest = domu.Guest.found(NEW_NAME)
    assert [event["instance"] for event in wired(node, guest)] == [NEW_NAME] * 2
    reaches_all(guest, ELSEWHERE)
    assert node.snf("network", "reconcile", "--check").status == 0


def test_nics_that_are_not_described(cluster: Cluster, node: Node) -> None:
    """xl prints our reason, and leaves nothing, where nobody knows what a NIC is to be."""
    add(cluster, *NICS)
    guest = domu.Guest.found(NAME)
    described = wired(node, guest)
    guest.close()
    node.run("rm", "-r", f"/run/ganeti/xen-hypervisor/nic/{NAME}")
    node.run("xl", "create", f"/etc/xen/{NAME}")
    guest = domu.Guest.found(NAME)
    assert wired(node, guest) == described  # Ganeti was asked
    guest.close()

    before = state(node)
    asked = node.path("/run/ganeti/socket/ganeti-query")
    away = asked.rename(asked.with_name("away"))  # as on any node but the master
    try:
        with pytest.raises(
            CommandFailedError, match=r"script: snf: .*cannot be asked on this node"
        ):
            node.run("xl", "create", f"/etc/xen/{NAME}")
    finally:
        away.rename(asked)
    assert domu.domid(NAME) is None
    assert state(node) == before


def test_a_nic_that_cannot_be_wired(cluster: Cluster, node: Node) -> None:
    """Ganeti shows why the instance does not start."""
    failed = add(cluster, NICS[0], "mode=routed,link=200,ip=203.0.113.79", check=False)
    assert failed.status != 0
    assert "script: snf: " in failed.output
    assert "200" in failed.output
    assert domu.domid(NAME) is None
