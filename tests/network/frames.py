"""Frames between a guest, which is whoever holds the tap, and an interface on the wire.

``frames.py TAP INTERFACE PAYLOAD``: a frame with so many bytes of payload must cross in both
directions within 30 s. They are sent again and again, since a port starts to forward only when
the kernel's link watch has seen its carrier.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import struct
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# linux/if_tun.h
TUNSETIFF = 0x400454CA
IFF_TAP = 0x0002
IFF_NO_PI = 0x1000

GUEST = bytes.fromhex("aa0010385425")
PEER = bytes.fromhex("020000000099")
ETHERTYPE = 0x88B5  # IEEE Std 802: for local experiments


def crosses(
    name: str, send: Callable[[bytes], object], descriptor: int, limit: int, frame: bytes
) -> None:
    """Exit with an error unless ``frame``, once sent, arrives at ``descriptor``."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        send(frame)
        while select.select([descriptor], [], [], 0.05)[0]:
            if os.read(descriptor, limit) == frame:
                return
    sys.exit(f"no frame of {len(frame)} bytes came {name}")


def main() -> None:
    """Send and receive."""
    tap, wire, payload = sys.argv[1], sys.argv[2], int(sys.argv[3])
    guest = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(guest, TUNSETIFF, struct.pack("16sH22x", tap.encode(), IFF_TAP | IFF_NO_PI))
    body = ETHERTYPE.to_bytes(2, "big") + bytes(index % 251 for index in range(payload))
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETHERTYPE)) as peer:
        peer.bind((wire, ETHERTYPE))
        limit = payload + 100
        crosses(
            "from the guest",
            lambda frame: os.write(guest, frame),
            peer.fileno(),
            limit,
            PEER + GUEST + body,
        )
        crosses("to the guest", peer.send, guest, limit, GUEST + PEER + body)


if __name__ == "__main__":
    main()
