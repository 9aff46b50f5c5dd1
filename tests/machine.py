"""Whole machines for the tests: a disk booted in QEMU, inside a network namespace of its own.

Everything started here is ended here, by its own handle: QEMU dies with the thread that started
it (so start machines from a thread that outlives them), and a namespace is deleted with all its
links when its ``with`` block ends. Root is needed. Emulation only: no KVM, one virtual CPU.
"""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import TracebackType

Value = TypeVar("Value")

# Of the models tried, this one boots fastest under emulation: "max" and Nehalem need more.
# Without SVM the guest does not load KVM.
HARDWARE = ("-accel", "tcg", "-machine", "pc", "-cpu", "qemu64,-svm", "-smp", "1")

SSH_OPTIONS = (
    *("-F", "none"),
    *("-o", "IdentitiesOnly=yes"),
    *("-o", "BatchMode=yes"),
    *("-o", "StrictHostKeyChecking=no"),
    *("-o", "UserKnownHostsFile=/dev/null"),
    *("-o", "LogLevel=ERROR"),
    *("-o", "ConnectTimeout=20"),
)


class MachineError(RuntimeError):
    """A machine or its network did not do what was asked; the message shows the evidence."""


class NetworkNamespace:
    """A network namespace with a name of its own and nothing in it but its loopback, which is up.

    >>> with NetworkNamespace() as namespace:
    ...     namespace.bridge("br0", "192.0.2.1/24", "2001:db8::1/64")
    ...     namespace.tap("tap0", bridge="br0")
    """

    def __init__(self) -> None:
        self.name = f"snf-{os.getpid()}-{secrets.token_hex(4)}"

    def __enter__(self) -> NetworkNamespace:
        _delete_abandoned()
        _check(["ip", "netns", "add", self.name])
        try:
            self.run(["ip", "link", "set", "lo", "up"])
        except BaseException:
            self._delete()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._delete()

    def _delete(self) -> None:
        _check(["ip", "netns", "delete", self.name])

    def command(self, argv: Sequence[str]) -> list[str]:
        """The argument vector that runs ``argv`` inside; /sys is mounted anew for it."""
        return ["ip", "netns", "exec", self.name, *argv]

    def run(self, argv: Sequence[str], timeout: float | None = 60) -> str:
        """Run a program inside and return its standard output.

        Raises :class:`MachineError` if it fails or takes longer than ``timeout`` seconds.
        """
        return _check(self.command(argv), timeout)

    def bridge(self, name: str, *addresses: str) -> None:
        """Make a bridge, up, with addresses in CIDR notation, usable at once."""
        self.run(["ip", "link", "add", name, "type", "bridge"])
        self.run(["ip", "link", "set", name, "up"])
        for address in addresses:
            nodad = ["nodad"] if ":" in address else []
            self.run(["ip", "address", "add", address, "dev", name, *nodad])

    def tap(self, name: str, bridge: str | None = None) -> None:
        """Make a persistent tap interface, up, and a port of ``bridge`` if one is given."""
        self.run(["ip", "tuntap", "add", "dev", name, "mode", "tap"])
        if bridge is not None:
            self.run(["ip", "link", "set", name, "master", bridge])
        self.run(["ip", "link", "set", name, "up"])


def _delete_abandoned() -> None:
    """Delete the namespaces of processes that were killed before they could."""
    for path in Path("/run/netns").glob("snf-*-*"):
        owner = path.name.split("-")[1]
        if owner.isdigit() and not Path("/proc", owner).exists():
            subprocess.run(["ip", "netns", "delete", path.name], capture_output=True, check=False)


@dataclass(frozen=True)
class NetworkCard:
    """A virtio network card: the tap it is plugged into and its MAC address."""

    tap: str
    mac: str


