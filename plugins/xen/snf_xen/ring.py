"""The ring of a paravirtual console, its backend's side (xen/include/public/io/console.h).

The page is shared with the helper domain, which may be hostile: only the two indices that it moves
are ever read from there, and only as far as they make sense.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import mmap

IN, OUT = 1024, 2048
"""Bytes of the two buffers: towards the domain, and from it."""
PAGE = 4096

_OUT_OFFSET = IN
_IN_CONS, _IN_PROD, _OUT_CONS, _OUT_PROD = range((IN + OUT) // 4, (IN + OUT) // 4 + 4)
_WRAP = 1 << 32


class RingError(Exception):
    """The domain's indices make no sense."""


class Ring:
    """A console's ring in a shared page."""

    def __init__(self, page: mmap.mmap) -> None:
        """The indices go on where the page has them."""
        self._bytes = memoryview(page)
        # Each access is of 32 bits at once: slices of bytes are copied piecemeal, and would tear.
        self._words = self._bytes.cast("I")
        self._consumed = self._words[_OUT_CONS]
        self._produced = self._words[_IN_PROD]

    def release(self) -> None:
        """Let go of the page, so that it can be unmapped."""
        self._words.release()
        self._bytes.release()

    def take(self) -> bytes:
        """All that the domain has written. Raises RingError."""
        produced = self._words[_OUT_PROD]
        count = (produced - self._consumed) % _WRAP
        if count > OUT:
            raise RingError(f"the domain claims to have written {count} bytes at once")
        start = self._consumed % OUT
        first = min(count, OUT - start)
        begin = _OUT_OFFSET + start
        taken = bytes(self._bytes[begin : begin + first])
        taken += bytes(self._bytes[_OUT_OFFSET : _OUT_OFFSET + count - first])
        self._consumed = produced
        self._words[_OUT_CONS] = produced
        return taken

    def put(self, data: bytes) -> int:
        """As much of ``data`` as there is room for; how many bytes that is. Raises RingError."""
        used = (self._produced - self._words[_IN_CONS]) % _WRAP
        if used > IN:
            raise RingError(f"the domain claims {used} bytes to be unread")
        count = min(len(data), IN - used)
        start = self._produced % IN
        first = min(count, IN - start)
        self._bytes[start : start + first] = data[:first]
        self._bytes[: count - first] = data[first:count]
        self._produced = (self._produced + count) % _WRAP
        self._words[_IN_PROD] = self._produced
        return count
