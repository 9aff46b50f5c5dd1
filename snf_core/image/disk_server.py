"""Hands the disks' descriptors to the launcher, and ends an appliance that does not become ready.

A process beside the one that waits in libguestfs, which cannot do either.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import signal
import socket
import struct
from typing import TYPE_CHECKING

from snf_core.errors import ApplianceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@contextlib.contextmanager
def started(address: str, disks: Mapping[str, int], patience: float) -> Iterator[None]:
    """Serve the one launcher that connects to the Unix socket ``address``, while the block runs.

    It gets one message with the names of ``disks``, separated by NULs, and their descriptors
    (SCM_RIGHTS in unix(7)). If the block still runs ``patience`` seconds later (0: no matter
    how long) the process that connected, which is QEMU by then, is killed.
    Raises ApplianceError where it was.
    """
    server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    server.bind(address)
    server.listen(1)
    overdue = mmap.mmap(-1, 1)  # one byte, which both processes see
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            _serve(server, disks, patience, overdue)
        os._exit(0)
    server.close()
    try:
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.unlink(address)
        if overdue[0]:
            raise ApplianceError(
                f"the appliance was not ready within {patience:g} s",
                remedy='run "snf doctor" on the node',
            )


def _serve(
    server: socket.socket, disks: Mapping[str, int], patience: float, overdue: mmap.mmap
) -> None:
    connection, _ = server.accept()
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    launcher = os.pidfd_open(struct.unpack("3i", credentials)[0])
    # That this can be sent proves that whoever connected was alive when its pid was looked up.
    socket.send_fds(connection, ["\0".join(disks).encode()], list(disks.values()))
    if patience and not select.select([launcher], [], [], patience)[0]:
        overdue[0] = 1  # before: whoever waits in libguestfs goes on at once then
        signal.pidfd_send_signal(launcher, signal.SIGKILL)


def size(descriptor: int) -> int:
    """Bytes of an open disk. Moves the offset, which nobody reads or writes at."""
    return os.lseek(descriptor, 0, os.SEEK_END)
