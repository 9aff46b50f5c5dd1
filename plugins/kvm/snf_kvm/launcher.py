"""Stands between libguestfs and QEMU: disks as descriptors, and a locked-down QEMU.

Not imported but copied: ``snf_kvm.hypervisor`` puts this text, behind a ``#!`` line and with its
settings filled in, where the appliance's unprivileged user may run it and nobody may change it.
So it needs nothing but Python's standard library.

libguestfs runs it with QEMU's arguments, first for feature detection (passed on as they are),
then for the appliance. There each ``-drive`` whose file is one of our placeholders is replaced
by a descriptor, received over the Unix socket $SNF_DISKS with SCM_RIGHTS (unix(7)) and given to
QEMU with ``-add-fd`` (qemu(1)): so QEMU needs no right to open a disk.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import socket
import stat
import sys

QEMU = "/usr/bin/qemu-system-x86_64"
ADDRESS_SPACE = 0
"""Bytes of address space QEMU may use at most; 0 for no limit."""

SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
"""All classes of system calls that QEMU's seccomp filter knows."""

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_MESSAGE = 65536
_DESCRIPTORS = 64


def receive(address: str) -> dict[str, int]:
    """The disks' descriptors, by the path of the placeholder that stands for each."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.connect(address)
        message, descriptors, _, _ = socket.recv_fds(connection, _MESSAGE, _DESCRIPTORS)
    return dict(zip(message.decode().split("\0"), descriptors, strict=True))


def rewrite(argv: list[str], disks: dict[str, int]) -> list[str]:
    """QEMU's arguments with placeholders replaced by descriptors, and the sandbox switched on.

    Raises ValueError unless every disk was found: QEMU would open an empty placeholder instead.
    """
    words, missing = [], set(disks)
    for word in argv:
        key, comma, rest = word.partition(",")
        path = key.removeprefix("file=")
        if path == key or path not in disks:
            words.append(word)
            continue
        missing.discard(path)
        descriptor = disks[path]
        driver = "host_device" if stat.S_ISBLK(os.fstat(descriptor).st_mode) else "file"
        # The descriptor is open for writing; QEMU's default is to begin with a read-only one.
        # Where storage is full, QEMU's default is to stop the machine until somebody makes room.
        options = f"auto-read-only=off,werror=report,file.driver={driver}"
        words.append(f"{options},file.filename=/dev/fdset/{descriptor}{comma}{rest}")
    if missing:
        raise ValueError(f"no argument of QEMU's names {', '.join(sorted(missing))}")
    for descriptor in disks.values():
        words += ["-add-fd", f"fd={descriptor},set={descriptor}"]
    return [*words, "-sandbox", SANDBOX]


def confine() -> None:
    """Die with the parent, gain no privileges, leave no core, use bounded memory (prctl(2))."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if ADDRESS_SPACE:
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))


def main() -> None:
    """Become QEMU."""
    argv = sys.argv[1:]
    if "-drive" in argv:
        confine()
        disks = receive(os.environ["SNF_DISKS"])
        for descriptor in disks.values():
            os.set_inheritable(descriptor, True)
        argv = rewrite(argv, disks)
    os.execv(QEMU, [QEMU, *argv])


if __name__ == "__main__":
    main()
