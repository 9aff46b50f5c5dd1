"""Requests to the kernel over netlink(7), many at once, and its answers, as bytes.

The kernel deals with a request while it is being sent: all answers are there when ``send``
returns, so nothing here waits. What a message says is the business of ``rtnetlink``.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import TYPE_CHECKING, NamedTuple

from snf_core.errors import NetworkError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

# linux/netlink.h
NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP = 0x300
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
_NLM_F_DUMP_INTR = 0x10
_NLM_F_ACK_TLVS = 0x200
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_NLMSGERR_ATTR_MSG = 1
_NLA_TYPE_MASK = 0x3FFF
_SOL_NETLINK = 270
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
_NETLINK_GET_STRICT_CHK = 12

HEADER = struct.Struct("=IHHII")
"""Length, type, flags, sequence number, port of every message."""
_SEQUENCE = struct.Struct("=I")
_SEQUENCE_OFFSET = 8
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_ERROR = struct.Struct("=i")

_BUFFER = 1 << 16  # the kernel puts at most 32 KiB into one datagram
_BATCH = 32
"""Requests sent at once: the answers to more might not fit into the socket's receive buffer."""
_ATTEMPTS = 20


class Reply(NamedTuple):
    """A message of the kernel, without its header."""

    type: int
    body: bytes


class Answer(NamedTuple):
    """What became of one request."""

    error: int
    """An errno, or 0 where it was done."""
    reason: str
    """The kernel's own words, often empty."""
    replies: tuple[Reply, ...]
    """What was asked for."""


_UNANSWERED = Answer(errno.ENOBUFS, "the kernel's answer was lost", ())


class Netlink:
    """One rtnetlink socket, in the network namespace in which it is made. Raises OSError."""

    def __init__(self) -> None:
        self._socket = _opened()
        self._sequence = 0

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def exchange(self, requests: Sequence[bytes]) -> list[Answer]:
        """Send requests, in their order, and return the answer to each.

        They carry NLM_F_ACK. One that fails does not stop those behind it. Never raises OSError:
        what cannot be sent, or has no answer, has failed with that error.
        """
        return [
            answer
            for start in range(0, len(requests), _BATCH)
            for answer in self._batch(requests[start : start + _BATCH])
        ]

    def _batch(self, requests: Sequence[bytes]) -> list[Answer]:
        numbers = range(self._sequence + 1, self._sequence + 1 + len(requests))
        self._sequence = numbers[-1]
        replies: dict[int, list[Reply]] = {number: [] for number in numbers}
        answers: dict[int, Answer] = {}
        missing = _UNANSWERED
        try:
            self._socket.send(b"".join(map(_numbered, requests, numbers)))
            while len(answers) < len(numbers):
                for kind, flags, number, body in _received(self._socket):
                    if number not in replies:
                        continue  # to an earlier batch, which something interrupted
                    if kind == _NLMSG_ERROR:
                        answers[number] = _answer(flags, body, replies[number])
                    else:
                        replies[number].append(Reply(kind, body))
        except BlockingIOError:
            pass
        except OSError as error:
            missing = Answer(error.errno or errno.EIO, "", ())
        return [answers.get(number, missing) for number in numbers]


def dump(request: bytes, enough: Callable[[Reply], bool] | None = None) -> list[Reply]:
    """All that the kernel lists for a request that carries NLM_F_DUMP, all of one moment.

    Where ``enough`` says so of a reply it is the last one, and the rest is not read. Raises
    OSError; NetworkError where the list never stays the same for as long as it is read.
    """
    for _ in range(_ATTEMPTS):
        listed: list[Reply] = []
        whole = True
        # A socket of its own: one that is closed need not be read to the end.
        with _opened() as source:
            source.send(_numbered(request, 1))
            for kind, flags, body in _listed(source):
                whole = whole and not flags & _NLM_F_DUMP_INTR
                if kind == _NLMSG_DONE:
                    break
                listed.append(Reply(kind, body))
                if enough is not None and enough(listed[-1]):
                    return listed
        if whole:
            return listed
    raise NetworkError(
        f"the kernel's list changed {_ATTEMPTS} times while it was read", remedy="try again"
    )


def attributes(body: bytes, start: int = 0) -> dict[int, bytes]:
    """The attributes in a message's body, or in an attribute, from an offset on, by their type.

    Of several of one type, the last.
    """
    return dict(attribute_list(body, start))


def attribute_list(body: bytes, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """Type and value of each attribute, in their order."""
    end = len(body)
    unpack = _ATTRIBUTE.unpack_from
    while start + 4 <= end:
        length, kind = unpack(body, start)
        if length < 4:
            return
        yield kind & _NLA_TYPE_MASK, body[start + 4 : start + length]
        start += (length + 3) & ~3


def _opened() -> socket.socket:
    made = socket.socket(
        socket.AF_NETLINK,
        socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK,
        socket.NETLINK_ROUTE,
    )
    # Acknowledgements without the request, with the reason in words; and a request with what the
    # kernel does not understand is refused rather than half obeyed.
    for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK):
        made.setsockopt(_SOL_NETLINK, option, 1)
    return made


def _numbered(request: bytes, number: int) -> bytes:
    numbered = bytearray(request) + bytes(-len(request) % 4)
    _SEQUENCE.pack_into(numbered, _SEQUENCE_OFFSET, number)
    return bytes(numbered)


def _received(source: socket.socket) -> Iterator[tuple[int, int, int, bytes]]:
    """Type, flags, sequence number and body of each message of a datagram. Raises OSError."""
    data, _, flags, sender = source.recvmsg(_BUFFER)
    if flags & socket.MSG_TRUNC:
        raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
    start = 0
    while sender[0] == 0 and start + HEADER.size <= len(data):  # port 0 is the kernel's
        length, kind, message_flags, number, _ = HEADER.unpack_from(data, start)
        yield kind, message_flags, number, data[start + HEADER.size : start + length]
        start += (max(length, HEADER.size) + 3) & ~3


def _listed(source: socket.socket) -> Iterator[tuple[int, int, bytes]]:
    """Type, flags and body of each message of a list, the end's included. Raises OSError."""
    while True:
        for kind, flags, _, body in _received(source):
            if kind in {_NLMSG_ERROR, _NLMSG_DONE}:
                failed = -_ERROR.unpack_from(body)[0] if len(body) >= _ERROR.size else 0
                if failed:
                    raise OSError(failed, os.strerror(failed))
            yield kind, flags, body


def _answer(flags: int, body: bytes, replies: Sequence[Reply]) -> Answer:
    said: Mapping[int, bytes] = {}
    if flags & _NLM_F_ACK_TLVS:
        said = attributes(body, _ERROR.size + HEADER.size)
    reason = said.get(_NLMSGERR_ATTR_MSG, b"").rstrip(b"\0").decode(errors="replace")
    return Answer(-_ERROR.unpack_from(body)[0], reason, tuple(replies))
