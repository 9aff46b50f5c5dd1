"""Instances that change their node in a real cluster of two, and their traffic.

The guest is the smallest one with a real kernel (``guest``), booted by Ganeti. Its disk is a file
that both nodes see (``sharedfile``) unless said otherwise. Hooks and NIC scripts are what ``snf
ganeti install`` has put in place.
"""

from __future__ import annotations

import contextlib
import subprocess
from dataclasses import dataclass, replace
from ipaddress import IPv6Network
from typing import TYPE_CHECKING, Any

import pytest

from snf_core.network.eui64 import eui64
from tests.ganeti import kernel, outside
from tests.ganeti.cluster import Cluster
from tests.ganeti.guest import MEMORY, Image
from tests.ganeti.pings import Pings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.ganeti.node import Node, Outcome

_BRIDGED = ("--network6", outside.GUESTS6, "--gateway6", outside.GUESTS6_GATEWAY)
_ROUTED = ("--network6", outside.UPLINK6, "--gateway6", outside.UPLINK6_GATEWAY)
NETWORKS = {
    "filtered": ("mode=bridged,link=br0", outside.GUESTS, outside.GUESTS_GATEWAY, *_BRIDGED),
    "ip-less-routed": ("mode=routed,link=100", outside.UPLINK, outside.UPLINK_GATEWAY, *_ROUTED),
}
"""By their tags: mode and link, subnet, gateway, and the rest."""


PIDS = "/run/ganeti/kvm-hypervisor/pid"


@dataclass(frozen=True)
class Wanted:
    """An instance; it is of the Ganeti network that is named like its tag."""

    name: str
    network: str
    mac: str
    address: str
    address6: str
    gateway: str
    gateway6: str
    template: str = "sharedfile"

    @property
    def arguments(self) -> str:
        """What its kernel is told; a routed guest has nobody on its link but the node."""
        length6 = 128 if self.network == "ip-less-routed" else 64
        return (
            f"console=ttyS0 quiet ADDRESS={self.address}/24 GATEWAY={self.gateway} "
            f"ADDRESS6={self.address6}/{length6} GATEWAY6={self.gateway6}"
        )


def _wanted(name: str, network: str, mac: str, address: str) -> Wanted:
    _, _, gateway, _, subnet6, _, gateway6 = NETWORKS[network]
    address6 = str(eui64(IPv6Network(subnet6), mac))
    return Wanted(name, network, mac, address, address6, gateway, gateway6)


FILTERED = _wanted("web1.gnt.test", "filtered", "aa:00:00:38:54:25", "198.51.100.10")
ROUTED = _wanted("web2.gnt.test", "ip-less-routed", "aa:00:00:38:54:26", "203.0.113.10")


