"""Announcements, received by a real kernel's neighbour tables, and read by scapy."""

from __future__ import annotations

import functools
import ipaddress
import json
import time
from typing import TYPE_CHECKING

import pytest
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6NDOptDstLLAddr, IPv6
from scapy.layers.l2 import ARP, Ether

from snf_core.errors import NetworkError
from snf_core.network.announce import announce
from snf_core.network.state import Announcement
from tests.machine import NetworkNamespace
from tests.network.packets import inside, peer, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

MAC = "02:00:00:00:00:07"
OLD = "02:00:00:00:00:06"
ADDRESSES = ("192.0.2.7", "2001:db8::7")


@pytest.fixture
def wire() -> Iterator[NetworkNamespace]:
    """uplink, joined to router, which knows both addresses by another MAC address."""
    with NetworkNamespace() as namespace:
        for words in (
            "link add uplink type veth peer name router",
            "link set uplink up",
            "link set router up",
            "address add 192.0.2.1/24 dev router",
            "address add 2001:db8::1/64 dev router nodad",
            *(f"neigh add {one} lladdr {OLD} dev router nud stale" for one in ADDRESSES),
        ):
            namespace.run(["ip", *words.split()])
        # Before the kernel's link watch has seen their carrier, frames go nowhere.
        deadline = time.monotonic() + 60
        while operational_states(namespace) != {"UP"}:
            assert time.monotonic() < deadline
        yield namespace


def operational_states(namespace: NetworkNamespace) -> set[str]:
    """What the kernel says of both ends (RFC 2863; operstates in the kernel's documentation)."""
    shown = json.loads(namespace.run(["ip", "-json", "link", "show", "type", "veth"]))
    return {link["operstate"] for link in shown}


def test_a_neighbouring_kernel_learns_the_address(wire: NetworkNamespace) -> None:
    known = dict.fromkeys(ADDRESSES, OLD)
    assert neighbours(wire) == known
    for address in ADDRESSES:
        inside(wire.name, functools.partial(announce, [announcement(address)]))
        known[address] = MAC
        deadline = time.monotonic() + 60
        while neighbours(wire) != known:
            assert time.monotonic() < deadline, neighbours(wire)


def test_what_is_sent(wire: NetworkNamespace) -> None:
    with peer(wire.name, "router") as router:
        inside(wire.name, lambda: announce([announcement(one) for one in ADDRESSES]))
        ours = bytes.fromhex(MAC.replace(":", ""))
        frames = [wait_for(router, lambda frame: frame[6:12] == ours) for _ in range(3)]
    request, reply, advertisement = map(Ether, frames)

    for frame, operation, target in (
        (request, 1, "00:00:00:00:00:00"),
        (reply, 2, MAC),
    ):
        assert (frame.dst, frame.src, frame.type) == ("ff:ff:ff:ff:ff:ff", MAC, 0x0806)
        arp = frame[ARP]
        assert (arp.hwtype, arp.ptype, arp.hwlen, arp.plen) == (1, 0x0800, 6, 4)
        assert (arp.op, arp.hwsrc, arp.hwdst) == (operation, MAC, target)
        assert arp.psrc == arp.pdst == "192.0.2.7"

    assert (advertisement.dst, advertisement.src) == ("33:33:00:00:00:01", MAC)
    header, said = advertisement[IPv6], advertisement[ICMPv6ND_NA]
    assert (header.src, header.dst, header.hlim) == ("2001:db8::7", "ff02::1", 255)
    assert (said.R, said.S, said.O, said.tgt) == (0, 0, 1, "2001:db8::7")
    assert said[ICMPv6NDOptDstLLAddr].lladdr == MAC
    checksum = said.cksum
    del said.cksum
    assert Ether(bytes(advertisement))[ICMPv6ND_NA].cksum == checksum, "as scapy reckons it"


@pytest.mark.parametrize(
    ("interface", "said"),
    [("nothing", "nothing: .*No such device"), ("asleep", "asleep: .*set the")],
)
def test_an_interface_that_cannot_is_named(
    wire: NetworkNamespace, interface: str, said: str
) -> None:
    wire.run(["ip", "link", "add", "asleep", "type", "bridge"])
    with pytest.raises(NetworkError, match=said):
        inside(wire.name, lambda: announce([announcement("192.0.2.7", interface)]))


def test_nothing_is_announced_without_an_announcement() -> None:
    announce([])


def announcement(address: str, interface: str = "uplink") -> Announcement:
    return Announcement(interface, ipaddress.ip_address(address), MAC)


def neighbours(namespace: NetworkNamespace) -> dict[str, str]:
    """The MAC addresses by which ``router`` knows its neighbours."""
    listed = json.loads(namespace.run(["ip", "-json", "neigh", "show", "dev", "router"]))
    return {one["dst"]: one["lladdr"] for one in listed if one["dst"] in ADDRESSES}
