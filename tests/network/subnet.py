"""A subnet that routed guests are in: its wire, its router and other hosts, and guests.

The node's device ``up0`` is on the wire, without an address. The other end is ``wire`` in a
namespace whose kernel is the router and another host. Guests are namespaces too: what the node
knows as ``vif1`` is ``eth0`` there, as with a hypervisor that has a back end for each NIC.
"""

from __future__ import annotations

import socket
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from typing import TYPE_CHECKING

from scapy.layers.inet6 import (
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
)
from scapy.layers.l2 import ARP, Ether

from tests.machine import NetworkNamespace
from tests.network import packets
from tests.network.host import Host

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.network.packets import Port

TABLE = "100"
SUBNET, SUBNET6 = "198.51.100.0/24", "2001:db8:1::/64"
GATEWAY, GATEWAY6 = "198.51.100.1", "2001:db8:1::1"
OTHER, OTHER6 = "198.51.100.2", "2001:db8:1::2"
"""Another host of the subnet."""
FREE, FREE6 = "198.51.100.77", "2001:db8:1::77"
"""Nobody's."""
SPARE = "198.51.100.250"
"""In whose name the node sends ARP requests out of up0."""
OUTSIDE, OUTSIDE6 = "192.0.2.80", "2001:db8:ffff::80"
"""A host beyond the router."""

NODE_MAC, WIRE_MAC = "02:00:00:00:00:0a", "02:00:00:00:00:0b"
"""Of up0 and of wire."""
TAP_MAC = "cc:47:52:4e:45:54"
"""Of the node's side of every guest."""

IP, MAC = "198.51.100.10", "aa:00:00:38:54:25"
IP6 = "2001:db8:1:0:a800:ff:fe38:5425"
LINK_LOCAL = "fe80::a800:ff:fe38:5425"
"""Of the first guest."""
IP_2, MAC_2 = "198.51.100.11", "aa:00:00:38:54:26"
IP6_2 = "2001:db8:1:0:a800:ff:fe38:5426"
"""Of the second."""

ROUTED = {
    "MODE": "routed",
    "LINK": TABLE,
    "BRIDGE": "",
    "MAC": MAC,
    "IP": IP,
    "NETWORK_NAME": "public",
    "NETWORK_SUBNET": SUBNET,
    "NETWORK_GATEWAY": GATEWAY,
    "NETWORK_SUBNET6": SUBNET6,
    "NETWORK_GATEWAY6": GATEWAY6,
    "NETWORK_TAGS": "ip-less-routed",
}
"""What Ganeti passes for the first guest."""

ROUTED_2 = ROUTED | {"INSTANCE": "web2.gnt.test", "MAC": MAC_2, "IP": IP_2}

UPLINK = f"""
[network.uplink.{TABLE}]
interface = up0
subnet = {SUBNET}
gateway = {GATEWAY}
address = {SPARE}
subnet6 = {SUBNET6}
gateway6 = {GATEWAY6}
"""


@dataclass
class Subnet:
    """The wire behind up0, and who is on it."""

    node: Host
    router: Host
    _held: ExitStack = field(default_factory=ExitStack)

    def make(self) -> None:
        """The wire, the router on it, and a configuration of the node that has the uplink."""
        self.node.ip(
            f"link add up0 address {NODE_MAC} type veth "
            f"peer name wire address {WIRE_MAC} netns {self.router.namespace.name}"
        )
        self.node.sysctl("net/ipv6/conf/up0/accept_dad", "0")
        self.router.sysctl("net/ipv6/conf/wire/accept_dad", "0")
        self.router.ip(
            "link set wire up",
            *(f"address add {one} dev wire" for one in (f"{GATEWAY}/24", f"{OTHER}/24", OUTSIDE)),
            *(f"-6 address add {one}/64 dev wire nodad" for one in (GATEWAY6, OTHER6)),
            f"-6 address add {OUTSIDE6} dev wire nodad",
        )
        self.node.ip("link set up0 up")
        self.node.configure(UPLINK)

    def up(self) -> None:
        """The operator prepares the uplink."""
        status, _, errors = self.node.snf("uplink", "up")
        assert (status, errors) == (0, ""), errors

    def wire(self) -> Port:
        """Whoever is on the wire."""
        return self.router.peer("wire")

    def guest(self, vif: str, mac: str, address: str = "", address6: str = "") -> Host:
        """A guest with a kernel, configured by hand, at the interface ``vif`` of the node."""
        namespace = self._held.enter_context(NetworkNamespace())
        made = machine(namespace, self.node.directory / namespace.name)
        self.node.ip(
            f"link add {vif} type veth peer name eth0 address {mac} netns {namespace.name}"
        )
        made.sysctl("net/ipv6/conf/eth0/accept_dad", "0")
        made.sysctl("net/ipv6/conf/eth0/accept_ra", "0")
        commands = ["link set eth0 up"]
        if address:
            commands += [f"address add {address}/24 dev eth0", f"route add default via {GATEWAY}"]
        if address6:
            commands += [
                f"-6 address add {address6}/128 dev eth0 nodad",
                f"-6 route add {GATEWAY6} dev eth0",
                f"-6 route add default via {GATEWAY6} dev eth0",
            ]
        made.ip(*commands)
        self._held.callback(made.close)
        return made

    def close(self) -> None:
        """End the guests."""
        self._held.close()


