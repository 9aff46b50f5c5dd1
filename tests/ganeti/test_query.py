"""Ganeti's own configuration daemon is asked for NICs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from snf_core import model
from snf_core.errors import NetworkError
from snf_core.ganeti import query
from snf_core.ganeti.variables import Variables, script_nic

if TYPE_CHECKING:
    from pathlib import Path

    from snf_core.model import Nic
    from tests.ganeti.cluster import Cluster

NAME = "web1.gnt.test"
SUBNETS = {
    "subnet": "198.51.100.0/24",
    "gateway": "198.51.100.1",
    "subnet6": "2001:db8:1::/64",
    "gateway6": "2001:db8:1::1",
}


@pytest.fixture(name="place", scope="module")
def _place(cluster: Cluster) -> Path:
    """Ganeti's socket, of a cluster with an instance of four NICs, and one without any."""
    cluster.run(
        *("gnt-network", "add", "--network", SUBNETS["subnet"], "--gateway", SUBNETS["gateway"]),
        *("--network6", SUBNETS["subnet6"], "--gateway6", SUBNETS["gateway6"]),
        *("--mac-prefix=aa:01:02", "--tags=web,filtered", "net1"),
    )
    cluster.run("gnt-network", "connect", "-N", "mode=bridged,link=br0", "net1")
    cluster.run("gnt-network", "add", "--network=203.0.113.0/24", "bare")
    cluster.run("gnt-network", "connect", "-N", "mode=routed,link=100", "bare")
    nics = (
        "network=net1,ip=198.51.100.7,name=the 'lan'",
        "network=bare,ip=203.0.113.77",
        "mode=bridged,link=br0,vlan=.7,mac=aa:00:10:38:54:25",
        "link=br0",
    )
    add = (
        *("gnt-instance", "add", "-t", "diskless", "-H", "fake", "-B", "memory=64", "--no-start"),
        *("--no-name-check", "--no-ip-check", "-n", cluster.master.name),
        *("-o", "snf-image+default", "-O", "img_id=null,img_format=diskdump"),
    )
    given = [word for number, nic in enumerate(nics) for word in ("--net", f"{number}:{nic}")]
    cluster.run(*add, *given, NAME)
    cluster.run(*add, "--no-nics", "web2.gnt.test")
    cluster.run("gnt-instance", "add-tags", NAME, "two", "one", "x:y+z/@.-_*")
    return cluster.master.path(str(query.SOCKET))


def nic(place: Path, index: int, instance: str = NAME) -> Nic:
    """The NIC that a script would be told of."""
    return script_nic(Variables(query.nic(instance, index, place)))


def test_a_bridged_nic(place: Path) -> None:
    """All of it and of its network, and the instance's tags."""
    found = nic(place, 0)
    assert (found.index, found.mode, found.link) == (0, model.Mode.BRIDGED, "br0")
    assert (str(found.ip), found.name, found.vlan) == ("198.51.100.7", "the 'lan'", "")
    assert found.mac.startswith("aa:01:02")
    assert found.uuid
    network = found.network
    assert network
    assert {name: str(getattr(network, name)) for name in SUBNETS} == SUBNETS
    assert (network.name, network.mac_prefix) == ("net1", "aa:01:02")
    assert network.tags == {"web", "filtered"}
    assert network.uuid
    assert model.tags(query.nic(NAME, 0, place)["TAGS"]) == {"one", "two", "x:y+z/@.-_*"}


def test_a_routed_nic(place: Path) -> None:
    """Its network has got nothing that it need not have."""
    found = nic(place, 1)
    assert (found.mode, found.link, str(found.ip)) == (model.Mode.ROUTED, "100", "203.0.113.77")
    assert found.network == model.Network(
        "bare", found.network.uuid if found.network else "", model.ipv4_network("203.0.113.0/24")
    )


def test_a_nic_without_a_network(place: Path) -> None:
    found = nic(place, 2)
    assert (found.mac, found.ip, found.vlan) == ("aa:00:10:38:54:25", None, ".7")
    assert found.network is None


def test_a_vlan_of_the_cluster(cluster: Cluster, place: Path) -> None:
    """It is told of NICs that have none of their own."""
    cluster.run("gnt-cluster", "modify", "--nic-parameters=vlan=.9")
    try:
        assert [nic(place, index).vlan for index in range(4)] == ["", "", ".7", ".9"]
    finally:
        cluster.run("gnt-cluster", "modify", "--nic-parameters=vlan=")


@pytest.mark.parametrize(
    ("instance", "index", "reason"),
    [
        (NAME, 4, f"knows no NIC 4 of {NAME}"),
        ("web2.gnt.test", 0, "knows no NIC 0 of web2.gnt.test"),
        ("web3.gnt.test", 0, "web3.gnt.test not found"),
        ("web1", 0, f"knows no instance web1, but '{NAME}'"),
    ],
)
def test_none_such(place: Path, instance: str, index: int, reason: str) -> None:
    with pytest.raises(NetworkError, match=reason):
        query.nic(instance, index, place)


def test_the_daemon_is_stopped(cluster: Cluster, place: Path) -> None:
    """As on every node but the master: nobody answers."""
    cluster.run("/usr/lib/ganeti/daemon-util", "stop", "ganeti-luxid")
    try:
        with pytest.raises(NetworkError, match="cannot be asked on this node"):
            query.nic(NAME, 0, place)
    finally:
        cluster.run("/usr/lib/ganeti/daemon-util", "start", "ganeti-luxid")
