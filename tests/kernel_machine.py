"""pytest inside a small machine with Debian's own kernel: ``python -m tests.kernel_machine ARGS``.

A node runs Debian's kernel, which can more than that of many a test machine (VLAN filtering and
connection tracking on bridges, 802.1Q, Open vSwitch). This boots it in QEMU and runs ``pytest
ARGS`` there, for the network tests unless told otherwise; output and exit status are pytest's.

The root file system is made of Debian's packages once, with the kernel that is installed here, and
kept in the tests' cache. The checkout and the libraries that the tests need go in on a second
disk, to the paths that they have here, compiled, so that nothing is compiled inside. Both disks
are snapshots: every run starts clean, and several may run at a time. Emulation only, one virtual
CPU. Root is needed for mmdebstrap and for the owner of the files.

The kernel has NVMe, ext4 and serial lines built in, so it needs no initial RAM disk. The first
serial line is pytest's output, the second the kernel's console; the third gets the exit status.
"""

from __future__ import annotations

import compileall
import fcntl
import hashlib
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement

from tests.images.debian import cache_directory
from tests.machine import HARDWARE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CHECKOUT = Path(__file__).resolve().parent.parent

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

EXCLUDED_PATHS = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*")

MEMORY = 3072
"""MiB, used as needed: two hundred events at once are as many processes."""
DISK_BYTES = 1 << 30

PATIENCE = 600
"""Seconds after which pytest shows where a test is that has not ended."""

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


class KernelMachineError(RuntimeError):
    """The machine could not be made, or died."""


def run(arguments: Sequence[str]) -> int:
    """Run pytest with ``arguments`` in a machine; its exit status.

    Raises KernelMachineError where the machine does not come to an end of pytest.
    """
    machine = _machine()
    with tempfile.TemporaryDirectory(prefix="snf-kernel-machine-") as name:
        directory = Path(name)
        _make_payload(directory, arguments)
        status, console = directory / "status", directory / "console"
        for file in (status, console):
            file.touch()
        words = _qemu(machine, directory / "payload.ext4", console, status)
        subprocess.run(
            ["setpriv", "--pdeathsig", "KILL", "--", *words], stdin=subprocess.DEVNULL, check=False
        )
        said = status.read_text().strip()
        if not said.isdigit():
            tail = "\n".join(console.read_text(errors="replace").splitlines()[-40:])
            raise KernelMachineError(f"the machine ended without a result:\n{tail}")
        return int(said)


def _qemu(machine: Path, payload: Path, console: Path, status: Path) -> list[str]:
    disks = enumerate((machine / "root.ext4", payload))
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
        raise KernelMachineError("no Debian kernel: apt-get install linux-image-cloud-amd64")
    kernel = kernels[-1]
    stamp = (kernel.name, kernel.stat().st_mtime)
    recipe = repr((PACKAGES, EXCLUDED_PATHS, INIT, DISK_BYTES, stamp)).encode()
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    machine = cache / f"kernel-machine-{hashlib.sha256(recipe).hexdigest()[:16]}"
    with (cache / "kernel-machine.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not machine.exists():
            for old in cache.glob("kernel-machine.building-*"):
                shutil.rmtree(old)
            work = Path(tempfile.mkdtemp(prefix="kernel-machine.building-", dir=cache))
            try:
                _build(work, kernel)
                work.rename(machine)
            finally:
                shutil.rmtree(work, ignore_errors=True)
    return machine


def _build(work: Path, kernel: Path) -> None:
    print("building the machine with Debian's kernel ...", file=sys.stderr)
    tree = work / "tree"
    version = kernel.name.removeprefix("vmlinuz-")
    _check(
        [
            *("unshare", "--mount", "--pid", "--mount-proc", "--fork", "--kill-child"),
            *("mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory"),
            f"--include={','.join(PACKAGES)}",
            "--dpkgopt=force-unsafe-io",
            *(f"--dpkgopt=path-exclude={path}" for path in EXCLUDED_PATHS),
            *("bookworm", str(tree)),
        ]
    )
    shutil.copytree(f"/lib/modules/{version}", tree / "lib/modules" / version, symlinks=True)
    init = tree / "init"
    init.write_text(INIT)
    init.chmod(0o755)
    _make_filesystem(tree, work / "root.ext4")
    shutil.copy(kernel, work / "vmlinuz")
    shutil.rmtree(tree)


def _make_payload(directory: Path, arguments: Sequence[str]) -> None:
    """The second disk: the checkout, the virtual environment, and the program ``run``."""
    tree = directory / "payload"
    environment = Path(sys.prefix)
    _copy_checkout(tree / "checkout")
    interpreters = environment.glob("bin/python*")  # links, one of them to the system's
    for path in (environment / "pyvenv.cfg", *interpreters, *_library_files()):
        target = tree / "environment" / path.relative_to(environment)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target, follow_symlinks=False)
    program = tree / "run"
    program.write_text(_program(environment, arguments))
    program.chmod(0o755)
    _make_filesystem(tree, directory / "payload.ext4")


