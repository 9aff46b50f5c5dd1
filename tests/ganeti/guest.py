"""The smallest guest with a real kernel: it has addresses, answers, and talks if it is told to.

Debian's kernel, and an initial RAM disk with BusyBox and the kernel's virtio NIC driver: some
seconds under emulation from start to network. What it does is said on the kernel's command line.
``Guest`` runs it as Ganeti does: the tap is opened by us, wired, and handed to QEMU, with whose
process it goes.
"""

from __future__ import annotations

import fcntl
import gzip
import json
import os
import shutil
import socket
import struct
import subprocess
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.images.initrd import archive, driver
from tests.machine import HARDWARE
from tests.network import packets

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

MEMORY = "131080k"
"""128 MiB, a third of which is in use, and what a migration carries; and another 8 KiB.

Emulated by QEMU 7.2, a guest whose memory is a multiple of 256 KiB (64 pages) is damaged by some
migrations: what it writes meanwhile is missed, since the shorter of two ways to collect dirty pages
does not make the emulator look at the next write again. QEMU 9.0 does ("physmem: Fix migration
dirty bitmap coherency with TCG memory access").
"""

PATIENCE = 180.0
"""Seconds after which something that must happen has not."""

# linux/if_tun.h
_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x1000, 0x4000

_DRIVERS = ("virtio_pci", "virtio_net")

_INIT = """\
#!/bin/busybox sh
export PATH=/bin
# Variables come from the kernel's command line.
/bin/busybox --install -s /bin
mkdir /proc
mount -t proc proc /proc
for driver in {drivers}; do insmod /drivers/$driver; done
cd /proc/sys/net/ipv6/conf/eth0
for setting in accept_ra accept_dad autoconf; do echo 0 >$setting; done
[ -n "$ADDRESS6" ] || echo 1 >disable_ipv6
cd /
ip link set eth0 up
if [ -n "$ADDRESS" ]; then ip address add $ADDRESS dev eth0; fi
if [ -n "$GATEWAY" ]; then ip route add default via $GATEWAY; fi
if [ -n "$ADDRESS6" ]; then ip -6 address add $ADDRESS6 dev eth0; fi
if [ -n "$GATEWAY6" ]; then
    ip -6 route add $GATEWAY6 dev eth0
    ip -6 route add default via $GATEWAY6 dev eth0
fi
count() {{
    number=0
    while :; do
        echo $number
        number=$((number + 1))
        usleep 50000
    done
}}
echo the guest is up
if [ -n "$COUNT_TO" ]; then count | nc $COUNT_TO; echo the connection ended; fi
while :; do sleep 3600; done
"""
"""ADDRESS and ADDRESS6 are with prefix lengths. COUNT_TO is an address and a port, to which a TCP
connection is opened and numbers are sent, one per line, some each second."""


@dataclass(frozen=True)
class Image:
    """What the guest is booted from."""

    kernel: Path
    initrd: Path

    @classmethod
    def make(cls, directory: Path) -> Image:
        """The newest of Debian's kernels that is installed, and a RAM disk in ``directory``."""
        kernels = sorted(Path("/boot").glob("vmlinuz-*-cloud-amd64"))
        assert kernels, "apt-get install linux-image-cloud-amd64"
        busybox = shutil.which("busybox")
        assert busybox, "apt-get install busybox-static"
        version = kernels[-1].name.removeprefix("vmlinuz-")
        drivers = dict.fromkeys(
            path for name in _DRIVERS for path in driver(Path("/lib/modules", version), name)
        )
        files = {
            "bin/busybox": Path(busybox).read_bytes(),
            "init": _INIT.format(drivers=" ".join(path.name for path in drivers)).encode(),
            **{f"drivers/{path.name}": path.read_bytes() for path in drivers},
        }
        initrd = directory / "initrd"
        initrd.write_bytes(gzip.compress(archive(files), 1))
        return cls(kernels[-1], initrd)


@dataclass(frozen=True)
class Settings:
    """A guest as both ends of a migration must have it."""

    image: Image
    mac: str
    words: Mapping[str, str]
    """Variables for its kernel's command line: see ``_INIT``."""
    announces: bool = True
    """Whether its own driver says, after a migration, where it is; the emulator does always."""


