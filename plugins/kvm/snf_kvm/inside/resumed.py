"""Runs in the appliance: the first to wake when its saved state is resumed.

All resumed appliances share the random state and the clock of the one that was saved, so both
are set before guestfsd, which is stopped meanwhile, may do anything: from the message (see
``snf_kvm.launcher``) that comes on a virtio-serial port. The disks were not there when the state
was saved: they are looked for, in their order, and guestfsd goes on when all are there.

Put into the appliance as it is: needs nothing but Python's standard library. All of it is
imported before the saving: an import afterwards takes a third of a second under emulation.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import struct
import time

PORT = "/dev/virtio-ports/org.snf.resume"
MESSAGE = struct.Struct("!dB32s")
"""Seconds since the epoch, number of disks, random bytes."""

WARM = b"snf: warmed up"
READY = b"snf: ready to be saved"

_SCRATCH = "/dev/sda"
_LINKS = "/dev/disk/by-path"
_RNDRESEEDCRNG = 0x5207  # random(4)
_UEVENTS = 15  # NETLINK_KOBJECT_UEVENT, netlink(7)


def main() -> None:
    """Prepare, be saved, be resumed, set everything right, and sleep for ever."""
    daemon = process("guestfsd")
    host = scsi_host()
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _UEVENTS) as events:
        events.bind((0, 1))
        os.kill(daemon, signal.SIGSTOP)
        os.write(1, WARM + b"\n")
        while os.path.exists(_SCRATCH):
            events.recv(65536)
        os.write(1, READY + b"\n")
        seconds, disks, seed = MESSAGE.unpack(receive(MESSAGE.size))
        time.clock_settime(time.CLOCK_REALTIME, seconds)
        reseed(seed)
        for number in range(disks):
            attach(host, number, events)
    os.kill(daemon, signal.SIGCONT)
    while True:  # the init script ends the appliance when this ends
        signal.pause()


def receive(length: int) -> bytes:
    """A message of the port, once there is a host at its other end."""
    message = b""
    port = os.open(PORT, os.O_RDONLY)
    while len(message) < length:
        chunk = os.read(port, length - len(message))
        if not chunk:  # no host yet: the kernel does not let a reader wait for one
            time.sleep(0.001)
        message += chunk
    os.close(port)
    return message


def reseed(seed: bytes) -> None:
    """Make the kernel's random numbers differ from those of every other resumed appliance."""
    device = os.open("/dev/urandom", os.O_WRONLY)
    os.write(device, seed)
    fcntl.ioctl(device, _RNDRESEEDCRNG)
    os.close(device)


def attach(host: str, number: int, events: socket.socket) -> None:
    """Find the disk at SCSI target ``number``, which becomes the next letter."""
    name = f"sd{chr(ord('a') + number)}"
    scan = os.open(f"/sys/class/scsi_host/{host}/scan", os.O_WRONLY)
    os.write(scan, f"0 {number} 0".encode())
    os.close(scan)
    # The device node comes first; only what is announced can be opened, and has its partitions.
    announced = {b"ACTION=add", b"DEVNAME=" + name.encode()}
    while not announced.issubset(events.recv(65536).split(b"\0")):
        pass
    # guestfsd lists disks by these links, which udev makes otherwise.
    os.symlink(f"/dev/{name}", f"{_LINKS}/snf-{number}")


def scsi_host() -> str:
    """The virtio-scsi adapter among the machine's."""
    hosts = "/sys/class/scsi_host"
    return next(
        name for name in os.listdir(hosts) if read(f"{hosts}/{name}/proc_name") == "virtio_scsi"
    )


def process(name: str) -> int:
    """The one process of that name."""
    numbers = [number for number in os.listdir("/proc") if number.isdigit()]
    return next(int(number) for number in numbers if read(f"/proc/{number}/comm") == name)


def read(path: str) -> str:
    """A line of a file of the kernel's."""
    with open(path) as file:
        return file.read().strip()


if __name__ == "__main__":
    main()
