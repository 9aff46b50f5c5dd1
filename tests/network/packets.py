"""Frames sent and received at the two ends of a node's wires, in a network namespace.

A ``Port`` is such an end. A guest's is a tap, held open as a hypervisor holds it (``guest``); any
other is a packet socket on an interface (``peer``). Both send and receive whole Ethernet frames
without the frame check sequence, VLAN tags included. Taps do not pad: a frame arrives as long as
it was sent.

That a frame does not pass needs no waiting: ``passed`` sends another behind it that may pass, and
when that has arrived, what was sent before it has arrived or been dropped.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import select
import socket
import struct
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

T = TypeVar("T")

TIMEOUT = 60.0
"""Seconds after which something that must happen has not: generous, for emulated machines."""

_RESEND = 0.2  # seconds without the marker after which it is sent again
_QUIET = 0.05  # seconds without a frame after which none is under way
_FRAME = 1 << 16  # more than the largest frame

# linux/if_tun.h
_TUNSETIFF = 0x400454CA
_IFF_TAP = 0x0002
_IFF_NO_PI = 0x1000

# linux/if_packet.h, linux/if_ether.h, asm-generic/socket.h
_SOL_PACKET = 263
_PACKET_AUXDATA = 8
_PACKET_IGNORE_OUTGOING = 23
_AUXDATA = struct.Struct("=IIIHHHH")  # status, len, snaplen, mac, net, vlan_tci, vlan_tpid
_TP_STATUS_VLAN_VALID = 1 << 4
_TP_STATUS_VLAN_TPID_VALID = 1 << 6
_ETH_P_ALL = 0x0003
_ETH_P_8021Q = 0x8100
_SO_RCVBUFFORCE = 33

_CLONE_NEWNET = 0x40000000  # sched.h

_libc = ctypes.CDLL(None, use_errno=True)


def enter(namespace: str) -> None:
    """Move the calling thread into a network namespace, for good. Raises OSError."""
    descriptor = os.open(Path("/run/netns", namespace), os.O_RDONLY)
    try:
        if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), namespace)
    finally:
        os.close(descriptor)


def inside(namespace: str, function: Callable[[], T]) -> T:
    """Call ``function`` in a network namespace, in a thread of its own, and return its result.

    What it raises is raised here. Sockets that it makes stay in the namespace, and its
    /proc/sys/net is the namespace's; the calling thread is never in it.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def call() -> None:
        try:
            enter(namespace)
            results.append(function())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


class Port:
    """One end of a wire: a source and a sink of Ethernet frames. Close it, or use ``with``."""

    def __init__(self, name: str, descriptor: int) -> None:
        """``descriptor`` is the port's from now on."""
        self.name = name
        """The interface."""
        self._descriptor = descriptor
        os.set_blocking(descriptor, False)

    def __enter__(self) -> Port:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of it: a tap loses its carrier. A second time does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def send(self, frame: bytes) -> None:
        """Send a frame. It passes, or is dropped, before this returns, or very soon after.

        OSError where the interface is down or the frame too long for it.
        """
        os.write(self._descriptor, frame)

    def receive(self, timeout: float = 0) -> bytes | None:
        """The next frame, waiting up to ``timeout`` seconds for it; None where none has come.

        Everything comes, the kernel's own router solicitations and multicast reports included.
        Frames that the node's own stack made may lack their checksum at a ``peer``.
        """
        if not select.select([self._descriptor], [], [], timeout)[0]:
            return None
        return self._read()

    def drain(self, quiet: float = 0) -> list[bytes]:
        """All frames that have come, until none has for ``quiet`` seconds."""
        return list(iter(lambda: self.receive(quiet), None))

    def _read(self) -> bytes:
        return os.read(self._descriptor, _FRAME)


class _Peer(Port):
    """A packet socket. The kernel takes VLAN tags off into auxiliary data: see packet(7)."""

    def __init__(self, name: str, opened: socket.socket) -> None:
        self._socket = opened
        super().__init__(name, opened.fileno())

    def close(self) -> None:
        self._socket.close()
        self._descriptor = -1

    def _read(self) -> bytes:
        frame, control, _, _ = self._socket.recvmsg(_FRAME, socket.CMSG_SPACE(_AUXDATA.size))
        for level, kind, data in control:
            if (level, kind) == (_SOL_PACKET, _PACKET_AUXDATA):
                status, *_, tag, protocol = _AUXDATA.unpack(data)
                if status & _TP_STATUS_VLAN_VALID:
                    if not status & _TP_STATUS_VLAN_TPID_VALID:
                        protocol = _ETH_P_8021Q
                    return frame[:12] + struct.pack("!HH", protocol, tag) + frame[12:]
        return frame


