"""The Debian image as a domU: a copy that root enters without a password, and its terminal."""

from __future__ import annotations

import os
import re
import select
import shutil
import subprocess
import tempfile
import time
import tty
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.images.debian import debian_image
from tests.machine import copy_disk
from tests.xen.domu import GuestError, domid, xenstore, xl

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

PATIENCE = 600.0
"""Seconds after which a boot that takes some thirty of an idle processor has failed."""

PVGRUB = Path("/usr/lib/grub-xen")
"""Where Debian has GRUB as a kernel for guests of Xen."""

MASKED = (
    *("dev-hugepages.mount", "dev-mqueue.mount", "sys-kernel-debug.mount"),
    *("sys-kernel-tracing.mount", "modprobe@configfs.service", "modprobe@dm_mod.service"),
    *("modprobe@drm.service", "modprobe@efi_pstore.service", "modprobe@fuse.service"),
    *("modprobe@loop.service", "systemd-fsck-root.service", "systemd-journal-flush.service"),
    *("systemd-random-seed.service", "systemd-sysctl.service"),
)
"""What takes its time before a login, and is not looked at."""

ARGUMENTS = " ".join(
    [
        *("mitigations=off", "systemd.unit=getty.target", "systemd.show_status=no"),
        *(f"systemd.mask={unit}" for unit in MASKED),
    ]
)
"""What makes a boot short: up to the logins, and nothing beside."""


@dataclass(frozen=True)
class Template:
    """A copy of the image on a disk that guests may write to, one after the other."""

    disk: Path
    kernel: Path
    """Not compressed; of the release that the image has modules for."""
    initrd: Path
    """The image's own."""
    arguments: str
    """Those of the image's own menu, and ARGUMENTS."""

    def direct(self) -> list[str]:
        """Lines of xl.cfg(5) by which the node provides the kernel."""
        return [
            f"kernel = '{self.kernel}'",
            f"ramdisk = '{self.initrd}'",
            f"extra = '{self.arguments}'",
        ]


@contextmanager
def template(files: Mapping[str, str]) -> Iterator[Template]:
    """A copy with ``files`` in it: absolute path -> text."""
    image = debian_image()
    directory = Path(tempfile.mkdtemp(prefix="snf-debian-", dir="/var/tmp"))
    try:
        disk = copy_disk(image.path, directory / "disk.raw")
        kernel = Path(f"/boot/vmlinux-{image.kernel_version}")
        opened = _Filesystem(disk, image.root_partition_start, directory)
        initrd = opened.extracted(f"/boot/initrd.img-{image.kernel_version}")
        menu = opened.read("/boot/grub/grub.cfg")
        (start,) = re.findall(r"^ *linux .*$", menu, re.MULTILINE)
        arguments = f"{start.split(maxsplit=2)[2]} {ARGUMENTS}"
        opened.write("/boot/grub/grub.cfg", menu.replace(start, _starts(start)))
        opened.copy(kernel, "/boot/vmlinux")
        shadow = opened.read("/etc/shadow")
        opened.write("/etc/shadow", re.sub(r"^root:[^:]*:", "root::", shadow, flags=re.MULTILINE))
        for path, text in files.items():
            opened.write(path, text)
        yield Template(disk, kernel, initrd, arguments)
    finally:
        shutil.rmtree(directory)


def _starts(line: str) -> str:
    """The menu's line that loads the kernel, for every GRUB: that for paravirtual guests does not
    know LZ4, by which Debian's kernel is compressed. pygrub takes the last such line.
    """
    linux, _, arguments = f"{line} {ARGUMENTS}".strip().split(maxsplit=2)
    assert linux == "linux", line
    return (
        f"  if [ $grub_platform = xen ]; then\n  linux /boot/vmlinux {arguments}\n  else\n"
        f"{line} {ARGUMENTS}\n  fi"
    )


