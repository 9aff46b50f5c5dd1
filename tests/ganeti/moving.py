"""Two nodes, a guest that migrates between them, and how each Ganeti calls us meanwhile.

The nodes are network namespaces with a configuration and a runtime directory each. Both have the
bridge br0 with the wire ``guests`` behind it, and eth2, the uplink of routed guests, on the wire
``uplink``; ``outside`` has both wires, and the routers on them. The guest is real, and so is its
migration, from one QEMU to another; only Ganeti is played, by its order of calls (``Generation``).
"""

from __future__ import annotations

import contextlib
from contextlib import ExitStack
from dataclasses import dataclass, field
from ipaddress import IPv6Network
from typing import TYPE_CHECKING, Any

from snf_core import cli
from snf_core.network.eui64 import eui64
from tests.ganeti import outside
from tests.ganeti.guest import Guest, Image, Settings, Tap
from tests.ganeti.outside import Outside
from tests.machine import NetworkNamespace
from tests.network import packets
from tests.network.child import Child
from tests.network.host import Host

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

TAP = "tap0"
INSTANCE = "web1.gnt.test"
MAC = "aa:00:00:38:54:25"
TABLE = "100"

LINKS = """\
link set eth1 up
link set eth2 up
link add br0 type bridge
link set eth1 master br0
link set br0 up
"""

CONFIGURATION = f"""\
[network.uplink.{TABLE}]
interface = eth2
subnet = {outside.UPLINK}
gateway = {outside.UPLINK_GATEWAY}
address = {{spare}}
subnet6 = {outside.UPLINK6}
gateway6 = {outside.UPLINK6_GATEWAY}
"""

BRIDGED = {
    "MODE": "bridged",
    "LINK": "br0",
    "BRIDGE": "br0",
    "IP": "198.51.100.10",
    "NETWORK_NAME": "guests",
    "NETWORK_UUID": "2e0f4f0e-7a0b-4c9a-9f0e-3f6f1d2c3b4a",
    "NETWORK_SUBNET": outside.GUESTS,
    "NETWORK_GATEWAY": outside.GUESTS_GATEWAY,
    "NETWORK_SUBNET6": outside.GUESTS6,
    "NETWORK_GATEWAY6": outside.GUESTS6_GATEWAY,
    "NETWORK_TAGS": "bridged",
}
ROUTED = {
    "MODE": "routed",
    "LINK": TABLE,
    "IP": "203.0.113.10",
    "NETWORK_NAME": "uplink",
    "NETWORK_UUID": "2e0f4f0e-7a0b-4c9a-9f0e-3f6f1d2c3b4b",
    "NETWORK_SUBNET": outside.UPLINK,
    "NETWORK_GATEWAY": outside.UPLINK_GATEWAY,
    "NETWORK_SUBNET6": outside.UPLINK6,
    "NETWORK_GATEWAY6": outside.UPLINK6_GATEWAY,
    "NETWORK_TAGS": "ip-less-routed",
}
"""What Ganeti says of the guest's NIC, beside what it says of every NIC (``Site.nic``)."""

_LOGIN = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


@dataclass
class Node:
    """A node: ``up``, ``down`` and ``hook`` are what its Ganeti calls."""

    name: str
    host: Host
    spare: str
    """The address in whose name it asks on its uplink."""

    def up(self, nic: Mapping[str, str]) -> None:
        """A script for a NIC that appears."""
        self.run("network", "up", "--hypervisor", "kvm", **nic)

    def down(self, nic: Mapping[str, str]) -> None:
        """A script for a NIC that is gone, of a Ganeti that has one."""
        self.run("network", "down", "--hypervisor", "kvm", **nic)

    def hook(self, environ: Mapping[str, str]) -> None:
        """A hook."""
        self.run("ganeti", "hook", **environ)

    def check(self) -> None:
        """All is as our documents say, and nothing is left of what is gone."""
        self.run("network", "reconcile", "--check")

    def run(self, *words: str, **environ: str) -> None:
        """Our ``snf``, which must succeed without errors."""
        settings = {**_LOGIN, "SNF_CONFIG": str(self.host.directory / "snf.conf"), **environ}
        with Child(self.host.namespace.name, settings, lambda: cli.main(words)) as child:
            status, output, errors = child.ended()
        assert (status, errors) == (0, ""), f"{words}: {status} {output}{errors}"

    def state(self) -> dict[str, Any]:
        """The kernel's state, without what tells one node from another."""
        found = self.host.state()
        links = {
            name: link if name == TAP else {**link, "address": ""}
            for name, link in found["links"].items()
        }
        tables = [
            (*names, [one.replace(self.spare, "SPARE") for one in elements])
            for *names, elements in found["nftables"]
        ]
        return {**found, "links": links, "nftables": tables}

    @property
    def uplink_mac(self) -> str:
        """Of eth2."""
        return str(self.host.links()["eth2"]["address"])


