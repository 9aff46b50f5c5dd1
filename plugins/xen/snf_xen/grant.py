"""A page and an event channel that another domain shares with this one.

The ioctls are those of include/uapi/xen/gntdev.h and include/uapi/xen/evtchn.h in Linux.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct

from snf_xen.ring import PAGE, Ring

GRANTS, EVENTS = "/dev/xen/gntdev", "/dev/xen/evtchn"


def _ioctl(kind: str, number: int, size: int) -> int:
    return size << 16 | ord(kind) << 8 | number


_MAP = struct.Struct("=2IQ2I")
_MAP_GRANT_REF = _ioctl("G", 0, _MAP.size)
_BIND = struct.Struct("=2I")
_BIND_INTERDOMAIN = _ioctl("E", 1, _BIND.size)
_NOTIFY = _ioctl("E", 4, 4)


class Line:
    """The ring of a domain's console, and how each side wakes the other."""

    def __init__(self, domid: int, reference: int, port: int) -> None:
        """``reference`` and ``port`` are what the domain offers. Raises OSError."""
        self._grants = os.open(GRANTS, os.O_RDWR | os.O_CLOEXEC)
        offer = bytearray(_MAP.pack(1, 0, 0, domid, reference))
        fcntl.ioctl(self._grants, _MAP_GRANT_REF, offer)
        index = _MAP.unpack(offer)[2]
        self._page = mmap.mmap(self._grants, PAGE, offset=index)
        self.ring = Ring(self._page)
        self._events = os.open(EVENTS, os.O_RDWR | os.O_CLOEXEC)
        # Only with what can be written to, Python returns what the call does: our own port.
        offer = bytearray(_BIND.pack(domid, port))
        self._port = fcntl.ioctl(self._events, _BIND_INTERDOMAIN, offer)

    def fileno(self) -> int:
        """Readable when the domain has done something."""
        return self._events

    def heard(self) -> None:
        """Be woken again by what the domain does from now on."""
        os.write(self._events, os.read(self._events, 4))

    def notify(self) -> None:
        """Wake the domain."""
        fcntl.ioctl(self._events, _NOTIFY, struct.pack("=I", self._port))

    def close(self) -> None:
        """Let go of the domain: as long as its page is mapped here it cannot go entirely."""
        self.ring.release()
        self._page.close()
        os.close(self._grants)
        os.close(self._events)
