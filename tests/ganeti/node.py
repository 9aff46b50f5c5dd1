"""A node: a process tree with its own mounts, name, network and processes.

It sees this machine's file systems, but what it writes is its own: overlays stand before all that
Ganeti and we write to. Their upper directories are below ``Node.directory``, so that they survive
:meth:`Node.stop`; what must not survive a reboot (/run, /tmp) does not, nor does anything in its
network namespace. The node lives as long as the process that made it, whatever becomes of that.

eth0 is its management interface, br0 its guests' bridge (with eth1), eth2 the uplink of routed
guests: see ``outside``.
"""

from __future__ import annotations

import shlex
import subprocess
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.ganeti import outside

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.ganeti.outside import Outside

DOMAIN = "gnt.test"
MASTER_NAME, MASTER_ADDRESS = f"cluster.{DOMAIN}", f"{outside.MANAGEMENT}.1"

KEPT = (
    "/etc",
    "/root",
    "/usr/lib/ganeti",
    "/usr/local",
    "/usr/share/ganeti",
    "/var/lib",
    "/var/log",
)
"""What a node writes to and finds again after a reboot."""
LOST = ("/tmp", "/var/tmp")
"""What it writes to and does not find again. It sees this machine's there."""

ENVIRONMENT = {
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
}
"""A login's. What starts daemons must bring no more: they pass it on to NIC scripts."""

PATIENCE = 600
"""Seconds after which a command is given up: no figure of anything, only no endless wait."""

SNF = Path(sysconfig.get_path("scripts")) / "snf"


class CommandFailedError(RuntimeError):
    """A command failed that should not; the message shows what it said."""


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    status: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        """All that it said."""
        return self.stdout + self.stderr


@dataclass
class Node:
    """A node of a cluster: ``number`` counts from 1; ``shared`` is a directory that all have."""

    number: int
    directory: Path
    shared: Path
    outside: Outside
    _first: subprocess.Popen[str] | None = field(default=None, init=False)
    pid: int = field(default=0, init=False)
    """Its first process, as it is known to us."""

    @property
    def name(self) -> str:
        """Its host name."""
        return f"node{self.number}.{DOMAIN}"

    @property
    def address(self) -> str:
        """Its address in the management network."""
        return f"{outside.MANAGEMENT}.{10 + self.number}"

    # Power.

    def start(self) -> None:
        """Switch it on. No daemon runs then."""
        self.directory.mkdir(exist_ok=True)
        script = self.directory / "start"
        script.write_text(self._script())
        first = subprocess.Popen(
            [
                *("unshare", "--mount", "--uts", "--ipc", "--net", "--pid", "--fork"),
                *("--propagation", "private", "sh", "-eu", script),
            ],
            env=ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._first = first
        assert first.stdout
        self.pid = int(first.stdout.readline())
        if first.stdout.readline() != "up\n":
            self.stop()
            raise CommandFailedError(f"{self.name} does not start; its words stand above")
        self.outside.connect(self.pid, self.number)
        self.run("sh", "-euc", self._links())

    def stop(self) -> None:
        """Cut the power: its processes are killed, its network and /run are gone."""
        if self._first is None:
            return
        assert self._first.stdin
        assert self._first.stdout
        self._first.stdin.close()
        self._first.wait(PATIENCE)
        self._first.stdout.close()
        self._first = None
        self.pid = 0

    def _script(self) -> str:
        """What its first process does: mount, then wait for the end, burying orphans meanwhile."""
        lines = [
            "read -r pid rest </proc/self/stat",  # before /proc is the node's own
            "echo $pid",
            f"hostname {self.name}",
            "mount -t proc proc /proc",
            "mount -t sysfs sysfs /sys",
            "mount -t tmpfs -o mode=755 tmpfs /run",
            "mkdir -m 1777 /run/lock /run/overlays",
            "mkdir /run/sshd",
        ]
        for places, parent in ((KEPT, self.directory / "kept"), (LOST, Path("/run/overlays"))):
            for place in places:
                layers = parent / place.strip("/").replace("/", "-")
                upper, work = shlex.quote(f"{layers}/upper"), shlex.quote(f"{layers}/work")
                options = f"lowerdir={place},upperdir={upper},workdir={work}"
                lines += [
                    f"mkdir -p {upper} {work}",
                    f"chmod --reference={place} {upper}",
                    f"mount -t overlay -o {options} overlay {place}",
                ]
        disks, shared = shlex.quote(str(self.directory / "srv")), shlex.quote(str(self.shared))
        lines += [
            f"mkdir -p {disks}/ganeti/shared-file-storage",
            f"mount --bind {disks} /srv",
            f"mount --bind {shared} /srv/ganeti/shared-file-storage",
            "echo up",
            "cat",  # a shell buries whatever ends while it waits for a child
        ]
        return "\n".join(lines)

    def _links(self) -> str:
        return f"""\
ip link set lo up
ip address add {self.address}/24 dev eth0
ip link set eth0 up
ip link add br0 type bridge
ip link set br0 up
ip link set eth1 master br0 up
ip address add 198.51.100.{240 + self.number}/24 dev br0
ip address add 2001:db8:1::f{self.number}/64 dev br0 nodad
ip link set eth2 up
"""

    # What it is told and asked.

    def run(
        self,
        *words: str | Path,
        check: bool = True,
        stdin: str = "",
        environ: Mapping[str, str] | None = None,
    ) -> Outcome:
        """Run a command on the node, with a login's environment and ``environ``.

        Raises CommandFailedError where it fails, unless told not to ``check``.
        """
        done = subprocess.run(
            self.command(*words),
            input=stdin,
            capture_output=True,
            check=False,
            encoding="utf-8",
            errors="replace",
            env={**ENVIRONMENT, **(environ or {})},
            timeout=PATIENCE,
        )
        if check and done.returncode != 0:
            raise CommandFailedError(
                f"{self.name}: {shlex.join(map(str, words))}: status {done.returncode}\n"
                f"{done.stdout}{done.stderr}"
            )
        return Outcome(done.returncode, done.stdout, done.stderr)

    def command(self, *words: str | Path) -> list[str]:
        """The argument vector that runs ``words`` on the node."""
        namespaces = ("--mount", "--uts", "--ipc", "--net", "--pid")
        return [
            "nsenter",
            f"--target={self.pid}",
            *namespaces,
            "--wd=/",
            "--",
            *map(str, words),
        ]

    def path(self, place: str) -> Path:
        """A path of the node, as it is known to us while the node is on."""
        return Path(f"/proc/{self.pid}/root{place}")

    def write(self, place: str, text: str, mode: int = 0o644) -> None:
        """Write a file of the node, and make the directories it is in."""
        file = self.path(place)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def written(self, place: str) -> list[str]:
        """The files that were written below a place of LOST since the node was switched on.

        But for what Python keeps of an installation that is there.
        """
        layer = self.path("/run/overlays") / place.strip("/").replace("/", "-") / "upper"
        return [
            f"{place}/{path.relative_to(layer)}"
            for path in layer.rglob("*")
            if not path.is_dir() and "__pycache__" not in path.parts
        ]

    def snf(self, *words: str, check: bool = True) -> Outcome:
        """Run our ``snf``, with the node's configuration."""
        return self.run(SNF, *words, check=check)
