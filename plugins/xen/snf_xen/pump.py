"""Moves bytes between a helper domain's second console and whoever waits for guestfsd.

And what the domain prints on its first console to that program's standard output. Nothing of it is
understood here.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import socket
from typing import TYPE_CHECKING

from snf_core.errors import ApplianceError
from snf_xen import domain
from snf_xen.grant import Line
from snf_xen.store import Connection

if TYPE_CHECKING:
    from collections.abc import Callable

_BUFFER = 256 << 10
"""Bytes that are kept for whoever does not fetch them yet."""
_TEXT = 64 << 10
_INITIALISED, _CONNECTED = "3", "4"
"""States of xenbus (xen/include/public/io/xenbus.h)."""
_TERMINAL = re.compile("/dev/pts/[0-9]+")
"""Where xenconsoled shows a domain's console."""


class Pump:
    """All that a keeper waits for, at once."""

    def __init__(self, name: str, number: int, attendant: socket.socket) -> None:
        self._name = name
        self._attendant = attendant
        self._frontend = f"/local/domain/{number}/device/console/1"
        self._backend = f"/local/domain/0/backend/console/{number}/1"
        self._terminal_key = f"/local/domain/{number}/console/tty"
        self._number = number
        self._line: Line | None = None
        self._channel: socket.socket | None = None
        self._output = self._life = self._terminal = -1
        self._from_domain, self._to_domain = bytearray(), bytearray()
        self._text = bytearray()
        self._watching = False
        self._handlers: dict[int, Callable[[], bool]] = {}
        self._poll = select.poll()

    def run(self) -> None:
        """Return when the program or the domain is gone. Raises RingError, OSError, SnfError."""
        with Connection() as store:
            self._store = store
            for path in (self._frontend, self._terminal_key, "@releaseDomain"):
                store.watch(path)
            self._expect(store.fileno(), self._stored)
            self._expect(self._attendant.fileno(), self._handed)
            try:
                self._turn()
            except Exception as error:
                self._say(f"snf: the keeper failed: {error!r}\n".encode())
                raise
            finally:
                if self._line:
                    self._line.close()
                if self._channel:
                    self._channel.close()
                for descriptor in (self._output, self._life, self._terminal):
                    if descriptor >= 0:
                        os.close(descriptor)

    def _turn(self) -> None:
        going = True
        while going:
            for descriptor, _ in self._poll.poll():
                going = going and (descriptor not in self._handlers or self._handlers[descriptor]())
            self._move()

    def _expect(self, descriptor: int, handler: Callable[[], bool]) -> None:
        """Call ``handler`` when there is something to read; it says whether to go on."""
        self._handlers[descriptor] = handler
        self._poll.register(descriptor, select.POLLIN)

    def _ignore(self, descriptor: int) -> None:
        del self._handlers[descriptor]
        self._poll.unregister(descriptor)

    # -- what may happen --------------------------------------------------------------------

    def _stored(self) -> bool:
        """Something has changed in xenstore."""
        for path in self._store.changed():
            if path == self._frontend and self._line is None:
                self._map()
            elif path == self._terminal_key and self._terminal < 0:
                self._open_terminal()
            elif path == "@releaseDomain" and self._released() and not self._alive():
                self._say(b"snf: the domain has ended\n")
                return False
        return True

    def _map(self) -> None:
        if self._store.read(f"{self._frontend}/state") != _INITIALISED:
            return
        values = [self._store.read(f"{self._frontend}/{name}") for name in ("ring-ref", "port")]
        try:
            reference, port = (int(value or "") for value in values)
        except ValueError:
            raise ApplianceError(f"domain {self._name} offers no console: {values}") from None
        self._line = Line(self._number, reference, port)
        self._expect(self._line.fileno(), self._woken)
        self._store.write(f"{self._backend}/state", _CONNECTED)

    def _released(self) -> bool:
        """Whether a domain has ended: a watch is heard once for nothing when it is set."""
        first, self._watching = not self._watching, True
        return not first

    def _alive(self) -> bool:
        """Whether the domain still runs; one that has shut itself down stays until destroyed."""
        return self._name in domain.running()

    def _woken(self) -> bool:
        assert self._line
        self._line.heard()
        return True

    def _handed(self) -> bool:
        """The program hands over what it is for, or goes."""
        message, descriptors, _, _ = socket.recv_fds(self._attendant, 1, 3)
        if not message or self._channel or len(descriptors) != 3:
            return False
        channel, self._life, self._output = descriptors
        self._channel = socket.socket(fileno=channel)
        self._channel.setblocking(False)
        os.set_blocking(self._output, False)
        self._expect(channel, self._received)
        self._expect(self._life, lambda: False)
        self._say(b"")
        return True

    def _received(self) -> bool:
        """libguestfs has sent something, or hung up."""
        assert self._channel
        with contextlib.suppress(BlockingIOError):
            data = self._channel.recv(_BUFFER)
            self._to_domain += data
            return bool(data)
        return True

    def _open_terminal(self) -> None:
        path = self._store.read(self._terminal_key)
        if path and _TERMINAL.fullmatch(path):
            with contextlib.suppress(OSError):
                self._terminal = os.open(path, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
                self._expect(self._terminal, self._printed)

    def _printed(self) -> bool:
        try:
            self._say(os.read(self._terminal, 4096))
        except BlockingIOError:
            pass
        except OSError:  # xenconsoled has closed it
            self._ignore(self._terminal)
        return True

    # -- what is done about it --------------------------------------------------------------

    def _say(self, text: bytes) -> None:
        """Show what the domain prints; what nobody fetches in time is lost."""
        self._text += text
        del self._text[:-_TEXT]
        if self._output >= 0 and self._text:
            with contextlib.suppress(OSError):
                del self._text[: os.write(self._output, self._text)]

    def _move(self) -> None:
        """Move what can be moved, and wait for what would let more be moved."""
        if not (self._line and self._channel):
            return
        moved = True
        while moved:
            moved = False
            if len(self._from_domain) < _BUFFER and (taken := self._line.ring.take()):
                self._from_domain += taken
                moved = True
            if self._to_domain and (count := self._line.ring.put(bytes(self._to_domain[:1024]))):
                del self._to_domain[:count]
                moved = True
            if moved:
                self._line.notify()
            if self._from_domain:
                with contextlib.suppress(BlockingIOError):
                    del self._from_domain[: self._channel.send(self._from_domain)]
        interest = select.POLLIN if len(self._to_domain) < _BUFFER else 0
        if self._from_domain:
            interest |= select.POLLOUT
        self._poll.modify(self._channel.fileno(), interest)