@dataclass
class Pair:
    """The cluster."""

    cluster: Cluster
    image: Image

    @property
    def nodes(self) -> tuple[Node, Node]:
        """Both; the first is the master."""
        one, other = self.cluster.nodes
        return one, other

    def run(self, *words: str, check: bool = True) -> Outcome:
        """A command on the master."""
        return self.cluster.run(*words, check=check)

    @contextlib.contextmanager
    def instance(self, wanted: Wanted) -> Iterator[tuple[Pings, Pings]]:
        """An instance on the first node, while somebody outside pings both of its addresses."""
        parameters = {
            "kernel_path": self.image.kernel,
            "initrd_path": self.image.initrd,
            "kernel_args": wanted.arguments,
            # Ganeti takes the memory that it finds behind -m for its own number.
            "kvm_extra": f"-display none --m {MEMORY}",
        }
        said = ",".join(f"{name}={value}" for name, value in parameters.items())
        self.run(
            *("gnt-instance", "add", "--no-name-check", "--no-ip-check", "--no-install"),
            *("-o", "snf-image+default", "-O", "img_id=null,img_format=diskdump"),
            *("-t", wanted.template, "--disk", "0:size=64", "-B", "memory=128"),
            *("-H", f"kvm:{said}", "-n", self.nodes[0].name),
            *("--net", f"0:network={wanted.network},ip={wanted.address},mac={wanted.mac}"),
            wanted.name,
        )
        try:
            self.run("gnt-instance", "start", wanted.name)
            world = self.cluster.outside.name
            with Pings(world, wanted.address) as pings, Pings(world, wanted.address6) as pings6:
                reached(pings, pings6)
                yield pings, pings6
        finally:
            self.run("gnt-instance", "remove", "-f", "--shutdown-timeout=0", wanted.name)

    @contextlib.contextmanager
    def bandwidth(self, megabytes: int) -> Iterator[None]:
        """Migrations carry so much in a second, not 32 MiB, Ganeti's default."""
        setting = ("gnt-cluster", "modify", "-H")
        self.run(*setting, f"kvm:migration_bandwidth={megabytes}")
        try:
            yield
        finally:
            self.run(*setting, "kvm:migration_bandwidth=32")

    def places(self) -> dict[str, str]:
        """The node of each running instance."""
        shown = self.run("gnt-instance", "list", "--no-headers", "-o", "name,pnode,status")
        lines = [line.split() for line in shown.stdout.splitlines()]
        return {name: node for name, node, status in lines if status == "running"}

    def states(self) -> list[dict[str, Any]]:
        """What both kernels hold of NICs, without what tells one node from another."""
        return [self._state(node) for node in self.nodes]

    def _state(self, node: Node) -> dict[str, Any]:
        found = kernel.state(node)
        taps = kernel.taps(found)
        links = {
            name: link if name in taps else {**link, "address": ""}
            for name, link in found["links"].items()
        }
        spare = f"203.0.113.{240 + node.number}"
        tables = sorted(str(one).replace(spare, "SPARE") for one in found["tables"])
        return {**found, "links": links, "tables": tables}

    def check(self) -> None:
        """On both nodes all is as our documents say, and nothing is left of what is gone."""
        for node in self.nodes:
            assert node.snf("network", "reconcile", "--check").output == ""


def reached(*pings: Pings) -> None:
    """All of them are answered."""
    for one in pings:
        one.wait_for_answer()


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """A cluster of two nodes, with two networks and no instances."""
    with Cluster.create(nodes=2, hypervisors=("kvm",)) as cluster:
        for tag, (connection, subnet, gateway, *more) in NETWORKS.items():
            words = ("--network", subnet, "--gateway", gateway, *more, "--tags", tag)
            cluster.run("gnt-network", "add", *words, tag)
            cluster.run("gnt-network", "connect", "-N", connection, tag)
        for node in cluster.nodes:
            node.snf("network", "uplink", "up")
        yield Pair(cluster, Image.make(cluster.directory))


@pytest.fixture
def show(capsys: pytest.CaptureFixture[str]) -> Iterator[list[str]]:
    """Figures to be printed."""
    lines: list[str] = []
    yield lines
    with capsys.disabled():
        print("", *lines, sep="\n    ")


@pytest.mark.parametrize("wanted", [FILTERED, ROUTED], ids=lambda one: str(one.network))
def test_a_live_migration_there_and_back(pair: Pair, wanted: Wanted, show: list[str]) -> None:
    empty = pair.states()
    here, there = pair.nodes
    with pair.instance(wanted) as pings:
        begun = pair.states()
        assert begun[1] == empty[1]
        for target, states in ((there, begun[::-1]), (here, begun)):
            pair.run("gnt-instance", "migrate", "-f", "-n", target.name, wanted.name)
            reached(*pings)
            assert pair.places() == {wanted.name: target.name}
            assert pair.states() == states
            pair.check()
        show += [f"gnt-instance migrate, twice, {one.address}: {one.figures()}" for one in pings]
    assert pair.states() == empty


