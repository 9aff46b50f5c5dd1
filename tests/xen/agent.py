"""What runs in the domUs of tests, as their only process: it does as it is told.

It is told by the console, its standard input and output, in lines: MARK, then base64 of a
marshalled (number, name, arguments); it answers each with a line of the same kind: (number, error,
value). Orders numbered 0 are answered only where they fail. Whatever else is on the console, the
kernel has said.

It starts fast, and imports nothing but the standard library's core (see ``domu.MODULES``).
"""

from __future__ import annotations

import binascii
import marshal
import os
import select
import socket
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

MARK = b"@"
_FRAME = 1 << 17

# See tests.network.packets.
_SOL_PACKET, _PACKET_AUXDATA, _PACKET_VNET_HDR, _PACKET_IGNORE_OUTGOING = 263, 8, 15, 23
_AUXDATA = struct.Struct("=IIIHHHH")
_TP_STATUS_VLAN_VALID, _TP_STATUS_VLAN_TPID_VALID = 1 << 4, 1 << 6
_ETH_P_ALL, _ETH_P_8021Q = 0x0003, 0x8100
_SO_RCVBUFFORCE = 33


def packed(message: Any) -> bytes:
    """A message as a line."""
    return MARK + binascii.b2a_base64(marshal.dumps(message))


def unpacked(line: bytes) -> Any:
    """The message of a line that begins with MARK. Raises ValueError, EOFError."""
    return marshal.loads(binascii.a2b_base64(line.removeprefix(MARK)))


class Ports:
    """Packet sockets, by interface and whether a virtio_net_hdr is in front of their frames."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, bool], socket.socket] = {}

    def open(self, interface: str, offload: bool) -> None:
        """Listen from now on. OSError where there is no such interface, or it is down."""
        if (interface, offload) not in self._open:
            self._open[interface, offload] = _opened(interface, offload)

    def send(self, interface: str, offload: bool, frame: bytes) -> None:
        """OSError where the kernel does not take it."""
        self._open[interface, offload].send(frame)

    def receive(self, interface: str, offload: bool, timeout: float) -> list[bytes]:
        """All frames that have come, waiting up to ``timeout`` seconds for a first one."""
        port = self._open[interface, offload]
        found: list[bytes] = []
        while select.select([port], [], [], 0 if found else timeout)[0]:
            found.append(_received(port))
        return found


def _opened(interface: str, offload: bool) -> socket.socket:
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    made.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
    made.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, int(offload))
    made.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
    made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 20)
    made.bind((interface, _ETH_P_ALL))
    return made


def _received(port: socket.socket) -> bytes:
    """With its VLAN tag, which the kernel has taken off."""
    frame, control, _, _ = port.recvmsg(_FRAME, socket.CMSG_SPACE(_AUXDATA.size))
    for level, kind, data in control:
        if (level, kind) == (_SOL_PACKET, _PACKET_AUXDATA):
            status, _, _, _, _, tag, protocol = _AUXDATA.unpack(data)
            if status & _TP_STATUS_VLAN_VALID:
                if not status & _TP_STATUS_VLAN_TPID_VALID:
                    protocol = _ETH_P_8021Q
                return frame[:12] + struct.pack("!HH", protocol, tag) + frame[12:]
    return frame


def run(script: str, timeout: float) -> tuple[int, bytes]:
    """Run a shell script: its exit status (-9 after so many seconds), and what it said."""
    words = ["timeout", "-s", "KILL", str(timeout), "sh", "-c", script]
    said = os.memfd_create("said")
    streams = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, said, 1),
        (os.POSIX_SPAWN_DUP2, said, 2),
    ]
    try:
        child = os.posix_spawn("/bin/busybox", words, os.environ, file_actions=streams)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return status, os.pread(said, os.fstat(said).st_size, 0)
    finally:
        os.close(said)


def _orders() -> Iterator[Any]:
    data = b""
    while True:
        *lines, data = (data + os.read(0, 1 << 16)).split(b"\n")
        for line in lines:
            if line.startswith(MARK):
                yield unpacked(line)


def _answer(*message: Any) -> None:
    left = b"\n" + packed(message)  # in front may be words of the kernel's, without a line end
    while left:
        left = left[os.write(1, left) :]


def main() -> None:
    """Serve for ever."""
    ports = Ports()
    known: dict[str, Callable[..., Any]] = {
        "run": run,
        "open": ports.open,
        "send": ports.send,
        "receive": ports.receive,
        "ping": lambda: None,
    }
    _answer(0, "", None)  # here I am
    for number, name, arguments in _orders():
        value, error = None, ""
        try:
            value = known[name](*arguments)
        except Exception as failure:
            error = f"{name}: {failure!r}"
        if number or error:
            _answer(number, error, value)


if __name__ == "__main__":
    main()
