"""A machine's answers to echo requests, counted while something happens to it.

>>> with Pings(namespace, "198.51.100.10") as pings:
...     pings.wait_for_answer()
...     migrate()
...     pings.wait_for_answer()
>>> print(pings.figures())
212 sent, 4 lost, 3 in a row
"""

from __future__ import annotations

import errno
import select
import socket
import struct
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.ganeti.guest import PATIENCE
from tests.network import packets

if TYPE_CHECKING:
    from types import TracebackType

INTERVAL = 0.02
"""Seconds from one request to the next."""

# RFC 792 and RFC 4443: type, code, checksum, identifier, sequence number. The kernel makes the
# checksum and the identifier of sockets of this kind (icmp(7), ping_group_range).
_HEADER = struct.Struct("!BBHHH")
_REQUEST = {socket.AF_INET: 8, socket.AF_INET6: 128}
_REPLY = {socket.AF_INET: 0, socket.AF_INET6: 129}

# While an address is not resolved.
_UNREACHABLE = {errno.EAGAIN, errno.EHOSTUNREACH, errno.ENETUNREACH}


class Figures(NamedTuple):
    """Of the requests from the first to the last one that was answered."""

    sent: int
    lost: int
    longest: int
    """The most that were lost one after the other."""
    again: int
    """Answers to what had been answered."""

    def __str__(self) -> str:
        twice = f", {self.again} answered twice" if self.again else ""
        return f"{self.sent} sent, {self.lost} lost, {self.longest} in a row{twice}"


class Pings:
    """Echo requests from a network namespace to an address, all the time that its block lasts."""

    def __init__(self, namespace: str, address: str) -> None:
        self.address = address
        self._family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._socket = packets.inside(namespace, self._opened)
        self._changed = threading.Condition()
        self._answers: list[int] = []
        """How many came for each request."""
        self._ending = False
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Pings:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ending = True
        self._thread.join()
        self._socket.close()

    def wait_for_answer(self, count: int = 5) -> None:
        """Wait until so many of the requests from now on have been answered. AssertionError."""
        with self._changed:
            first = len(self._answers)
            came = self._changed.wait_for(
                lambda: sum(map(bool, self._answers[first:])) >= count, PATIENCE
            )
        assert came, f"{self.address} does not answer"

    def figures(self) -> Figures:
        """What was lost up to now."""
        with self._changed:
            answers = list(self._answers)
        answered = [number for number, count in enumerate(answers) if count]
        answers = answers[min(answered, default=0) : max(answered, default=-1) + 1]
        longest = current = 0
        for count in answers:
            current = 0 if count else current + 1
            longest = max(longest, current)
        again = sum(answers) - sum(map(bool, answers))
        return Figures(len(answers), answers.count(0), longest, again)

    def _opened(self) -> socket.socket:
        Path("/proc/sys/net/ipv4/ping_group_range").write_text("0 0")
        protocol = socket.IPPROTO_ICMP if self._family == socket.AF_INET else socket.IPPROTO_ICMPV6
        made = socket.socket(self._family, socket.SOCK_DGRAM, protocol)
        made.setblocking(False)
        return made

    def _run(self) -> None:
        due = time.monotonic()
        while not self._ending:
            with self._changed:
                number = len(self._answers)
                self._answers.append(0)
            self._send(number)
            due = max(due + INTERVAL, time.monotonic() - INTERVAL)
            while not self._ending and (left := due - time.monotonic()) > 0:
                self._receive(left)

    def _send(self, number: int) -> None:
        header = _HEADER.pack(_REQUEST[self._family], 0, 0, 0, number & 0xFFFF)
        try:
            self._socket.sendto(header + struct.pack("!I", number), (self.address, 0))
        except OSError as error:
            if error.errno not in _UNREACHABLE:
                raise

    def _receive(self, timeout: float) -> None:
        if not select.select([self._socket], [], [], timeout)[0]:
            return
        try:
            answer = self._socket.recv(100)
        except OSError as error:
            if error.errno not in _UNREACHABLE:
                raise
            return
        if answer[0] == _REPLY[self._family]:
            [number] = struct.unpack_from("!I", answer, _HEADER.size)
            with self._changed:
                self._answers[number] += 1
                self._changed.notify_all()
