"""Every setup, from ``xl create`` on: one domU with a NIC of each kind, and who is around it.

``vif-snf`` wires them as libxl calls it, some when the guest is created, the others while it runs.
Over each of them the guest then talks by its own kernel, which leaves checksums and segmentation to
whoever is next (xen/io/netif.h).
"""

from __future__ import annotations

import ipaddress
import shutil
import socket
import struct
import threading
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6ND_RA, IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether

from snf_core.network.eui64 import eui64
from tests.machine import NetworkNamespace
from tests.network import packets
from tests.network import subnet as net
from tests.network.host import Host
from tests.network.test_openvswitch import RUNTIME, OpenVSwitch, run
from tests.xen import domu
from tests.xen.attacker import Dom0, in_order

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

NAME = "web1.gnt.test"
BRIDGED, FILTERED, PROTECTED, LISTED, ROUTED, SWITCHED = range(6)
"""The NICs, by their numbers; those on bridges are in the subnets 10.0.NUMBER.0/24."""

LAN, LAN6 = "10.0.{0}.7", "fd00:{0}::7"
OTHER = "10.0.{0}.8"
"""Addresses of who is on the bridge."""
LAN_MAC = "02:00:00:00:00:77"
OWN = "10.0.{0}.5"

PUBLIC, ROUTER = "192.0.2.9", "192.0.2.1"
"""The node's own address on the uplink's wire, and its router there."""
UPLINK = net.UPLINK.replace(f"gateway = {net.GATEWAY}", f"gateway = {ROUTER}").replace(
    f"address = {net.SPARE}\n", ""
)

LINKS = f"""\
link add br0 type bridge mcast_snooping 0
link set br0 up
link add veth0 type veth peer name wire0 address {LAN_MAC} netns {{0}}
link set veth0 master br0 up
"""

DATA = bytes(range(256)) * 4096

_EXCHANGE = """
import socket
data = bytes(range(256)) * 4096
made = socket.socket({family})
made.settimeout(60)
made.bind(({source!r}, 0))
made.connect(({to!r}, {port}))
made.sendall(data)
made.shutdown(socket.SHUT_WR)
came = bytearray()
while part := made.recv(1 << 16):
    came += part
assert bytes(came) == data[::-1], len(came)
"""


def mac(number: int) -> str:
    return net.MAC if number == ROUTED else f"aa:00:10:38:54:1{number}"


def own6(number: int) -> str:
    return str(eui64(ipaddress.IPv6Network(f"fd00:{number}::/64"), mac(number)))


def description(number: int, mode: str = "bridged", link: str = "br0", **more: str) -> str:
    known = {"MODE": mode, "LINK": link, "IP": OWN.format(number), **more}
    quoted = {name for name in known if name == "TAGS" or name.startswith("NETWORK_")}
    return "".join(
        f'{name}="{value}"\n' if name in quoted else f"{name}={value}\n"
        for name, value in sorted(known.items(), key=lambda item: item[0] not in quoted)
    )


NICS = {
    BRIDGED: description(BRIDGED),
    FILTERED: description(
        FILTERED,
        NETWORK_NAME="tenants",
        NETWORK_SUBNET="10.0.1.0/24",
        NETWORK_SUBNET6="fd00:1::/64",
        NETWORK_TAGS="filtered",
    ),
    PROTECTED: description(PROTECTED, TAGS=f"synnefo:network:{PROTECTED}:protected"),
    LISTED: description(LISTED, TAGS=f"gnt:whitelist_ip:{LAN.format(LISTED)}"),
    ROUTED: description(
        ROUTED,
        "routed",
        net.TABLE,
        IP=net.IP,
        **{name: value for name, value in net.ROUTED.items() if name.startswith("NETWORK_")}
        | {"NETWORK_TAGS": "ip-less-routed masq"},
    ),
    SWITCHED: description(SWITCHED, "openvswitch", "ovs0"),
}