class _Filesystem:
    """An ext4 file system at its place in a disk file, by debugfs(8): nothing is mounted."""

    def __init__(self, disk: Path, offset: int, directory: Path) -> None:
        self._place = f"{disk}?offset={offset}"
        self._directory = directory

    def extracted(self, path: str) -> Path:
        target = self._directory / Path(path).name
        self._do(f"dump {path} {target}")
        return target

    def read(self, path: str) -> str:
        return self.extracted(path).read_text()

    def write(self, path: str, text: str) -> None:
        source = self._directory / "source"
        source.write_text(text)
        self.copy(source, path)

    def copy(self, source: Path, path: str) -> None:
        self._do(f"rm {path}", f"write {source} {path}", writable=True)

    def _do(self, *commands: str, writable: bool = False) -> None:
        subprocess.run(
            ["debugfs", *(["-w"] if writable else []), "-f", "-", self._place],
            input="\n".join(commands),
            check=True,
            capture_output=True,
            text=True,
        )


class Debian:
    """A running copy of the image, destroyed at the end of the ``with`` block.

    ``lines`` are those of xl.cfg(5) that say how it is started; ``terminal`` is where it is in
    xenstore: ``console`` (hvc0) or ``serial/0`` (ttyS0).
    """

    def __init__(
        self,
        name: str,
        disk: str,
        lines: Sequence[str],
        terminal: str = "console",
        *,
        patience: float = PATIENCE,
    ) -> None:
        self.name = name
        self._patience = patience
        self._said = ""
        self._descriptor = -1
        always = [f"name = '{name}'", "memory = 256", f"disk = ['{disk}']"]
        ends = [f"on_{event} = 'destroy'" for event in ("poweroff", "reboot", "crash")]
        with tempfile.NamedTemporaryFile("w", suffix=".cfg") as file:
            file.write("\n".join([*always, *ends, *lines, ""]))
            file.flush()
            done = xl("create", file.name)
        try:
            if done.returncode != 0:
                raise GuestError(f"xl create {name}: status {done.returncode}\n{done.stdout}")
            self._descriptor = _opened(f"/local/domain/{domid(name)}/{terminal}/tty")
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> Debian:
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        xl("destroy", self.name)

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Wait until the terminal has shown it, after what was waited for before. GuestError."""
        deadline = time.monotonic() + self._patience
        while (found := re.search(pattern, self._said, re.MULTILINE)) is None:
            ready, _, _ = select.select([self._descriptor], [], [], deadline - time.monotonic())
            try:
                more = os.read(self._descriptor, 1 << 16) if ready else b""
            except OSError:  # the terminal goes with the domain
                more = b""
            if not more:
                raise GuestError(f"{self.name}: no {pattern!r}, but:\n{self._said[-4000:]}")
            self._said += more.decode(errors="replace").replace("\r", "")
        self._said = self._said[found.end() :]
        return found

    def log_in(self) -> None:
        """As root, once somebody asks for a name."""
        self.wait_for(r"^debian login: ")
        os.write(self._descriptor, b"root\n")
        self.wait_for("root@debian:~# ")

    def run(self, command: str) -> str:
        """What a command prints, once logged in."""
        # Quoted, so that the echo of what is typed is something else.
        os.write(self._descriptor, f"echo 'BEGIN'; {command}; echo 'END'\n".encode())
        said = self.wait_for(r"BEGIN\n((?:.*\n)*?)END\n")[1]
        self.wait_for("root@debian:~# ")
        return said

    def kind_and_root(self) -> list[str]:
        """Which kind of guest its kernel takes itself for, and the partition that it runs from."""
        return self.run("cat /sys/hypervisor/guest_type; findmnt -no SOURCE /").split()


def _opened(key: str) -> int:
    """A terminal, soon after it was made: its path is then the value of a key in xenstore."""
    deadline = time.monotonic() + PATIENCE
    while not (path := xenstore(key)):
        if time.monotonic() > deadline:
            raise GuestError(f"no {key} in xenstore")
        time.sleep(0.1)
    descriptor = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    tty.setraw(descriptor)
    return descriptor
