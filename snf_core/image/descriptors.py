"""What images and disks need of file descriptors and Python does not offer by itself."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.syscall.restype = ctypes.c_long
_LIBC.fallocate64.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]

# linux/openat2.h, asm-generic/unistd.h (one number on every architecture), linux/falloc.h.
_OPENAT2 = 437
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_BENEATH = 0x08
_ATTEMPTS = 100
"""A rename anywhere on the node makes the kernel unsure of a ``..`` it has just followed."""

KEEP_SIZE = 0x01
PUNCH_HOLE = 0x02
ZERO_RANGE = 0x10

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
    stat.S_IFREG: "a regular file",
    stat.S_IFLNK: "a symbolic link",
}


class _OpenHow(ctypes.Structure):
    """struct open_how of openat2(2)."""

    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


def locate_beneath(directory: int, name: str) -> int:
    """An O_PATH descriptor of ``name`` below the open ``directory``, never outside it.

    The kernel resolves every component, so neither ``..`` nor a symbolic link leads out, not even
    one that is swapped meanwhile: then OSError EXDEV (RESOLVE_BENEATH in openat2(2)). Nothing is
    opened in the sense of a device's driver or a FIFO's other end. Raises OSError.
    """
    try:
        path = os.fsencode(name)
    except UnicodeEncodeError:
        raise OSError(errno.EILSEQ, "its name is not text") from None
    if b"\0" in path:
        raise OSError(errno.EINVAL, "its name holds a NUL character")
    how = _OpenHow(os.O_PATH | os.O_CLOEXEC, 0, _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS)
    for _ in range(_ATTEMPTS):
        found: int = _LIBC.syscall(
            ctypes.c_long(_OPENAT2),
            ctypes.c_int(directory),
            ctypes.c_char_p(path),
            ctypes.byref(how),
            ctypes.c_size_t(ctypes.sizeof(how)),
        )
        if found >= 0:
            return found
        error = _error()
        if error.errno != errno.EAGAIN:
            break
    raise error


def reopen(located: int, flags: int) -> int:
    """What an O_PATH descriptor refers to, opened with ``flags``. Raises OSError."""
    return os.open(f"/proc/self/fd/{located}", flags | os.O_CLOEXEC)


def kind(mode: int) -> str:
    """What sort of file ``st_mode`` tells of, for a message: "a FIFO"."""
    return _KINDS.get(stat.S_IFMT(mode), "an unknown kind of file")


def data_ranges(descriptor: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The parts of ``start`` to ``end`` (bytes) that hold data, each as (start, end), in order.

    What lies between reads as zeros; where no holes are kept all is data (SEEK_DATA in lseek(2)).
    Moves the descriptor's offset. Raises OSError; ENXIO if there is less than ``end``, as when a
    device has gone.
    """
    if os.lseek(descriptor, 0, os.SEEK_END) < end:
        raise OSError(errno.ENXIO, "it has become shorter")
    while start < end:
        try:
            data = os.lseek(descriptor, start, os.SEEK_DATA)
            hole = os.lseek(descriptor, data, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:  # there is only a hole up to the end
                return
            if error.errno != errno.EINVAL:
                raise
            data, hole = start, end  # what keeps no holes, as block devices mostly
        if data >= end:
            return
        start = min(hole, end)
        yield data, start


def allocate(descriptor: int, mode: int, offset: int, length: int) -> None:
    """fallocate(2), which punches holes and zeroes ranges of files and of block devices.

    Raises OSError; EOPNOTSUPP where the storage has no such operation.
    """
    while _LIBC.fallocate64(descriptor, mode, offset, length) != 0:
        error = _error()
        if error.errno != errno.EINTR:
            raise error


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
