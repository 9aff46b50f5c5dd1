"""Small domUs in the test dom0: a kernel, a RAM disk, vifs; commands and frames by the console.

>>> with domu.Guest("web1.gnt.test", ["mac=aa:00:10:38:54:25,script=vif-snf"]) as guest:
...     guest.run("ip link set eth0 up && ip address add 10.0.0.5/24 dev eth0")
...     packets.passed(guest.port("eth0"), wire, [frame], marker)

A domU has the cloud kernel of dom0's /boot, not compressed, as unpacking takes seconds under
emulation, and no disk but those it is given (see ``ramdisk``). Its interfaces are down in the
beginning, and without IPv6.
"""

from __future__ import annotations

import atexit
import functools
import itertools
import os
import select
import shutil
import subprocess
import tempfile
import termios
import time
import tty
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from tests.network.packets import Port
from tests.xen import agent, ramdisk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import TracebackType

PATIENCE = 300.0
"""Seconds after which something that must happen has not: generous, in an emulated machine."""

_POLL = 0.1

_KINDS = {
    "pv": (),
    "pvh": (),
    "hvm": ("vnc = 0", "nographics = 1", "xen_platform_pci = 1"),
}


class GuestError(AssertionError):
    """A domU was not created, or does not do what it was told; the message shows the evidence."""


@dataclass(frozen=True)
class Image:
    """What domUs are booted from."""

    kernel: Path
    packed: Path
    """The same kernel as its package has it, which alone QEMU starts in an HVM domain."""
    initrd: Path


@functools.cache
def image() -> Image:
    """Made once, and removed when the tests end."""
    kernels = sorted(Path("/boot").glob("vmlinux-*-cloud-amd64"))
    assert kernels, "no /boot/vmlinux-*-cloud-amd64: this is for the inside of the test dom0"
    kernel = kernels[-1]
    version = kernel.name.removeprefix("vmlinux-")
    directory = Path(tempfile.mkdtemp(prefix="snf-domu-"))
    atexit.register(shutil.rmtree, directory)
    initrd = directory / "initrd"
    initrd.write_bytes(ramdisk.make(version))
    return Image(kernel, kernel.with_name(f"vmlinuz-{version}"), initrd)


def configuration(
    name: str,
    vifs: Sequence[str] = (),
    kind: str = "pv",
    *,
    memory: int = 128,
    lines: Sequence[str] = (),
) -> str:
    """A domU as xl.cfg(5) has it. ``lines`` come last, and replace what is said before."""
    assert kind in _KINDS, kind
    quoted = ", ".join(f"'{vif}'" for vif in vifs)
    return "\n".join(
        [
            f"name = '{name}'",
            f"type = '{kind}'",
            f"kernel = '{image().packed if kind == 'hvm' else image().kernel}'",
            f"ramdisk = '{image().initrd}'",
            "extra = 'console=hvc0 quiet loglevel=1 mitigations=off panic=-1'",
            f"memory = {memory}",
            "vcpus = 1",
            f"vif = [{quoted}]",
            "on_poweroff = 'destroy'",
            "on_reboot = 'restart'",
            "on_crash = 'destroy'",
            *_KINDS[kind],
            *lines,
            "",
        ]
    )


def xl(
    *words: str, environ: Mapping[str, str] | None = None, timeout: float = PATIENCE
) -> subprocess.CompletedProcess[str]:
    """``xl ...``, whatever its exit status; standard error is in the output."""
    return subprocess.run(
        [shutil.which("xl") or "xl", *words],
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environ,
        timeout=timeout,
    )


def domid(name: str) -> int | None:
    """The number of the domain of that name, None where there is none."""
    done = xl("domid", name)
    return int(done.stdout) if done.returncode == 0 else None


def xenstore(path: str) -> str | None:
    """A key's value, None where there is no such key."""
    done = subprocess.run(["xenstore-read", path], check=False, capture_output=True, text=True)
    return done.stdout.removesuffix("\n") if done.returncode == 0 else None