def _program(environment: Path, arguments: Sequence[str]) -> str:
    """What the machine runs. Everything goes where it is here, since scripts name their paths."""
    places = {"checkout": str(CHECKOUT), "environment": str(environment)}
    mounts = [
        f"mkdir -p {shlex.quote(place)}\nmount --bind /payload/{name} {shlex.quote(place)}"
        for name, place in places.items()
    ]
    python = [str(environment / "bin/python"), "-m", "pytest", "-p", "no:cacheprovider"]
    python += ["-o", f"faulthandler_timeout={PATIENCE}"]
    return "\n".join(
        [
            "#!/bin/sh",
            "set -e",
            *mounts,
            f"cd {shlex.quote(str(CHECKOUT))}",
            "export HOME=/root PYTHONDONTWRITEBYTECODE=1 SNF_TEST_WHOLE_KERNEL=1",
            f"export PY_COLORS={int(sys.stdout.isatty())}",
            f"exec {shlex.join([*python, *arguments])}",
            "",
        ]
    )


def _copy_checkout(target: Path) -> None:
    """The checkout as it is now, compiled; without what git, tools and environments keep in it."""

    def ignored(directory: str, names: list[str]) -> set[str]:
        return {
            name
            for name in names
            if name.startswith(".")
            or name == "build"
            or Path(directory, name, "pyvenv.cfg").exists()
        }

    for name in ("snf_core", "plugins", "tests"):
        compileall.compile_dir(CHECKOUT / name, quiet=2)
    shutil.copytree(CHECKOUT, target, symlinks=True, ignore=ignored)


def _library_files() -> Iterator[Path]:
    """The files of all that DISTRIBUTIONS require, of those in the virtual environment."""
    waiting, known = list(DISTRIBUTIONS), set(DISTRIBUTIONS)
    while waiting:
        found = metadata.distribution(waiting.pop())
        for text in found.requires or ():
            required = Requirement(text)
            name = required.name.lower().replace("_", "-")
            if name not in known and (
                required.marker is None or required.marker.evaluate({"extra": ""})
            ):
                known.add(name)
                waiting.append(name)
        for file in found.files or ():
            path = Path(str(found.locate_file(file))).resolve()
            if path.is_relative_to(sys.prefix) and path.exists():
                yield path


def _make_filesystem(tree: Path, image: Path) -> None:
    with image.open("wb") as file:
        file.truncate(DISK_BYTES)
    _check(["mke2fs", "-q", "-F", "-t", "ext4", "-d", str(tree), str(image)])


def _check(words: Sequence[str]) -> None:
    done = subprocess.run(
        ["setpriv", "--pdeathsig", "KILL", "--", *words],
        capture_output=True,
        check=False,
        text=True,
        errors="replace",
    )
    if done.returncode != 0:
        tail = "\n".join(done.stderr.splitlines()[-20:])
        raise KernelMachineError(f"{words[0]} failed with status {done.returncode}:\n{tail}")


if __name__ == "__main__":
    start = time.monotonic()
    try:
        result = run(sys.argv[1:] or ["tests/network"])
    except KernelMachineError as error:
        sys.exit(str(error))
    print(f"in a machine with Debian's kernel: {time.monotonic() - start:.0f} s", file=sys.stderr)
    sys.exit(result)