def guest(namespace: str, tap: str) -> Port:
    """The guest's end of a tap that exists. While it is open, the tap has a carrier.

    Raises OSError: EBUSY where another holds it.
    """

    def opened() -> int:
        if not Path(f"/proc/sys/net/ipv4/conf/{tap}").exists():  # it would be made
            raise FileNotFoundError(f"{tap} does not exist in {namespace}")
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        try:
            request = struct.pack("16sH22x", tap.encode(), _IFF_TAP | _IFF_NO_PI)
            fcntl.ioctl(descriptor, _TUNSETIFF, request)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    return Port(tap, inside(namespace, opened))


def peer(namespace: str, interface: str) -> Port:
    """A station at an interface, usually the far end of a veth that is a port of a bridge.

    It sends out of the interface and receives what comes in by it, whatever its destination. On
    a bridge itself, that is what the node sends, and what reaches the node.
    """

    def opened() -> socket.socket:
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        try:
            made.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
            made.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
            made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 22)
            made.bind((interface, _ETH_P_ALL))
        except OSError:
            made.close()
            raise
        return made

    return _Peer(interface, inside(namespace, opened))


def passed(
    sender: Port,
    receiver: Port,
    frames: Sequence[bytes],
    marker: bytes,
    *,
    known_by: Callable[[bytes], bytes] = bytes,
    timeout: float = TIMEOUT,
) -> list[bytes]:
    """Send ``frames``; those of them that arrive, as they were sent, in the order of arrival.

    ``marker`` is a frame that passes: it is sent first, again and again until it arrives, since
    a port forwards only once the kernel's link watch has seen its carrier; and once more behind
    the frames. Where frames are changed on their way (routed, translated), ``known_by`` takes
    the part of a frame that is not, the payload for example; the frames and the marker must
    differ in it.

    Raises AssertionError where the marker does not arrive within ``timeout`` seconds.
    """
    sent = {known_by(frame): frame for frame in frames}
    mark = known_by(marker)
    assert len(sent) == len(frames), "the frames cannot be told from each other"
    assert mark not in sent, "the marker cannot be told from the frames"
    deadline = time.monotonic() + timeout
    with _on_one_processor():
        _connect(sender, receiver, marker, known_by, deadline)
        for frame in frames:
            sender.send(frame)
        sender.send(marker)
        arrived: list[bytes] = []
        while time.monotonic() < deadline:
            came = receiver.receive(_RESEND)
            if came is None:
                continue
            if known_by(came) == mark:
                return arrived
            if known_by(came) in sent:
                arrived.append(sent[known_by(came)])
    raise AssertionError(f"the marker passed from {sender.name} to {receiver.name} but once")


def wait_for(receiver: Port, predicate: Callable[[bytes], bool], timeout: float = TIMEOUT) -> bytes:
    """The first frame that arrives and satisfies ``predicate``; others are passed over.

    Raises AssertionError, showing what came, where none does within ``timeout`` seconds.
    """
    deadline = time.monotonic() + timeout
    others = []
    while (left := deadline - time.monotonic()) > 0:
        frame = receiver.receive(left)
        if frame is not None:
            if predicate(frame):
                return frame
            others.append(frame)
    raise AssertionError(f"not what was waited for at {receiver.name}: {_shown(others)}")


def _connect(
    sender: Port,
    receiver: Port,
    marker: bytes,
    known_by: Callable[[bytes], bytes],
    deadline: float,
) -> None:
    """Send the marker until it has arrived, and no other is under way."""
    others = receiver.drain()
    sent = 0
    while time.monotonic() < deadline:
        sender.send(marker)
        sent += 1
        again = time.monotonic() + _RESEND
        while (left := again - time.monotonic()) > 0:
            frame = receiver.receive(left)
            if frame is None:
                continue
            if known_by(frame) == known_by(marker):
                if sent > 1:
                    receiver.drain(_QUIET)
                return
            others.append(frame)
    raise AssertionError(
        f"the marker {marker.hex()} did not pass from {sender.name} to {receiver.name}, only "
        + _shown(others)
    )


def _shown(frames: Sequence[bytes]) -> str:
    return ", ".join(frame.hex() for frame in frames[-8:]) or "nothing"


@contextlib.contextmanager
def _on_one_processor() -> Iterator[None]:
    """What is sent on one processor arrives in its order: each has a backlog of its own."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
