"""Stands between libguestfs and QEMU: disks as descriptors, and a locked-down QEMU.

Not imported but copied: ``snf_kvm.hypervisor`` puts this text, behind a ``#!`` line and with its
settings filled in, where the appliance's unprivileged user may run it and nobody may change it.
So it needs nothing but Python's standard library.

libguestfs runs it with QEMU's arguments, first for feature detection (passed on as they are),
then for the appliance. There each ``-drive`` whose file is one of our placeholders is replaced
by a descriptor, received over the Unix socket $SNF_DISKS with SCM_RIGHTS (unix(7)) and given to
QEMU with ``-add-fd`` (qemu(1)): so QEMU needs no right to open a disk.

With a saved state to resume (STATE), the machine is the one that was saved (MACHINE) instead of
the one libguestfs describes; of libguestfs's arguments only the disks and the channel to guestfsd
are used, and what was saved continues in it.
"""

from __future__ import annotations

import ctypes
import os
import re
import resource
import signal
import socket
import stat
import struct
import sys
import time

QEMU = "/usr/bin/qemu-system-x86_64"
ADDRESS_SPACE = 0
"""Bytes of address space QEMU may use at most; 0 for no limit."""

MACHINE: list[str] = []
"""The arguments of the machine whose state was saved."""
STATE = ""
"""The file that holds the saved state; empty to boot."""
ROOT = ""
"""The image, in qcow2 format, of the root file system as it was when the state was saved."""

MESSAGE = struct.Struct("!dB32s")
"""What a resumed appliance is told: seconds since the epoch, number of disks, random bytes."""

SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
"""All classes of system calls that QEMU's seccomp filter knows."""

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_NAMES = 65536
_DESCRIPTORS = 64


def receive(address: str) -> dict[str, int]:
    """The disks' descriptors, by the path of the placeholder that stands for each."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.connect(address)
        message, descriptors, _, _ = socket.recv_fds(connection, _NAMES, _DESCRIPTORS)
    return dict(zip(message.decode().split("\0"), descriptors, strict=True))


def drive(word: str, disks: dict[str, int]) -> str:
    """The value of a ``-drive`` argument with a placeholder in it replaced by a descriptor."""
    key, comma, rest = word.partition(",")
    path = key.removeprefix("file=")
    if path == key or path not in disks:
        return word
    descriptor = disks[path]
    driver = "host_device" if stat.S_ISBLK(os.fstat(descriptor).st_mode) else "file"
    # The descriptor is open for writing; QEMU's default is to begin with a read-only one.
    # Where storage is full, QEMU's default is to stop the machine until somebody makes room.
    options = f"auto-read-only=off,werror=report,file.driver={driver}"
    return f"{options},file.filename=/dev/fdset/{descriptor}{comma}{rest}"


def boot(argv: list[str], disks: dict[str, int]) -> list[str]:
    """libguestfs's own arguments, with descriptors in the placeholders' places."""
    return [drive(word, disks) for word in argv]


def resume(argv: list[str], disks: dict[str, int]) -> list[str]:
    """The machine that was saved, with libguestfs's channel and disks.

    Opens what QEMU inherits: the saved state, and a socket with the message for the appliance.
    """
    words = list(MACHINE)
    words += ["-drive", f"file={ROOT},format=qcow2,id=root,if=none,snapshot=on,cache=unsafe"]
    words += ["-chardev", next(word for word in argv if word.startswith("socket,path="))]
    words += ["-serial", "stdio"]
    placed = [drive(word, disks) for word in argv]
    drives = [new for new, old in zip(placed, argv, strict=True) if new != old]
    for target, new in enumerate(drives):
        name = re.search(r",id=([^,]+)", new)
        assert name
        device = f"scsi-hd,drive={name[1]},bus=scsi.0,scsi-id={target},lun=0"
        words += ["-drive", new, "-device", device]
    ours, theirs = socket.socketpair()
    ours.send(MESSAGE.pack(time.time(), len(drives), os.urandom(32)))
    state = os.open(STATE, os.O_RDONLY)
    for descriptor in (ours.fileno(), theirs.fileno(), state):
        os.set_inheritable(descriptor, True)
    words += ["-chardev", f"socket,id=resume,fd={theirs.detach()}", "-incoming", f"fd:{state}"]
    ours.detach()  # kept open: the message would be lost with the socket's other end
    return words


def handed_over(words: list[str], disks: dict[str, int]) -> list[str]:
    """The arguments that give QEMU the disks' descriptors.

    Raises ValueError unless every disk was placed: QEMU would open an empty placeholder instead.
    """
    text = "\n".join(words)
    missing = [path for path, number in disks.items() if f"/dev/fdset/{number}," not in f"{text},"]
    if missing:
        raise ValueError(f"no argument of QEMU's names {', '.join(missing)}")
    return [word for number in disks.values() for word in ("-add-fd", f"fd={number},set={number}")]


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
        argv = resume(argv, disks) if STATE else boot(argv, disks)
        argv += [*handed_over(argv, disks), "-sandbox", SANDBOX]
    os.execv(QEMU, [QEMU, *argv])


if __name__ == "__main__":
    main()