@dataclass
class World:
    """The guest, its node, and who is around."""

    node: Host
    lan: Host
    """A machine on the bridge, by its interface wire0."""
    router: Host
    """Beyond the uplink up0."""
    guest: domu.Guest
    told: list[bytes]
    """What was heard on the uplink's wire until the guest was there."""
    before: dict[str, Any]

    def exchange(self, source: str, other: Host, to: str) -> str:
        """A mebibyte from the guest by TCP, and back: the address that it came from."""
        family = socket.AF_INET6 if ":" in to else socket.AF_INET
        server = other.inside(lambda: socket.create_server((to, 0), family=family))
        seen: list[str] = []
        thread = threading.Thread(target=_serve, args=(server, seen))
        thread.start()
        try:
            port = server.getsockname()[1]
            family_name = f"socket.{family.name}"
            self.guest.python(
                _EXCHANGE.format(family=family_name, source=source, to=to, port=port),
                timeout=120,
            )
        finally:
            thread.join()
            server.close()
        assert seen, "what came was not what was sent"
        return seen[0]

    def leaving(self, number: int, *frames: bytes, offload: bool = False) -> list[bytes]:
        """Those of a NIC's frames that reach who is on the bridge; a ping of its own does."""
        port = self.guest.port(f"eth{number}", offload=offload)
        header = bytes(10) if offload else b""
        marker = header + ping(number)
        with self.lan.peer("wire0") as wire:
            return packets.passed(port, wire, list(frames), marker, known_by=tail)


def _serve(server: socket.socket, seen: list[str]) -> None:
    server.settimeout(120)
    made, peer = server.accept()
    with made:
        made.settimeout(120)
        came = bytearray()
        while part := made.recv(1 << 16):
            came += part
        made.sendall(DATA[::-1])
        if bytes(came) == DATA:
            seen.append(peer[0])


def tail(frame: bytes) -> bytes:
    """What a frame is known by, as headers of segmentation are in front of some."""
    return frame[-12:]


def ethernet(number: int, source: str = "", to: str = LAN_MAC) -> Ether:
    return Ether(src=source or mac(number), dst=to)


def ping(number: int) -> bytes:
    packet = IP(src=OWN.format(number), dst=LAN.format(number))
    return bytes(ethernet(number) / packet / ICMP() / b"this is ping")


@contextmanager
def described(name: str, texts: Mapping[int, str]) -> Iterator[None]:
    """A domain's NICs, in the words of the operator."""
    directory = Path("/etc/snf/nics", name)
    directory.mkdir(parents=True)
    try:
        for number, text in texts.items():
            (directory / str(number)).write_text(text)
        yield
    finally:
        shutil.rmtree(directory)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with ExitStack() as held:
        namespace = held.enter_context(Dom0())
        node = Host(namespace, tmp_path_factory.mktemp("dom0"))
        held.callback(node.close)
        subnet = held.enter_context(net.subnet(node))
        held.callback(node.ip, "link delete up0")
        lan = net.machine(held.enter_context(NetworkNamespace()), node.directory / "lan")
        node.ip(*LINKS.format(lan.namespace.name).splitlines())
        held.callback(node.ip, "link delete br0")
        addresses = [f"address add {one}/24 dev wire0" for one in _addresses()]
        lan.sysctl("net/ipv6/conf/wire0/accept_dad", "0")
        lan.ip("link set wire0 up", *addresses)
        lan.ip(f"-6 address add {LAN6.format(FILTERED)}/64 dev wire0 nodad")
        RUNTIME.mkdir(exist_ok=True)
        switch = OpenVSwitch(node)
        held.callback(switch.stop)
        switch.start_database()
        switch.start_switch()
        run("ovs-vsctl", "add-br", "ovs0")
        held.callback(run, "ovs-vsctl", "del-br", "ovs0")
        node.ip(f"address add {LAN.format(SWITCHED)}/24 dev ovs0", "link set ovs0 up")

        node.ip(f"address add {PUBLIC}/24 dev up0")
        subnet.router.ip(f"address add {ROUTER}/24 dev wire")
        node.configure(UPLINK)
        subnet.up()
        held.callback(node.snf, "uplink", "down")
        assert node.snf("install")[0] == 0
        held.callback(node.snf, "uninstall")
        held.enter_context(described(NAME, NICS))
        before = node.state()
        wire = held.enter_context(subnet.wire())
        vifs = [f"mac={mac(number)},script=vif-snf" for number in NICS]
        guest = held.enter_context(domu.Guest(NAME, vifs[:2]))
        for vif in vifs[2:]:  # six scripts at once take an emulated dom0 too long
            attached = domu.xl("network-attach", NAME, *vif.split(","))
            assert attached.returncode == 0, attached.stdout
        for number in NICS:
            in_order(namespace, guest.vif(number))
        _configure(guest)
        yield World(node, lan, subnet.router, guest, wire.drain(), before)