@dataclass(frozen=True)
class Generation:
    """A Ganeti, as far as it differs from others in what it calls during a migration."""

    name: str
    downs: bool
    """Whether it has a script for NICs that go, and says in ACTION and MIGRATION_PHASE what is
    going on. All have hooks."""

    def environment(
        self, nic: Mapping[str, str], action: str = "up", phase: str = ""
    ) -> dict[str, str]:
        """A script's environment."""
        if not self.downs:
            return {"VLAN": "", **nic}
        said = {"ACTION": action, "MIGRATION_PHASE": phase}
        return {**nic, **{name: value for name, value in said.items() if value}}

    def start(self, node: Node, nic: Mapping[str, str]) -> None:
        """An instance is started."""
        node.up(self.environment(nic))

    def accept(self, target: Node, nic: Mapping[str, str]) -> None:
        """The target has made the tap, and not yet started QEMU."""
        if nic["MODE"] == "ext" and self.downs:
            target.up(self.environment(nic, phase="pre"))
        elif nic["MODE"] != "routed":
            target.up(self.environment(nic))

    def succeeded(self, source: Node, target: Node, nic: Mapping[str, str]) -> None:
        """The guest runs on the target, and the source's QEMU is dead."""
        if self.downs:
            source.down(self.environment(nic, "down"))
        if nic["MODE"] in {"routed", "ext"}:
            target.up(self.environment(nic, phase="post"))

    def failed(self, target: Node, nic: Mapping[str, str]) -> None:
        """The target's QEMU is dead, and the guest where it was. Hooks do not run then."""
        if self.downs:
            target.down(self.environment(nic, "down"))


GANETI_3_0 = Generation("Ganeti 3.0", downs=False)
GANETI_3_2 = Generation("Ganeti 3.2", downs=True)


@dataclass
class Site:
    """The nodes, the rest of the world, and the guest."""

    directory: Path
    image: Image
    outside: Outside
    source: Node
    target: Node
    _held: ExitStack = field(default_factory=ExitStack)

    def nic(self, **nic: str) -> dict[str, str]:
        """What Ganeti says of a NIC, whatever its generation."""
        return {
            "INSTANCE": INSTANCE,
            "INTERFACE": TAP,
            "INTERFACE_INDEX": "0",
            "INTERFACE_UUID": "3cd35ad8-7b4a-4b0c-8d7c-6f3d8b8f2a01",
            "MAC": MAC,
            "TAGS": "",
            **nic,
        }

    def settings(self, nic: Mapping[str, str], **words: str) -> Settings:
        """A guest with the addresses of its NIC."""
        gateway, gateway6 = nic["NETWORK_GATEWAY"], nic["NETWORK_GATEWAY6"]
        address6 = eui64(IPv6Network(nic["NETWORK_SUBNET6"]), nic["MAC"])
        # A routed guest has nobody on its link but the node.
        length6 = "128" if nic["MODE"] == "routed" else "64"
        said = {
            "ADDRESS": f"{nic['IP']}/24",
            "GATEWAY": gateway,
            "ADDRESS6": f"{address6}/{length6}",
            "GATEWAY6": gateway6,
        }
        return Settings(self.image, nic["MAC"], {**said, **words})

    def tap(self, node: Node) -> Tap:
        """A tap on a node, ours until QEMU has it."""
        made = Tap(node.host.namespace.name, TAP)
        self._held.callback(made.close)
        return made

    def guest(self, name: str, settings: Settings, tap: Tap, *, incoming: bool = False) -> Guest:
        """QEMU, until the test ends."""
        made = Guest(self.directory / name, settings, tap, incoming=incoming)
        return self._held.enter_context(made)

    def hooks(self, nic: Mapping[str, str]) -> None:
        """``instance-migrate`` has succeeded: the hooks of both nodes."""
        environ = _hook(nic, self.source.name, self.target.name)
        for node in (self.source, self.target):
            node.hook(environ)

    def wire(self, name: str) -> packets.Port:
        """Whoever is at an interface outside: ``guests1`` is the wire to the source's br0."""
        return self._held.enter_context(packets.peer(self.outside.name, name))

    def ports(self, bridge: str) -> dict[str, str]:
        """By which port of an outside bridge MAC addresses are reached, as it has learned."""
        listed = self.outside.run(["bridge", "fdb", "show", "br", bridge])
        lines = [line.split() for line in listed.splitlines()]
        return {words[0]: words[2] for words in lines if "permanent" not in words}

    def close(self) -> None:
        """End what was started."""
        self._held.close()


