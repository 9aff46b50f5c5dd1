"""Stands between libguestfs and the helper domain, in the place of QEMU.

Not imported but copied: ``snf_xen.hypervisor`` puts this text, behind a ``#!`` line, where the
appliance's unprivileged user may run it. So it needs nothing but Python's standard library.

libguestfs runs it with QEMU's arguments: first to learn what QEMU can do, which is answered here,
then to start the appliance. There the domain is booting already, made by a keeper that is root and
has a connection to us (``snf_xen.keeper``); this only connects to where libguestfs waits for
guestfsd, and hands that connection over.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import sys

VERSION = "7.2.0"
"""Of the QEMU that libguestfs is told there is."""
ATTENDANT = "attendant"
"""The name of our connection to the keeper among the disks."""

_NAMES = 65536
_DESCRIPTORS = 64


def answers(argv: list[str]) -> str | None:
    """What QEMU would say to a question for its abilities; None where that is none.

    Four questions in libguestfs's lib/qemu.c: the help, whose first line names the version; the
    devices; and in QEMU's machine protocol, on standard input, its schema, and whether KVM works.
    """
    if "-help" in argv or "-version" in argv:
        return f"QEMU emulator version {VERSION}\n"
    if "-device" in argv and "?" in argv:
        names = ("virtio-scsi-pci", "virtio-serial-pci", "virtserialport", "scsi-hd")
        return "".join(f'name "{name}", bus PCI\n' for name in names)
    if "-qmp" in argv:
        major, minor, micro = VERSION.split(".")
        version = f'{{"qemu": {{"micro": {micro}, "minor": {minor}, "major": {major}}}}}'
        greeting = f'{{"QMP": {{"version": {version}, "capabilities": []}}}}\n'
        commands = re.findall(r'"execute"\s*:\s*"([a-z_-]+)"', sys.stdin.read())
        results = {"query-qmp-schema": "[]", "query-kvm": '{"enabled": false, "present": false}'}
        said = (f'{{"return": {results.get(command, "{}")}}}\n' for command in commands)
        return greeting + "".join(said)
    return None


def channel(argv: list[str]) -> str:
    """The path of the socket at which libguestfs waits for guestfsd. Raises ValueError."""
    for word in argv:
        found = re.fullmatch(r"socket,path=([^,]+),id=channel0", word)
        if found:
            return found[1]
    raise ValueError("libguestfs names no socket")


def keeper(address: str) -> socket.socket:
    """The connection to the keeper, which waits with the disks at ``address``."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.connect(address)
        message, descriptors, _, _ = socket.recv_fds(connection, _NAMES, _DESCRIPTORS)
    found = dict(zip(message.decode().split("\0"), descriptors, strict=True))
    for name, descriptor in found.items():
        if name != ATTENDANT:
            os.close(descriptor)  # the domain has the disks already
    return socket.socket(fileno=found[ATTENDANT])


def main() -> None:
    """Answer, or hand over and wait until there is no domain any more."""
    said = answers(sys.argv[1:])
    if said is not None:
        sys.stdout.write(said)
        return
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as guestfsd:
        guestfsd.connect(channel(sys.argv[1:]))
        # The keeper hears of our end by the end of this pipe.
        there, ours = os.pipe()
        with keeper(os.environ["SNF_DISKS"]) as connection:
            socket.send_fds(connection, [b"h"], [guestfsd.fileno(), there, 1])
            os.close(there)
            guestfsd.close()
            connection.recv(1)
    os.close(ours)
    sys.exit(1)


if __name__ == "__main__":
    main()