def _addresses() -> Iterator[str]:
    for number in (BRIDGED, FILTERED, PROTECTED, LISTED):
        yield LAN.format(number)
        yield OTHER.format(number)


def _configure(guest: domu.Guest) -> None:
    # Each NIC answers for its own address, and not for another's on the same bridge.
    settings = "/proc/sys/net/ipv4/conf/all"
    lines = [
        f"while [ ! -e /sys/class/net/eth{max(NICS)} ]; do usleep 50000; done",
        f"echo 1 >{settings}/arp_ignore && echo 2 >{settings}/arp_announce",
    ]
    for number in NICS:
        line = f"ip link set eth{number} up"
        if number != ROUTED:
            line += f" && ip address add {OWN.format(number)}/24 dev eth{number}"
        lines.append(line)
    six = "echo 0 >/proc/sys/net/ipv6/conf/{0}/disable_ipv6 && ip -6 address add {1} dev {0}"
    guest.run(
        " && ".join(
            [
                *lines,
                six.format(f"eth{FILTERED}", f"{own6(FILTERED)}/64"),
                six.format(f"eth{ROUTED}", f"{net.IP6}/128"),
                f"ip address add {net.IP}/24 dev eth{ROUTED}",
                f"ip route add default via {net.GATEWAY}",
                f"ip -6 route add {net.GATEWAY6} dev eth{ROUTED}",
                f"ip -6 route add default via {net.GATEWAY6} dev eth{ROUTED}",
            ]
        )
    )


def test_the_guest_has_its_nics_in_their_order(world: World) -> None:
    said = world.guest.run("cat /sys/class/net/eth*/address")
    assert said.split() == [mac(number) for number in NICS]


@pytest.mark.parametrize("number", [BRIDGED, FILTERED, PROTECTED, LISTED])
def test_on_a_bridge(world: World, number: int) -> None:
    source, to = OWN.format(number), LAN.format(number)
    assert world.exchange(source, world.lan, to) == source


def test_on_a_bridge_by_ipv6(world: World) -> None:
    source, to = own6(FILTERED), LAN6.format(FILTERED)
    assert world.exchange(source, world.lan, to) == source


def test_on_a_switch(world: World) -> None:
    assert world.guest.vif(SWITCHED) in run("ovs-vsctl", "list-ports", "ovs0").split()
    source, to = OWN.format(SWITCHED), LAN.format(SWITCHED)
    assert world.exchange(source, world.node, to) == source


def test_routed_and_masqueraded(world: World) -> None:
    """Its own subnet sees the guest, the world the node, and by IPv6 all the guest."""
    assert world.exchange(net.IP, world.router, net.OTHER) == net.IP
    assert world.exchange(net.IP, world.router, net.OUTSIDE) == PUBLIC
    assert world.exchange(net.IP6, world.router, net.OUTSIDE6) == net.IP6


def test_the_wire_was_told_before_the_guest_began(world: World) -> None:
    """The vif has no carrier yet when that is said, and the uplink has."""
    read = [Ether(frame) for frame in world.told]
    arp = [(one[ARP].psrc, one[ARP].hwsrc) for one in read if ARP in one]
    assert (net.IP, net.NODE_MAC) in arp


