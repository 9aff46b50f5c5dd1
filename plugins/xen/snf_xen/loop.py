"""Loop devices (loop(4)) over what is open already: no path to look up, and none to race with.

A loop device reads and writes through the page cache of what it is made of, a file or a block
device: what this node writes to it meanwhile is what the domain sees, and the other way round.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import time
from dataclasses import dataclass
from pathlib import Path

from snf_core.errors import ApplianceError, CommandError

_CONTROL = Path("/dev/loop-control")
_CTL_GET_FREE, _CONFIGURE, _GET_STATUS64 = 0x4C82, 0x4C0A, 0x4C05
_INFO = struct.Struct("=5Q4I64s64s32s2Q")
"""struct loop_info64: device, inode and number (of a block device) of what it is made of, ..."""
_CONFIG = struct.Struct(f"=2I{_INFO.size}s64x")
_AUTOCLEAR = 4
_ATTEMPTS = 1000
"""Somebody else may take the free device first."""
_GONE = 20.0
"""Seconds that Xen's backend may take to close a device."""


@dataclass(frozen=True)
class Loop:
    """A loop device, which goes when nobody has it open any more."""

    descriptor: int
    path: str

    @property
    def number(self) -> str:
        """As xenstore has it: major and minor, in hexadecimal."""
        device = os.fstat(self.descriptor).st_rdev
        return f"{os.major(device):x}:{os.minor(device):x}"

    def close(self) -> None:
        """Close it, and wait until nobody else has it open either.

        Raises ApplianceError where somebody still has.
        """
        os.close(self.descriptor)
        backing = Path("/sys/block") / Path(self.path).name / "loop"
        deadline = time.monotonic() + _GONE
        while backing.exists():
            if time.monotonic() > deadline:
                raise ApplianceError(
                    f"{self.path} is still in use", remedy="look for who uses it: xl block-list"
                )
            time.sleep(0.02)


def attach(descriptor: int) -> Loop:
    """A loop device of an open file or block device; as writable as that is open.

    It is locked: udevd leaves it alone meanwhile, which would look for file systems in what is
    a tenant's (https://systemd.io/BLOCK_DEVICE_LOCKING). Raises CommandError.
    """
    info = _INFO.pack(0, 0, 0, 0, 0, 0, 0, 0, _AUTOCLEAR, b"", b"", b"", 0, 0)
    try:
        for _ in range(_ATTEMPTS):
            control = os.open(_CONTROL, os.O_RDWR | os.O_CLOEXEC)
            try:
                number = fcntl.ioctl(control, _CTL_GET_FREE)
            finally:
                os.close(control)
            path = f"/dev/loop{number}"
            device = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(device, fcntl.LOCK_EX | fcntl.LOCK_NB)
                fcntl.ioctl(device, _CONFIGURE, _CONFIG.pack(descriptor, 0, info))
            except OSError as error:
                os.close(device)
                if error.errno not in {errno.EBUSY, errno.EWOULDBLOCK}:
                    raise
                continue
            return Loop(device, path)
    except OSError as error:
        raise CommandError(
            f"no loop device can be made: {error.strerror}", remedy="modprobe loop"
        ) from error
    raise CommandError("no loop device is free", remedy="see losetup -a")


def made_of(device: int) -> tuple[int, int, int]:
    """Of what the loop device with that number is made: st_dev, st_ino, st_rdev.

    Raises OSError where it is none, or of nothing.
    """
    known = os.readlink(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")
    opened = os.open(f"/dev/{os.path.basename(known)}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        answer = fcntl.ioctl(opened, _GET_STATUS64, bytes(_INFO.size))
    finally:
        os.close(opened)
    fields = _INFO.unpack(answer)
    return _plain(fields[0]), fields[1], _plain(fields[2])


def _plain(encoded: int) -> int:
    """A device number as os.stat has it, from the kernel's huge_encode_dev()."""
    return os.makedev((encoded >> 8) & 0xFFF, (encoded & 0xFF) | (encoded >> 12 & 0xFFF00))