def test_a_target_that_cannot_wire_the_nic_is_not_migrated_to(pair: Pair) -> None:
    """The guest goes on where it is, and the operator is told why."""
    empty = pair.states()
    with pair.instance(FILTERED) as pings:
        begun = pair.states()
        pair.nodes[1].write("/etc/snf/snf.conf.d/few.conf", "[network]\nsetups = bridged\n")
        try:
            done = pair.run("gnt-instance", "migrate", "-f", FILTERED.name, check=False)
        finally:
            pair.nodes[1].path("/etc/snf/snf.conf.d/few.conf").unlink()
        assert done.status == 1
        assert "does what the tag 'filtered' promises" in done.output
        assert "remedy: remove the tag, or add a setup that serves it" in done.output
        reached(*pings)
        assert pair.states() == begun
    assert pair.states() == empty


@pytest.mark.parametrize("wanted", [FILTERED, ROUTED], ids=lambda one: str(one.network))
def test_a_migration_that_breaks_off(pair: Pair, wanted: Wanted) -> None:
    """The target's QEMU dies amid the transfer. No hook runs then; the next try succeeds."""
    empty = pair.states()
    here, there = pair.nodes
    words = ("gnt-instance", "migrate", "-f", "-n", there.name, wanted.name)
    with pair.instance(wanted) as pings:
        begun = pair.states()
        with (
            pair.bandwidth(4),
            subprocess.Popen(
                here.command(*words), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            ) as migration,
        ):
            assert migration.stdout
            for line in migration.stdout:
                if "starting memory transfer" in line:
                    there.run("sh", "-c", f'kill -KILL "$(cat {PIDS}/{wanted.name})"')
                    break
            said = migration.stdout.read()
        assert migration.returncode == 1, said
        assert "Migration failed, aborting" in said
        reached(*pings)
        there.snf("network", "reconcile")  # as its timer does
        assert pair.states() == begun

        pair.run(*words)
        reached(*pings)
        assert pair.states() == begun[::-1]
    assert pair.states() == empty


def test_a_failover(pair: Pair) -> None:
    empty = pair.states()
    _, there = pair.nodes
    with pair.instance(ROUTED) as pings:
        begun = pair.states()
        words = ("--shutdown-timeout=0", "-n", there.name, ROUTED.name)
        pair.run("gnt-instance", "failover", "-f", *words)
        reached(*pings)
        assert pair.states() == begun[::-1]
        pair.check()
    assert pair.states() == empty


def test_a_node_is_emptied(pair: Pair, show: list[str]) -> None:
    """By Ganeti's own allocator, both instances at a time."""
    empty = pair.states()
    here, there = pair.nodes
    with pair.instance(FILTERED) as filtered, pair.instance(ROUTED) as routed:
        begun = pair.states()
        pair.run("gnt-node", "evacuate", "-f", "-p", "-I", "hail", here.name)
        reached(*filtered, *routed)
        assert pair.places() == dict.fromkeys((FILTERED.name, ROUTED.name), there.name)
        assert pair.states()[0] == empty[0]
        assert kernel.taps(pair.states()[1]) == kernel.taps(begun[0])
        pair.check()
        lines = [f"{one.address}: {one.figures()}" for one in (*filtered, *routed)]
        show += [f"gnt-node evacuate, {line}" for line in lines]
    assert pair.states() == empty


def test_an_instance_is_moved_with_its_disk(pair: Pair) -> None:
    """A disk that only one node sees is copied."""
    empty = pair.states()
    _, there = pair.nodes
    with pair.instance(replace(FILTERED, template="file")) as pings:
        begun = pair.states()
        words = ("--shutdown-timeout=0", "-n", there.name, FILTERED.name)
        pair.run("gnt-instance", "move", "-f", *words)
        reached(*pings)
        assert pair.states() == begun[::-1]
        pair.check()
    assert pair.states() == empty


def test_the_cluster_is_sound(pair: Pair) -> None:
    """Where there is no magic SysRq, Ganeti cannot fence a node; nothing else is wrong."""
    pair.run("gnt-cluster", "verify", "--ignore-errors=ENODESETUP")