def test_a_nic_that_is_no_more_than_bridged(world: World) -> None:
    forged = ethernet(BRIDGED, "aa:00:00:00:00:99") / IP(src="10.0.0.99", dst=LAN.format(0)) / UDP()
    assert world.leaving(BRIDGED, bytes(forged / b"from nobody.")) != []


def offloaded(packet: Ether, size: int) -> bytes:
    """TCP whose checksum and segments (of 1400 bytes) are left to be made, with that said in
    front (linux/virtio_net.h)."""
    family = 1 if IP in packet else 4
    start = 34 if IP in packet else 54
    # virtio_net_hdr: flags, kind, length of headers, of segments, where the checksum begins, is.
    header = struct.pack("=BBHHHH", 1, family, start + 20, 1400, start, 16)
    body = bytes(packet / TCP(sport=4000, dport=9, flags="A") / bytes(size))
    return header + body[:-12]


def test_large_frames_are_filtered_as_small_ones(world: World) -> None:
    """Up to 64 KiB, as the guest's kernel hands them out for segmentation."""
    own = IP(src=OWN.format(FILTERED), dst=LAN.format(FILTERED))
    own_6 = IPv6(src=own6(FILTERED), dst=LAN6.format(FILTERED))
    cases = {
        b"large, own..": ethernet(FILTERED) / own,
        b"large6, own.": ethernet(FILTERED) / own_6,
        b"another's ip": ethernet(FILTERED) / IP(src="10.0.1.99", dst=own.dst),
        b"another's 6.": ethernet(FILTERED) / IPv6(src="fd00:1::99", dst=own_6.dst),
        b"another mac.": ethernet(FILTERED, "aa:00:00:00:00:99") / own,
        b"another mac6": ethernet(FILTERED, "aa:00:00:00:00:99") / own_6,
    }
    frames = [
        offloaded(packet, 60000 if b"ip" in word or b"6, own" in word else 4000) + word
        for word, packet in cases.items()
    ]
    passing = world.leaving(FILTERED, *frames, offload=True)
    assert [tail(one) for one in passing] == [b"large, own..", b"large6, own."]
    # From a NIC without the filter, all of them pass.
    header = bytes(10) + ping(BRIDGED)
    port = world.guest.port(f"eth{BRIDGED}", offload=True)
    with world.lan.peer("wire0") as wire:
        passed = packets.passed(port, wire, frames, header, known_by=tail)
    assert passed == frames


def test_a_filtered_nic_attacks(world: World) -> None:
    own = IP(src=OWN.format(FILTERED), dst=LAN.format(FILTERED)) / UDP(dport=9)
    forged = IP(src="10.0.1.99", dst=LAN.format(FILTERED)) / UDP(dport=9)
    everybody = ethernet(FILTERED, to="33:33:00:00:00:01")
    arp = ARP(op=2, hwsrc=mac(FILTERED), psrc="10.0.1.99", pdst=LAN.format(FILTERED))
    frames = [
        bytes(ethernet(FILTERED) / own / b"its own data"),
        bytes(ethernet(FILTERED) / forged / b"another's ip"),
        bytes(ethernet(FILTERED, "aa:00:00:00:00:99") / own / b"another mac."),
        bytes(ethernet(FILTERED) / Dot1Q(vlan=7) / own / b"vlan tagged."),
        bytes(everybody / IPv6(src="fe80::1", dst="ff02::1") / ICMPv6ND_RA() / b"a router...."),
        bytes(ethernet(FILTERED) / arp / b"another arp."),
    ]
    assert world.leaving(FILTERED, *frames) == frames[:1]
    assert world.leaving(BRIDGED, *frames) == frames, "who is not filtered may"


def test_a_protected_nic_hears_nothing_that_it_did_not_ask_for(world: World) -> None:
    to = ethernet(PROTECTED, LAN_MAC, mac(PROTECTED))
    packet = IP(src=LAN.format(PROTECTED), dst=OWN.format(PROTECTED))
    begun = bytes(to / packet / TCP(dport=22, flags="S") / b"a connection")
    marker = bytes(to / packet / ICMP() / b"this is ping")
    with world.lan.peer("wire0") as wire:
        port = world.guest.port(f"eth{PROTECTED}")
        assert packets.passed(wire, port, [begun], marker, known_by=tail) == []
        port = world.guest.port(f"eth{BRIDGED}")
        # Ports of a bridge hear what is for everybody.
        heard = [b"\xff" * 6 + one[6:] for one in (begun, marker)]
        assert packets.passed(wire, port, heard[:1], heard[1], known_by=tail) == heard[:1]


