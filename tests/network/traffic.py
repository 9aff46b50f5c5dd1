"""What the guests of a ``segment`` send: the addresses there, and packets of the usual kinds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.inet import IP as IPv4
from scapy.layers.inet import UDP
from scapy.layers.inet6 import (
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
)
from scapy.layers.l2 import ARP, Ether

if TYPE_CHECKING:
    from scapy.packet import Packet

MAC = "aa:00:10:38:54:25"  # see host.NIC
IP = "10.0.0.5"
GLOBAL = "2001:db8:1:0:a800:10ff:fe38:5425"
LINK_LOCAL = "fe80::a800:10ff:fe38:5425"
"""What is the guarded guest's own."""

VICTIM = "aa:00:10:00:00:99"
VICTIM_IP = "10.0.0.9"
VICTIM_GLOBAL = "2001:db8:1:0:a800:10ff:fe00:99"
VICTIM_LINK_LOCAL = "fe80::a800:10ff:fe00:99"
GATEWAY = "10.0.0.1"
GATEWAY6 = "2001:db8:1::1"

STATION = "02:00:00:00:00:77"
"""A station beyond the bridge, to which frames are flooded."""
STATION_IP = "10.0.0.7"
STATION_GLOBAL = "2001:db8:1::7"
EVERYBODY = "ff:ff:ff:ff:ff:ff"

NETWORK = {
    "NETWORK_NAME": "tenants",
    "NETWORK_SUBNET": "10.0.0.0/24",
    "NETWORK_GATEWAY": GATEWAY,
    "NETWORK_SUBNET6": "2001:db8:1::/64",
    "NETWORK_GATEWAY6": GATEWAY6,
    "NETWORK_TAGS": "filtered",
    "IP": IP,
}
"""A network of which all is known."""


def ethernet(destination: str = STATION, source: str = MAC, **fields: Any) -> Ether:
    """An Ethernet header."""
    return Ether(dst=destination, src=source, **fields)


def arp(source: str = MAC, **fields: Any) -> Packet:
    """An ARP message to everybody, by default the guest's own request for the gateway."""
    own: dict[str, Any] = {
        "op": 1,
        "hwsrc": MAC,
        "psrc": IP,
        "hwdst": "00:00:00:00:00:00",
        "pdst": GATEWAY,
    }
    return ethernet(EVERYBODY, source) / ARP(**{**own, **fields})


def rarp(source: str = MAC, **fields: Any) -> Packet:
    """What QEMU sends to everybody in the guest's name when it has migrated, 42 bytes of it."""
    own = {"op": 3, "psrc": "0.0.0.0", "pdst": "0.0.0.0", "hwdst": MAC}
    return ethernet(EVERYBODY, source, type=0x8035) / arp(**{**own, **fields}).payload


def ip6(source: str = GLOBAL, destination: str = STATION_GLOBAL, **fields: Any) -> Packet:
    """Ethernet and IPv6 headers, groups to their own MAC addresses, anything else to STATION."""
    to = STATION
    if destination.startswith("ff"):
        to = "33:33:00:00:00:01"
    return ethernet(to) / IPv6(src=source, dst=destination, **fields)


def ip(source: str = IP, destination: str = STATION_IP, **fields: Any) -> Packet:
    """Ethernet and IPv4 headers."""
    to = EVERYBODY if destination == "255.255.255.255" else STATION
    return ethernet(to) / IPv4(src=source, dst=destination, **fields)


def dhcp(kind: str, source: int, destination: int) -> Packet:
    """A DHCP message in UDP."""
    message = BOOTP(op=1 if kind == "discover" else 2, chaddr=bytes.fromhex("aa0010385425"))
    options = DHCP(options=[("message-type", kind), "end"])
    return UDP(sport=source, dport=destination) / message / options


def solicitation(target: str, *options: Packet) -> Packet:
    """A neighbour solicitation."""
    return _with(ICMPv6ND_NS(tgt=target), options)


def advertisement(target: str, *options: Packet) -> Packet:
    """A neighbour advertisement that overrides what others know."""
    return _with(ICMPv6ND_NA(tgt=target, R=0, S=0, O=1), options)


def _with(message: Packet, options: tuple[Packet, ...]) -> Packet:
    for option in options:
        message /= option
    return message


def source(mac: str) -> Packet:
    """The source link-layer address option."""
    return ICMPv6NDOptSrcLLAddr(lladdr=mac)


def target(mac: str) -> Packet:
    """The target link-layer address option."""
    return ICMPv6NDOptDstLLAddr(lladdr=mac)


MARKER = bytes(arp(pdst="10.0.0.254"))
"""What passes from every guest here."""