class Guest:
    """A running domU; it is destroyed at the end of the ``with`` block, or by ``close``.

    ``vifs``, ``kind`` (pv, pvh or hvm), ``memory`` in MiB and ``lines`` are as in
    ``configuration``; ``environ`` is the environment of ``xl create``, and so of the vif scripts.
    Raises GuestError with all that xl has said where it does not create it.
    """

    def __init__(
        self,
        name: str,
        vifs: Sequence[str] = (),
        kind: str = "pv",
        *,
        memory: int = 128,
        lines: Sequence[str] = (),
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.domid = -1
        self._console: _Console | None = None
        text = configuration(name, vifs, kind, memory=memory, lines=lines)
        with tempfile.NamedTemporaryFile("w", suffix=".cfg") as file:
            file.write(text)
            file.flush()
            done = xl("create", file.name, environ=environ)
        try:
            if done.returncode != 0:
                raise GuestError(f"xl create {name}: status {done.returncode}\n{done.stdout}")
            self.created = done.stdout
            """What xl and the vif scripts said."""
            self._attach(booting=True)
        except BaseException:
            self.close()
            raise

    @classmethod
    def found(cls, name: str) -> Guest:
        """One of ``image`` that somebody else has created and that has just begun to boot."""
        guest = cls.__new__(cls)
        guest.name, guest.domid, guest.created = name, -1, ""
        guest._console = None
        guest._attach(booting=True)
        return guest

    def __enter__(self) -> Guest:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Destroy it, if it is there, and wait until nothing of it is left. See ``power_off``."""
        if self._console is not None:
            self._console.close()
            self._console = None
        if domid(self.name) is not None:
            done = xl("destroy", self.name)
            self.wait_until_gone(f"xl destroy: {done.stdout}")

    def wait_until_gone(self, why: str = "") -> None:
        """Wait until there is no domain of the name: its vif scripts have then come to their end.

        A restarted domain has another number and the same name.
        """
        _wait(lambda: True if domid(self.name) is None else None, f"{self.name} to go. {why}")

    def vif(self, index: int = 0) -> str:
        """The host's side of a NIC, as libxl names it."""
        return f"vif{self.domid}.{index}"

    def run(self, script: str, timeout: float = 60) -> str:
        """Run a shell script inside: what it says on both streams. GuestError where it fails."""
        status, said = self.status(script, timeout)
        if status != 0:
            raise GuestError(f"{self.name}: {script}: status {status}\n{said}")
        return said

    def status(self, script: str, timeout: float = 60) -> tuple[int, str]:
        """Run a shell script inside: its exit status, and what it says on both streams."""
        status, said = self._talk().ask("run", script, timeout)
        return status, said.decode(errors="replace")

    def python(self, program: str, timeout: float = 60) -> str:
        """Run a program in Python inside, of ``ramdisk.MODULES``: as ``run``."""
        return self.run(f"python3 -I -S -B - <<'END'\n{program}\nEND", timeout)

    def port(self, interface: str, *, offload: bool = False) -> Port:
        """The guest's end of a NIC that is up, from now on. GuestError.

        With ``offload``, in front of each frame is a virtio_net_hdr (linux/virtio_net.h, 10
        bytes), by which the guest's kernel leaves checksums and segmentation to who is next.
        """
        return _GuestPort(interface, self._talk(), offload)

    def power_off(self) -> None:
        """The guest powers itself off. Returns when the domain is gone."""
        self._talk().tell("run", "/sbin/poweroff", PATIENCE)
        self.wait_until_gone()

    def reattach(self, *, booting: bool = False) -> None:
        """Talk to the domain of this name, with another number by now: restored, or ``booting``."""
        if self._console is not None:
            self._console.close()
            self._console = None
        before = self.domid
        _wait(lambda: domid(self.name) not in {None, before} or None, f"another {self.name}")
        self._attach(booting=booting)

    def console_text(self) -> str:
        """What the kernel has said since the last attachment, as far as it was listened to."""
        return self._talk().noise.decode(errors="replace").replace("\r", "")

    def _attach(self, *, booting: bool) -> None:
        found = _wait(lambda: domid(self.name), f"{self.name} to be there")
        key = f"/local/domain/{found}/console/tty"
        self._console = _Console(
            self.name, _wait(lambda: xenstore(key) or None, key), fresh=booting
        )
        self.domid = found
        if booting:
            self._console.greeted()
        else:
            self._console.ask("ping")

    def _talk(self) -> _Console:
        assert self._console is not None, f"{self.name} has been left alone"
        return self._console


class _GuestPort(Port):
    """A packet socket inside of a guest. What is sent is on its way when ``send`` returns."""

    def __init__(self, interface: str, console: _Console, offload: bool) -> None:
        self.name = f"{interface} of {console.name}"
        self._interface = interface, offload
        self._console = console
        self._waiting: list[bytes] = []
        console.ask("open", *self._interface)

    def close(self) -> None:
        """Nothing is held here."""

    def send(self, frame: bytes) -> None:
        """That the guest's kernel did not take it, the next call says that waits for something."""
        self._console.tell("send", *self._interface, frame)

    def receive(self, timeout: float = 0) -> bytes | None:
        """See ``Port``."""
        if not self._waiting:
            self._waiting = self._console.ask("receive", *self._interface, timeout)
        return self._waiting.pop(0) if self._waiting else None


class _Console:
    """The line to the agent in a guest, by the terminal that xenconsoled(8) makes for hvc0."""

    def __init__(self, name: str, terminal: str, *, fresh: bool) -> None:
        """``fresh``: what is already there to read is the guest's greeting, not to be lost."""
        self.name = name
        self.noise = b""
        """What on it was not the agent's."""
        self._descriptor = os.open(terminal, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        tty.setraw(self._descriptor, termios.TCSANOW if fresh else termios.TCSAFLUSH)
        self._messages = self._received()
        self._numbers = itertools.count(1)
        self._deadline = 0.0

    def close(self) -> None:
        """A second time does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def greeted(self) -> None:
        """Wait until the agent says that it is there."""
        self._deadline = time.monotonic() + PATIENCE
        next(self._messages)

    def tell(self, name: str, *arguments: Any) -> None:
        """Give an order, of which only the failure is answered."""
        self._write(0, name, arguments)

    def ask(self, name: str, *arguments: Any) -> Any:
        """Give an order, and wait for its answer. GuestError where it, or one before, fails."""
        number = next(self._numbers)
        self._write(number, name, arguments)
        for answered, error, value in self._messages:
            if error:
                raise GuestError(f"{self.name}: {error}")
            if answered == number:
                return value
        raise AssertionError("the messages never end")

    def _write(self, *order: Any) -> None:
        self._deadline = time.monotonic() + PATIENCE
        left = agent.packed(order)
        while left:
            self._wait_until(writable=True)
            left = left[os.write(self._descriptor, left) :]

    def _received(self) -> Iterator[Any]:
        data = b""
        while True:
            *lines, data = (data + self._read()).split(b"\n")
            for line in lines:
                if line.startswith(agent.MARK):
                    yield agent.unpacked(line)
                else:
                    self.noise += line + b"\n"

    def _read(self) -> bytes:
        self._wait_until(writable=False)
        try:
            return os.read(self._descriptor, 1 << 16)
        except OSError as error:
            self._fail(f"the console is gone: {error}")

    def _wait_until(self, *, writable: bool) -> None:
        left = max(0.0, self._deadline - time.monotonic())
        sets = ([], [self._descriptor]) if writable else ([self._descriptor], [])
        if not any(select.select(*sets, [], left)):
            self._fail(f"nothing from it for {PATIENCE:g} s")

    def _fail(self, what: str) -> NoReturn:
        log = Path(f"/var/log/xen/xl-{self.name}.log")
        said = log.read_text(errors="replace")[-3000:] if log.exists() else ""
        tail = self.noise.decode(errors="replace")[-3000:]
        raise GuestError(f"{self.name}: {what}\n--- console:\n{tail}\n--- {log}:\n{said}")


def _wait(check: Callable[[], Any], what: str) -> Any:
    """Ask until the answer is not None. GuestError."""
    deadline = time.monotonic() + PATIENCE
    while (found := check()) is None:
        if time.monotonic() > deadline:
            raise GuestError(f"waited {PATIENCE:g} s for {what}")
        time.sleep(_POLL)
    return found