class Tap:
    """A tap as Ganeti's node daemon opens it: it goes when its last holder does."""

    def __init__(self, namespace: str, name: str) -> None:
        self.name = name

        def opened() -> int:
            descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
            flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR
            fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
            return descriptor

        self.descriptor = packets.inside(namespace, opened)

    def close(self) -> None:
        """Let go of it. A second time does nothing."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


class Guest:
    """QEMU with the guest in it, running or waiting for it to come in. Use a ``with`` block.

    ``directory`` gets its console and, if it is to come in, the socket by which it does.
    """

    def __init__(
        self, directory: Path, settings: Settings, tap: Tap, *, incoming: bool = False
    ) -> None:
        directory.mkdir()
        self.console = directory / "console"
        self.console.touch()
        self.incoming = directory / "incoming"
        self._messages = directory / "messages"
        self._held = ExitStack()
        ours, theirs = socket.socketpair()
        self._held.enter_context(ours)
        words = _qemu(settings, self.console, tap.descriptor, theirs.fileno())
        if incoming:
            words += ["-incoming", f"unix:{self.incoming}"]
        with theirs, self._messages.open("wb") as messages:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", *words],
                stdin=subprocess.DEVNULL,
                stdout=messages,
                stderr=messages,
                pass_fds=(tap.descriptor, theirs.fileno()),
            )
        tap.close()
        ours.settimeout(PATIENCE)
        self._monitor = self._held.enter_context(ours.makefile("rw"))
        self._events: list[dict[str, Any]] = []
        self._read()  # the greeting; where it was told to, it listens by now
        self.monitor("qmp_capabilities")

    def __enter__(self) -> Guest:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()

    def kill(self) -> None:
        """Kill it, as Ganeti does with a guest that has moved. A second time does nothing."""
        self._process.kill()
        self._process.wait()
        self._held.close()

    def monitor(self, command: str, **arguments: Any) -> Any:
        """A command of the QEMU Machine Protocol; what it returns. AssertionError if it fails."""
        self._monitor.write(json.dumps({"execute": command, "arguments": arguments}))
        self._monitor.flush()
        while True:
            said = self._read()
            if "event" in said:
                self._events.append(said)
            else:
                assert "return" in said, f"{command}: {said}"
                return said["return"]

    def wait_for_event(self, name: str, **data: str) -> None:
        """Wait for one that has not been waited for yet, with ``data`` in it; others go by."""
        while True:
            event = self._events.pop(0) if self._events else self._read()
            if event.get("event") == name and data.items() <= event.get("data", {}).items():
                return

    def wait_until_up(self) -> None:
        """Wait until the guest has its addresses."""
        deadline = time.monotonic() + PATIENCE
        while "the guest is up" not in self.console_text():
            assert self._process.poll() is None, self._evidence()
            assert time.monotonic() < deadline, self._evidence()
            time.sleep(0.1)

    def console_text(self) -> str:
        """What the guest has printed."""
        return self.console.read_text(errors="replace").replace("\r", "")

    def _read(self) -> dict[str, Any]:
        line = self._monitor.readline()
        assert line, self._evidence()
        said: dict[str, Any] = json.loads(line)
        return said

    def _evidence(self) -> str:
        return f"{self._messages.read_text()}\n--- console:\n{self.console_text()[-2000:]}"


def _qemu(settings: Settings, console: Path, tap: int, monitor: int) -> list[str]:
    words = [f"{name}={value}" for name, value in settings.words.items()]
    announces = "on" if settings.announces else "off"
    return [
        *("qemu-system-x86_64", *HARDWARE, "-m", MEMORY),
        *("-nodefaults", "-no-user-config", "-display", "none"),
        *("-kernel", str(settings.image.kernel), "-initrd", str(settings.image.initrd)),
        *("-append", " ".join(["console=ttyS0 quiet mitigations=off panic=-1", *words])),
        *("-serial", f"file:{console}"),
        *("-chardev", f"socket,id=monitor,fd={monitor}", "-mon", "chardev=monitor,mode=control"),
        *("-netdev", f"tap,id=nic0,fd={tap}"),
        *(
            "-device",
            f"virtio-net-pci,netdev=nic0,mac={settings.mac},romfile=,guest_announce={announces}",
        ),
    ]