@contextlib.contextmanager
def site(directory: Path, image: Image) -> Iterator[Site]:
    """Two nodes, their uplinks prepared; nothing is left of them afterwards."""
    with ExitStack() as held:
        world = held.enter_context(Outside())
        nodes: list[Node] = []
        for number in (1, 2):
            namespace = held.enter_context(NetworkNamespace())
            for end, wire in ((1, "guests"), (2, "uplink")):
                there = f"peer name eth{end} netns {namespace.name}"
                world.run(f"ip link add {wire}{number} type veth {there}".split())
                world.run(f"ip link set {wire}{number} master {wire} up".split())
            place = directory / f"node{number}"
            place.mkdir()
            host = Host(namespace, place)
            held.callback(host.close)
            host.sysctl("net/ipv6/conf/eth2/accept_dad", "0")
            host.ip(*LINKS.splitlines())
            node = Node(f"node{number}.gnt.test", host, f"203.0.113.{240 + number}")
            host.configure(CONFIGURATION.format(spare=node.spare))
            nodes.append(node)
            node.run("network", "uplink", "up")
        made = Site(directory, image, world, nodes[0], nodes[1])
        held.callback(made.close)
        yield made


def _hook(nic: Mapping[str, str], source: str, target: str) -> dict[str, str]:
    """What Ganeti 3.0 tells a hook after a migration.

    "POST" is what it finds afterwards: the new primary node is also the old one there.
    """
    names = ("MAC", "IP", "MODE", "LINK", *(name for name in nic if name.startswith("NETWORK_")))
    instance = {
        "INSTANCE_NAME": INSTANCE,
        "INSTANCE_SECONDARIES": "",
        "INSTANCE_STATUS": "up",
        "INSTANCE_HYPERVISOR": "kvm",
        "INSTANCE_OS_TYPE": "snf-image+default",
        "INSTANCE_TAGS": nic["TAGS"],
        "INSTANCE_NIC_COUNT": "1",
        "INSTANCE_NIC0_UUID": nic["INTERFACE_UUID"],
        "INSTANCE_NIC0_VLAN": "",
        **{f"INSTANCE_NIC0_{name}": nic[name] for name in names},
        "MIGRATE_LIVE": "True",
        "MIGRATE_CLEANUP": "False",
        "NEW_PRIMARY": target,
        "OLD_SECONDARY": "",
        "NEW_SECONDARY": "",
    }
    environ = {
        "CLUSTER": "cluster.gnt.test",
        "MASTER": source,
        "DATA_DIR": "/var/lib/ganeti",
        "HOOKS_PATH": "instance-migrate",
        "HOOKS_PHASE": "post",
        "HOOKS_VERSION": "2",
        "OBJECT_TYPE": "INSTANCE",
        "OP_CODE": "OP_INSTANCE_MIGRATE",
        "OP_TARGET": INSTANCE,
        **instance,
        "INSTANCE_PRIMARY": source,
        "OLD_PRIMARY": source,
        **{f"POST_{name}": value for name, value in instance.items()},
        "POST_INSTANCE_PRIMARY": target,
        "POST_OLD_PRIMARY": target,
    }
    return {f"GANETI_{name}": value for name, value in environ.items()}