class Machine:
    """A running virtual machine.

    ``disk`` is a raw image, which the guest writes to; ``console`` is the file that gets what the
    guest prints on its serial line; ``namespace`` holds the taps of ``cards``; ``memory`` is in
    MiB; ``extra`` are further arguments of QEMU. The machine starts when it is made and stops,
    without asking the guest, with :meth:`stop` or at the end of its ``with`` block.
    """

    def __init__(
        self,
        disk: Path,
        console: Path,
        namespace: NetworkNamespace | None = None,
        cards: Sequence[NetworkCard] = (),
        *,
        memory: int = 512,
        extra: Sequence[str] = (),
    ) -> None:
        self.console = console
        self.namespace = namespace
        self._login: list[str] = []
        self._messages = console.with_name(f"{console.name}.qemu")
        command = _qemu_command(disk, console, cards, memory, extra)
        if namespace is not None:
            command = namespace.command(command)
        console.write_bytes(b"")
        with self._messages.open("wb") as messages:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=messages, stderr=messages
            )

    def __enter__(self) -> Machine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Cut the power. Ask the guest (``ssh``: ``poweroff``) first to keep its disk clean."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def wait_for_exit(self, timeout: float) -> None:
        """Wait until the guest has powered itself off."""
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise self._error(f"still running after {timeout:g} s") from None

    def wait_for_console(self, pattern: str, timeout: float) -> re.Match[str]:
        """Wait until the serial console has printed something matching a regular expression.

        Carriage returns are dropped and ``^`` and ``$`` match at every line.
        """
        expression = re.compile(pattern, re.MULTILINE)
        return self._poll(
            lambda: expression.search(self.console_text()),
            timeout,
            f"no {pattern!r} on the console",
        )

    def wait_for_ssh(self, address: str, key: Path, timeout: float, user: str = "root") -> None:
        """Wait until ``user`` can log in with a private key at an IPv4 or IPv6 address.

        From then on this is the login that :meth:`ssh` uses.
        """
        probe = ["timeout", "5", "bash", "-c", f": </dev/tcp/{address}/22"]
        login = _ssh_command(address, key, user)

        def log_in() -> bool:
            self._inside(probe, 10)
            self._inside([*login, "true"], 60)
            return True

        self._poll(log_in, timeout, f"no SSH login for {user} at {address}")
        self._login = login

    def ssh(self, command: str, timeout: float = 60) -> str:
        """Run a shell command in the guest and return its standard output.

        Raises :class:`MachineError` if it fails or takes longer than ``timeout`` seconds.
        """
        if not self._login:
            raise MachineError("wait_for_ssh first: it says where and as whom to log in")
        return self._inside([*self._login, command], timeout)

    def host_keys(self, address: str) -> dict[str, str]:
        """The SSH server's public host keys, algorithm -> base64, as ssh-keyscan sees them."""
        keys = self._inside(["ssh-keyscan", "-T", "20", "-t", "ed25519,ecdsa,rsa", address], 90)
        words = [line.split() for line in keys.splitlines() if not line.startswith("#")]
        return {algorithm: key for _, algorithm, key in words}

    def console_text(self) -> str:
        """What the guest has printed so far, without carriage returns."""
        return self.console.read_text(errors="replace").replace("\r", "")

    def _inside(self, argv: Sequence[str], timeout: float) -> str:
        command = list(argv) if self.namespace is None else self.namespace.command(argv)
        return _check(command, timeout)

    def _poll(self, check: Callable[[], Value | None], timeout: float, what: str) -> Value:
        """Call ``check`` until it returns something; fail if QEMU ends or time is up.

        A :class:`MachineError` of the check is a "not yet"; the last one is part of our own.
        """
        deadline = time.monotonic() + timeout
        reason = ""
        while True:
            try:
                value = check()
            except MachineError as error:
                value, reason = None, f" ({error})"
            if value is not None:
                return value
            if self._process.poll() is not None:
                raise self._error(f"QEMU ended with status {self._process.returncode}")
            if time.monotonic() > deadline:
                raise self._error(f"{what} within {timeout:g} s{reason}")
            time.sleep(0.1)

    def _error(self, what: str) -> MachineError:
        lines = self.console_text().splitlines()[-30:]
        messages = self._messages.read_text(errors="replace").strip()
        return MachineError(
            "\n".join([what, "--- QEMU:", messages, "--- end of the console:", *lines])
        )


def make_ssh_key(directory: Path) -> tuple[Path, str]:
    """Make an ed25519 key pair without passphrase: path of the private key, public key line."""
    private = directory / "id_ed25519"
    comment = "snf tests"
    _check(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(private)])
    return private, private.with_suffix(".pub").read_text().strip()


def copy_disk(source: Path, target: Path) -> Path:
    """Make a writable copy of a raw image, keeping its holes; return ``target``."""
    _check(["cp", "--sparse=always", "--reflink=auto", str(source), str(target)], timeout=300)
    target.chmod(0o600)
    return target


def _qemu_command(
    disk: Path, console: Path, cards: Sequence[NetworkCard], memory: int, extra: Sequence[str]
) -> list[str]:
    return [
        *("setpriv", "--pdeathsig", "KILL", "--"),
        *("qemu-system-x86_64", *HARDWARE, "-m", str(memory)),
        *("-nodefaults", "-no-user-config", "-display", "none"),
        *("-drive", f"file={_quoted(disk)},format=raw,if=none,id=disk0,cache=unsafe"),
        *("-device", "virtio-blk-pci,drive=disk0,bootindex=1"),
        *("-device", "virtio-rng-pci"),
        *("-chardev", f"file,id=console,path={_quoted(console)}", "-serial", "chardev:console"),
        *(argument for number, card in enumerate(cards) for argument in _card(number, card)),
        *extra,
    ]


def _card(number: int, card: NetworkCard) -> Iterator[str]:
    """QEMU's arguments for a card, without its boot ROM: never boot from the network."""
    tap = f"tap,id=net{number},ifname={card.tap},script=no,downscript=no"
    yield from ("-netdev", tap)
    yield from ("-device", f"virtio-net-pci,netdev=net{number},mac={card.mac},romfile=")


def _quoted(path: Path) -> str:
    """A path as the value of a QEMU option, where a comma is written twice."""
    return str(path).replace(",", ",,")


def _ssh_command(address: str, key: Path, user: str) -> list[str]:
    return ["ssh", *SSH_OPTIONS, "-i", str(key), f"{user}@{address}"]


def _check(argv: Sequence[str], timeout: float | None = 60) -> str:
    """Run a program and return its standard output; MachineError if it fails."""
    try:
        done = subprocess.run(
            argv,
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        raise MachineError(f"{' '.join(argv)}: no end within {timeout} s") from None
    if done.returncode != 0:
        raise MachineError(f"{' '.join(argv)}: status {done.returncode}: {done.stderr.strip()}")
    return done.stdout
