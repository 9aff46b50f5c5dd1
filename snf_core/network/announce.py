"""That an address is reached by a MAC address, told to the neighbours by raw packet(7) sockets.

Each announcement is sent once and nothing is waited for: it is a hint that spares the neighbours
a time-out, and they ask where they miss it.
"""

from __future__ import annotations

import errno
import socket
import struct
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from snf_core.errors import NetworkError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from ipaddress import IPv6Address

    from snf_core.network.state import Announcement

_BROADCAST = b"\xff" * 6
_ETHERTYPE_ARP = 0x0806
_ETHERTYPE_IPV6 = 0x86DD

_ETHERNET = struct.Struct("!6s6sH")  # destination, source, type: IEEE Std 802.3

# RFC 826: hardware and protocol, their addresses' lengths, operation; sender's and target's
# hardware and protocol address.
_ARP = struct.Struct("!HHBBH6s4s6s4s")
_ARP_REQUEST, _ARP_REPLY = 1, 2

_IPV6 = struct.Struct("!IHBB16s16s")  # RFC 8200, section 3
_ICMPV6 = 58
_HOP_LIMIT = 255
"""RFC 4861, section 7.1.2: with any other, receivers drop it, as it may come from elsewhere."""

_ALL_NODES = bytes.fromhex("ff020000000000000000000000000001")
_ALL_NODES_GROUP = bytes.fromhex("333300000001")  # RFC 2464, section 7

# RFC 4861, sections 4.4 and 4.6.1: type, code, checksum, flags, target; the option's type and
# length in units of 8 bytes, link-layer address.
_ADVERTISEMENT = struct.Struct("!BBHI16sBB6s")
_NEIGHBOUR_ADVERTISEMENT = 136
_OVERRIDE = 1 << 29
"""Not a router, not solicited: what neighbours know already is to be replaced."""
_TARGET_LINK_LAYER_ADDRESS = 2

_REMEDIES = {
    errno.EPERM: "run it as root",
    errno.ENODEV: "it disappeared while it was being wired",
    errno.ENXIO: "it disappeared while it was being wired",
    errno.ENETDOWN: "set the interface up",
    errno.ENOBUFS: "its queue is full",
}


def announce(announcements: Sequence[Announcement]) -> None:
    """Send all of them, each out of its interface. Raises NetworkError naming that."""
    frames: dict[str, list[bytes]] = {}
    for one in announcements:
        frames.setdefault(one.interface, []).extend(frames_of(one))
    for interface, ours in frames.items():
        try:
            # Protocol 0: nothing is received.
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0) as port:
                port.bind((interface, 0))
                for frame in ours:
                    port.send(frame)
        except OSError as error:
            raise NetworkError(
                f"{interface}: addresses cannot be announced: {error.strerror}",
                remedy=_REMEDIES.get(error.errno or 0, "see the kernel's log"),
            ) from error


def frames_of(announcement: Announcement) -> Iterator[bytes]:
    """The Ethernet frames of an announcement, without the frame check sequence.

    IPv4: a gratuitous ARP request and a reply, since some heed only the one and some only the
    other (RFC 5227, section 3; RFC 5944, section 4.6). IPv6: an unsolicited neighbour
    advertisement (RFC 4861, section 7.2.6).
    """
    mac = bytes.fromhex(announcement.mac.replace(":", ""))
    if isinstance(announcement.address, IPv4Address):
        yield _arp(mac, announcement.address.packed, _ARP_REQUEST)
        yield _arp(mac, announcement.address.packed, _ARP_REPLY)
    else:
        yield _neighbour_advertisement(mac, announcement.address)


def _arp(mac: bytes, address: bytes, operation: int) -> bytes:
    # The target's hardware address has no meaning in a request, and is the sender's in such a
    # reply.
    target = mac if operation == _ARP_REPLY else bytes(6)
    body = _ARP.pack(1, 0x0800, 6, 4, operation, mac, address, target, address)
    return _ETHERNET.pack(_BROADCAST, mac, _ETHERTYPE_ARP) + body


def _neighbour_advertisement(mac: bytes, address: IPv6Address) -> bytes:
    def body(checksum: int) -> bytes:
        return _ADVERTISEMENT.pack(
            *(_NEIGHBOUR_ADVERTISEMENT, 0, checksum, _OVERRIDE, address.packed),
            *(_TARGET_LINK_LAYER_ADDRESS, 1, mac),
        )

    size = _ADVERTISEMENT.size
    pseudo_header = struct.pack("!16s16sII", address.packed, _ALL_NODES, size, _ICMPV6)
    header = _IPV6.pack(6 << 28, size, _ICMPV6, _HOP_LIMIT, address.packed, _ALL_NODES)
    ethernet = _ETHERNET.pack(_ALL_NODES_GROUP, mac, _ETHERTYPE_IPV6)
    return ethernet + header + body(_checksum(pseudo_header + body(0)))


def _checksum(data: bytes) -> int:
    """RFC 1071; of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
