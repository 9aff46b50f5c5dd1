"""Frames as fast as the kernel takes them: from a ring that is shared with it, or a guest's tap.

In a transmission ring (packet(7), the kernel's packet_mmap document) one system call sends
thousands of frames: all that is measured is the kernel's. Through a tap, each has one of its own.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import socket
import struct
import time
from pathlib import Path

# linux/if_packet.h
SOL_PACKET = 263
PACKET_VERSION = 10
PACKET_TX_RING = 13
PACKET_QDISC_BYPASS = 20
TPACKET_V2 = 1
TP_STATUS_SEND_REQUEST = 1

# linux/if_tun.h
TUNSETIFF = 0x400454CA
IFF_TAP = 0x0002
IFF_NO_PI = 0x1000

FRAMES = 4096
FRAME_SIZE = 256
HEADER = struct.Struct("=IIIHHIIHHI")  # struct tpacket2_hdr
OFFSET = 32  # TPACKET2_HDRLEN - sizeof(struct sockaddr_ll), where the kernel expects the frame


class Flood:
    """Sends one frame out of an interface of the calling thread's network namespace."""

    def __init__(self, interface: str, frame: bytes) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._socket.setsockopt(SOL_PACKET, PACKET_VERSION, TPACKET_V2)
        self._socket.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
        block = 1 << 16
        ring = struct.pack("=IIII", block, FRAMES * FRAME_SIZE // block, FRAME_SIZE, FRAMES)
        self._socket.setsockopt(SOL_PACKET, PACKET_TX_RING, ring)
        self._socket.bind((interface, 0))
        self._ring = mmap.mmap(self._socket.fileno(), FRAMES * FRAME_SIZE)
        header = HEADER.pack(TP_STATUS_SEND_REQUEST, len(frame), len(frame), *[0] * 7)
        slot = (header.ljust(OFFSET, b"\0") + frame).ljust(FRAME_SIZE, b"\0")
        self._slots = slot * FRAMES

    def send(self, seconds: float) -> float:
        """Send for so long; return the seconds that it took in the end."""
        start = time.perf_counter()
        while time.perf_counter() < start + seconds:
            self._ring[:] = self._slots
            self._socket.send(b"")
        return time.perf_counter() - start

    def close(self) -> None:
        """Release the ring."""
        self._ring.close()
        self._socket.close()


class Guest:
    """Sends one frame as a guest does whose hypervisor hands the kernel one after the other."""

    def __init__(self, tap: str, frame: bytes) -> None:
        self._tap = os.open("/dev/net/tun", os.O_RDWR)
        flags = IFF_TAP | IFF_NO_PI
        fcntl.ioctl(self._tap, TUNSETIFF, struct.pack("16sH22x", tap.encode(), flags))
        self._frame = frame

    def send(self, seconds: float) -> float:
        """Send for so long; return the seconds that it took in the end."""
        tap, frame, write = self._tap, self._frame, os.write
        start = time.perf_counter()
        while time.perf_counter() < start + seconds:
            for _ in range(FRAMES):
                write(tap, frame)
        return time.perf_counter() - start

    def close(self) -> None:
        """The tap stays if it was there before."""
        os.close(self._tap)


def received(interface: str) -> int:
    """Frames that an interface has received by the kernel's count; /sys is the namespace's."""
    return int(Path(f"/sys/class/net/{interface}/statistics/rx_packets").read_text())