def test_a_nic_that_may_talk_to_listed_ones_only(world: World) -> None:
    packet = IP(src=OWN.format(LISTED), dst=OTHER.format(LISTED)) / UDP(dport=9)
    frame = bytes(ethernet(LISTED) / packet / b"not listed..")
    assert world.leaving(LISTED, frame) == []
    assert world.leaving(BRIDGED, frame) == [frame]


def test_a_routed_nic_attacks(world: World) -> None:
    def datagram(word: bytes, source: str, sender: str = net.MAC) -> bytes:
        packet = IP(src=source, dst=net.OTHER) / UDP(dport=9)
        return bytes(Ether(src=sender, dst=net.TAP_MAC) / packet / word)

    frames = [
        datagram(b"another's ip", net.IP_2),
        datagram(b"the node's..", PUBLIC),
        datagram(b"another mac.", net.IP, net.MAC_2),
    ]
    marker = datagram(b"its own data", net.IP)
    port = world.guest.port(f"eth{ROUTED}")
    with world.router.peer("wire") as wire:
        assert packets.passed(port, wire, frames, marker, known_by=tail) == []


def test_the_host_is_no_station_of_the_guests_networks(world: World) -> None:
    """It has an address of its own where it is the guest's router, and there alone."""
    found = {}
    for number in NICS:
        shown = world.node.ip(f"address show dev {world.guest.vif(number)}")[0]
        found[number] = [one["local"] for link in shown for one in link.get("addr_info", ())]
    local = "fe80::ce47:52ff:fe4e:4554"
    assert found == {number: [local] if number == ROUTED else [] for number in NICS}


def test_nothing_is_left_when_the_guest_has_gone(world: World) -> None:
    assert world.node.left() == sorted(["up0.json", *(f"{world.guest.vif(n)}.json" for n in NICS)])
    for number in range(2, len(NICS)):
        done = domu.xl("network-detach", NAME, str(number))
        assert done.returncode == 0, done.stdout
    world.guest.power_off()
    assert world.node.state() == world.before
    assert world.node.left() == ["up0.json"]


def test_who_comes_back_is_heard_at_once(world: World, tmp_path: Path) -> None:
    """After save and restore, as after a migration, the guest's kernel announces its addresses
    when it has connected; that is not lost on vifs that were only just wired."""
    texts = {number: NICS[kind] for number, kind in enumerate((FILTERED, ROUTED))}
    vifs = [f"mac={mac(number)},script=vif-snf" for number in (FILTERED, ROUTED)]
    file = str(tmp_path / "saved")
    with described("web2", texts), domu.Guest("web2", vifs) as guest:
        guest.run(
            f"ip link set eth0 up && ip address add {OWN.format(FILTERED)}/24 dev eth0 && "
            f"ip link set eth1 up && ip address add {net.IP}/24 dev eth1"
        )
        with world.lan.peer("wire0") as wire, world.router.peer("wire") as uplink:
            for done in (domu.xl("save", "web2", file), domu.xl("restore", file)):
                assert done.returncode == 0, done.stdout
            guest.reattach()
            packets.wait_for(wire, lambda frame: announces(frame, OWN.format(FILTERED)))
            packets.wait_for(uplink, lambda frame: announces(frame, net.IP))
        guest.run(f"ping -c 1 -W 20 {LAN.format(FILTERED)} && ping -c 1 -W 20 {net.OTHER}")


def announces(frame: bytes, address: str) -> bool:
    """Whether it is a gratuitous ARP message."""
    read = Ether(frame)
    return ARP in read and read[ARP].psrc == read[ARP].pdst == address
