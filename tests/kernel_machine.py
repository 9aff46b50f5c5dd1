"""pytest inside a small machine with Debian's own kernel: ``python -m tests.kernel_machine ARGS``.

A node runs Debian's kernel, which can more than that of many a test machine (VLAN filtering and
connection tracking on bridges, 802.1Q, Open vSwitch). This boots it in QEMU and runs ``pytest
ARGS`` there, for the network tests unless told otherwise; output and exit status are pytest's.

The root file system is made of Debian's packages once, with the kernel that is installed here, and
kept in the tests' cache. The checkout and the libraries that the tests need go in on a second
disk (``tests.payload``). Both disks are snapshots: every run starts clean, and several may run at
a time. Emulation only, one virtual CPU. Root is needed for mmdebstrap and for the owner of the
files.

The kernel has NVMe, ext4 and serial lines built in, so it needs no initial RAM disk. The first
serial line is pytest's output, the second the kernel's console; the third gets the exit status.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests import payload, workspace
from tests.images.debian import cache_directory
from tests.machine import HARDWARE, MachineError

if TYPE_CHECKING:
    from collections.abc import Sequence

PACKAGES = (
    "arptables",
    "ebtables",
    "iproute2",
    "iptables",
    "kmod",
    "netbase",
    "nftables",
    "openvswitch-switch",
    "procps",
    "python3",
    "python3-nftables",
    "python3-yaml",
)
"""What a node has, and what the tests' libraries take from the system."""

DISTRIBUTIONS = ("pytest", "hypothesis", "scapy", "snf-core", "snf-kvm", "snf-xen")
"""The Python distributions that go in, with what they require."""

MEMORY = 3072
"""MiB, used as needed: two hundred events at once are as many processes."""
DISK_BYTES = 1 << 30

KERNEL_ARGUMENTS = (
    "root=/dev/nvme0n1 rootfstype=ext4 rw init=/init console=ttyS1 quiet panic=-1 norandmaps "
    "mitigations=off"
)
"""norandmaps: an emulator translates libraries at fixed addresses once, not once per process."""

INIT = """\
#!/bin/sh
# The machine's first process and its last: everything happens in /payload/run.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
mkdir -p /dev/shm /payload /run/lock
mount -t tmpfs tmpfs /dev/shm
ln -s /proc/self/fd /dev/fd
echo 1 >/proc/sys/vm/panic_on_oom
modprobe tun
ip link set lo up
mount -t ext4 -o noatime /dev/nvme1n1 /payload
stty -F /dev/ttyS0 raw -echo
stty -F /dev/ttyS2 raw -echo
/payload/run </dev/null >/dev/ttyS0 2>&1
echo $? >/dev/ttyS2
echo b >/proc/sysrq-trigger
sleep 60
"""


def run(arguments: Sequence[str]) -> int:
    """Run pytest with ``arguments`` in a machine; its exit status.

    Raises MachineError where the machine does not come to an end of pytest.
    """
    machine = _machine()
    with workspace.private(cache_directory() / "machines") as directory:
        disk = payload.make(
            directory,
            payload.pytest_command(arguments),
            {"SNF_TEST_WHOLE_KERNEL": "1"},
            DISTRIBUTIONS,
        )
        status, console = directory / "status", directory / "console"
        for file in (status, console):
            file.touch()
        words = _qemu(machine, disk, console, status)
        subprocess.run(
            ["setpriv", "--pdeathsig", "KILL", "--", *words], stdin=subprocess.DEVNULL, check=False
        )
        said = status.read_text().strip()
        if not said.isdigit():
            tail = "\n".join(console.read_text(errors="replace").splitlines()[-40:])
            raise MachineError(f"the machine ended without a result:\n{tail}")
        return int(said)


def _qemu(machine: Path, second: Path, console: Path, status: Path) -> list[str]:
    disks = enumerate((machine / "root.ext4", second))
    return [
        *("qemu-system-x86_64", *HARDWARE, "-m", str(MEMORY)),
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-kernel", str(machine / "vmlinuz"), "-append", KERNEL_ARGUMENTS),
        *(word for number, disk in disks for word in _disk(number, disk)),
        *("-device", "virtio-rng-pci"),
        *("-chardev", "stdio,id=output", "-serial", "chardev:output"),
        *("-serial", f"file:{console}", "-serial", f"file:{status}"),
    ]


def _disk(number: int, path: Path) -> tuple[str, ...]:
    drive = f"file={path},format=raw,if=none,id=disk{number},snapshot=on,cache=unsafe"
    return ("-drive", drive, "-device", f"nvme,drive=disk{number},serial=disk{number}")


def _machine() -> Path:
    """The directory with kernel and root file system, made if need be."""
    kernels = sorted(Path("/boot").glob("vmlinuz-*-cloud-amd64"))
    if not kernels:
        raise MachineError("no Debian kernel: apt-get install linux-image-cloud-amd64")
    kernel = kernels[-1]
    stamp = (kernel.name, kernel.stat().st_mtime)
    recipe = (PACKAGES, payload.EXCLUDED_PATHS, INIT, DISK_BYTES, stamp)
    return payload.cached("kernel-machine", recipe, lambda work: _build(work, kernel))


def _build(work: Path, kernel: Path) -> None:
    print("building the machine with Debian's kernel ...", file=sys.stderr)
    tree = work / "tree"
    version = kernel.name.removeprefix("vmlinuz-")
    payload.debootstrap(tree, PACKAGES)
    shutil.copytree(f"/lib/modules/{version}", tree / "lib/modules" / version, symlinks=True)
    init = tree / "init"
    init.write_text(INIT)
    init.chmod(0o755)
    payload.make_filesystem(tree, work / "root.ext4", DISK_BYTES)
    shutil.copy(kernel, work / "vmlinuz")
    shutil.rmtree(tree)


if __name__ == "__main__":
    start = time.monotonic()
    try:
        result = run(sys.argv[1:] or ["tests/network"])
    except MachineError as error:
        sys.exit(str(error))
    print(f"in a machine with Debian's kernel: {time.monotonic() - start:.0f} s", file=sys.stderr)
    sys.exit(result)
