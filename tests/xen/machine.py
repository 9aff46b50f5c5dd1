"""A command inside the dom0 of a Xen hypervisor, in QEMU under plain emulation.

Xen is started as a multiboot kernel, with dom0's kernel and initial RAM disk as its modules. All
disks are snapshots: every run starts clean, and several may run at a time. The first serial line
is the command's output, the second Xen's and dom0's console. The command's exit status and what it
left in $RESULTS come back as a tar(1) archive on a disk.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests import payload, workspace
from tests.images import debian
from tests.machine import MachineError
from tests.system import environment
from tests.xen import dom0

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

DISTRIBUTIONS = (
    "pytest",
    "hypothesis",
    "pip",
    "regipy",
    "scapy",
    "snf-core",
    "snf-kvm",
    "snf-os-linux",
    "snf-os-windows",
    "snf-xen",
)
"""The Python distributions that go in, with what they require."""

HARDWARE = ("-accel", "tcg", "-machine", "pc", "-cpu", "max,-smap,-rdtscp,-xsave", "-smp", "1")
"""With SMAP dom0 crashes; with RDTSCP guests in hardware's virtualisation hang; with XSAVE, and so
AVX, paravirtual guests lose registers, and their programs crash."""

XEN_ARGUMENTS = (
    "console=com2 com2=115200,8n1 loglvl=warning guest_loglvl=warning dom0_mem={0}M,max:{0}M"
)
DOM0_ARGUMENTS = "console=hvc0 quiet panic=-1 norandmaps mitigations=off"
"""No comma: QEMU takes it for the end of a module. norandmaps: an emulator translates libraries at
fixed addresses once, not once per process."""

RESULTS = "/results"
CACHE = "/var/cache/snf-core-tests"
WHEELS = f"{payload.MOUNTED}/wheels"
RESULTS_BYTES = 2 << 30
CACHE_BYTES = 8 << 30

TIMED_OUT = 124
"""The status of what took too long, as with timeout(1)."""
_GRACE = 120
"""Seconds that booting and handing out results may take on top."""


@dataclass(frozen=True)
class Dom0:
    """The machine that a command is to have.

    ``memory`` is the whole machine's and ``dom0_memory`` that of dom0, both in MiB: guests get the
    difference, but for some 60 MiB of Xen's own. ``timeout`` is in seconds. ``disks`` are raw
    images, which the command sees, as snapshots, as /dev/vde and so on. ``wheels``: our five
    distributions are built, for ``WHEELS`` in dom0, where nothing can be built in bearable time.
    """

    memory: int = 2048
    dom0_memory: int = 960
    timeout: float = 3600
    disks: tuple[Path, ...] = ()
    wheels: bool = False

    def run(self, command: Sequence[str], results: Path | None = None) -> int:
        """Run ``command``, with the checkout as it is at this moment; its exit status.

        Its output is ours. What it leaves in $RESULTS goes to the directory ``results``, which is
        made if it is missing. ``TIMED_OUT`` where it takes too long. Raises MachineError where the
        machine does not come to the command's end.
        """
        machine, cache = dom0.image(), _cache()
        limited = ("timeout", "--kill-after=10", str(self.timeout), *command)
        variables = {"RESULTS": RESULTS, "SNF_TEST_CACHE": CACHE}
        with workspace.private(debian.cache_directory() / "machines") as directory:
            further = [_wheels(directory)] if self.wheels else []
            program = payload.make(directory, limited, variables, DISTRIBUTIONS, further)
            answer, console = directory / "answer", directory / "console"
            console.touch()
            with answer.open("wb") as file:
                file.truncate(RESULTS_BYTES)
            snapshots = [machine / "root.ext4", program, cache / "cache.ext4", *self.disks]
            words = self._qemu(machine, snapshots, answer, console)
            try:
                subprocess.run(
                    ["setpriv", "--pdeathsig", "KILL", "--", *words],
                    stdin=subprocess.DEVNULL,
                    timeout=self.timeout + _GRACE,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                print(_tail(console), file=sys.stderr)
                return TIMED_OUT
            return _take(answer, results, console)

    def _qemu(
        self, machine: Path, snapshots: Sequence[Path], answer: Path, console: Path
    ) -> list[str]:
        root, program, cache, *others = (_drive(path, "snapshot=on") for path in snapshots)
        drives = (root, program, _drive(answer, "snapshot=off"), cache, *others)
        return [
            *("qemu-system-x86_64", *HARDWARE, "-m", str(self.memory)),
            *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
            *("-kernel", str(machine / "xen")),
            *("-append", XEN_ARGUMENTS.format(self.dom0_memory)),
            *("-initrd", f"{machine / 'vmlinux'} {DOM0_ARGUMENTS},{machine / 'initrd'}"),
            *(word for drive in drives for word in ("-drive", drive)),
            *("-chardev", "stdio,id=output", "-serial", "chardev:output"),
            *("-serial", f"file:{console}"),
        ]


def _drive(path: Path, snapshot: str) -> str:
    quoted = str(path).replace(",", ",,")
    return f"file={quoted},format=raw,if=virtio,cache=unsafe,{snapshot}"


def _cache() -> Path:
    """The directory with a disk of what dom0 finds in its tests' cache: the Debian image."""
    image = debian.debian_image(lambda line: print(line, file=sys.stderr)).path.parent

    def build(work: Path) -> None:
        tree = work / "tree"
        tree.mkdir(mode=0o755)
        payload.check(["cp", "-al", str(image), str(tree)])
        payload.make_filesystem(tree, work / "cache.ext4", CACHE_BYTES)
        payload.check(["rm", "-r", str(tree)])

    return payload.cached("xen-cache", (image.name, CACHE_BYTES), build)


def _wheels(directory: Path) -> Path:
    """The directory ``wheels`` of our distributions, built below ``directory``."""
    scratch = directory / "build"
    scratch.mkdir()
    environment.build(environment.HOUSE.values(), scratch)
    return scratch / "wheels"


def _take(answer: Path, results: Path | None, console: Path) -> int:
    """The status in an answer; the results are put where they are wanted."""
    try:
        with tarfile.open(answer) as archive:
            member = archive.extractfile("run/status")
            assert member
            status = int(member.read())
    except (tarfile.TarError, KeyError):
        raise MachineError(f"the machine ended without a result:\n{_tail(console)}") from None
    if results:
        results.mkdir(parents=True, exist_ok=True)
        place = ("-C", str(results), "--strip-components=1", "results")
        payload.check(["tar", "--extract", "--sparse", "--file", str(answer), *place])
    return status


def _tail(console: Path) -> str:
    lines = console.read_text(errors="replace").splitlines()
    return "\n".join([line for line in lines if line.strip()][-60:])