@contextmanager
def subnet(host: Host) -> Iterator[Subnet]:
    """A subnet behind the node ``host``, whose uplink is not prepared yet."""
    with NetworkNamespace() as namespace:
        made = Subnet(host, machine(namespace, host.directory / "router"))
        try:
            made.make()
            yield made
        finally:
            made.close()
            made.router.close()


def machine(namespace: NetworkNamespace, directory: Path) -> Host:
    """Another machine than the node, which can be told and asked the same."""
    directory.mkdir()
    return Host(namespace, directory)


def conversation(one: Host, address: str, other: Host, to: str) -> str:
    """A datagram from ``address`` of a machine ``to`` that of another, and the answer.

    Returns the address that it came from. TimeoutError where one of them does not arrive.
    """
    with _opened(one, address) as asking, _opened(other, to) as answering:
        asking.sendto(b"question", answering.getsockname())
        question, sender = answering.recvfrom(100)
        assert question == b"question"
        answering.sendto(b"answer", sender)
        answer, answerer = asking.recvfrom(100)
        assert (answer, answerer[0]) == (b"answer", to)
        return str(sender[0])


def _opened(at: Host, address: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = at.inside(lambda: socket.socket(family, socket.SOCK_DGRAM))
    made.settimeout(packets.TIMEOUT)
    made.bind((address, 0))
    return made


def question(address: str, by: str, mac: str) -> bytes:
    """An ARP request, or a neighbour solicitation, for ``address`` by the host that has ``by``."""
    if ":" not in address:
        frame = Ether(src=mac, dst="ff:ff:ff:ff:ff:ff")
        return bytes(frame / ARP(op="who-has", hwsrc=mac, psrc=by, pdst=address))
    packed = IPv6Address(address).packed[-3:]
    group = IPv6Address(IPv6Address("ff02::1:ff00:0").packed[:-3] + packed)
    frame = Ether(src=mac, dst="33:33:ff:" + packed.hex(":"))
    packet = IPv6(src=by, dst=str(group), hlim=255) / ICMPv6ND_NS(tgt=address)
    return bytes(
        frame / packet if by == "::" else frame / packet / ICMPv6NDOptSrcLLAddr(lladdr=mac)
    )


def answer(frame: bytes) -> tuple[str, str] | None:
    """Of an ARP reply or a neighbour advertisement: (address, MAC address); else None."""
    read = Ether(frame)
    if ARP in read and read[ARP].op == 2:
        return read[ARP].psrc, read[ARP].hwsrc
    if ICMPv6NDOptDstLLAddr in read:
        return read[ICMPv6ND_NA].tgt, read[ICMPv6NDOptDstLLAddr].lladdr
    return None


def answered(port: Port, addresses: Sequence[str], known: str, by: str, mac: str) -> list[str]:
    """Those of ``addresses`` for which somebody answers a host at ``port``.

    The host has the addresses ``by`` and ``mac``. For ``known`` somebody must answer.
    """

    def address(frame: bytes) -> bytes:
        """What is asked for, or answered."""
        found = answer(frame)
        if found is not None:
            return found[0].encode()
        read = Ether(frame)
        if read.src != mac:
            return b""
        return str(read[ARP].pdst if ARP in read else read[ICMPv6ND_NS].tgt).encode()

    questions = {one: question(one, by, mac) for one in addresses}
    marker = question(known, by, mac)
    passed = packets.passed(port, port, list(questions.values()), marker, known_by=address)
    return [one for one in addresses if questions[one] in passed]
