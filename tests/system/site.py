"""A site for whole deployments: a node, images, disks, and a watch over what is left behind.

The scripts run as Ganeti runs them, but in a mount namespace where an overlay takes what is
written to /tmp, /var/tmp and /dev/shm: whatever they leave there, or mount, shows. Orphans are
adopted by the tests' process (PR_SET_CHILD_SUBREAPER): none that outlives its deployment goes
unseen.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests import node
from tests.images.debian import cache_directory

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

MIB = 1 << 20
DISK_BYTES = 128 * MIB
STALE = 0xAA
"""What an earlier tenant left on every byte of a disk."""
NAME = "web1.example.org"

PATIENCE = 300
"""Seconds after which a test gives up: no figure of anything, only no endless wait."""

_PR_SET_CHILD_SUBREAPER = 36
_PLACES = {"tmp": "/tmp", "var-tmp": "/var/tmp", "shm": "/dev/shm"}
_OVERLAYS = "/mnt"

Event = dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """How a script ended."""

    status: int
    stdout: str
    stderr: str


@dataclass
class Deployment:
    """A script that runs, and its progress."""

    process: subprocess.Popen[bytes]
    progress: int
    """The reading end of the pipe behind --progress-fd."""
    events: list[Event] = field(default_factory=list)
    _pending: bytes = b""

    def next_event(self) -> Event | None:
        """The next event of the progress stream; None at its end."""
        while b"\n" not in self._pending:
            assert select.select([self.progress], [], [], PATIENCE)[0], "no progress any more"
            chunk = os.read(self.progress, 65536)
            if not chunk:
                assert not self._pending, "the progress stream ends in the middle of a line"
                return None
            self._pending += chunk
        line, self._pending = self._pending.split(b"\n", 1)
        self.events.append(json.loads(line))
        return self.events[-1]

    def wait_for(self, **fields: str) -> Event:
        """Read progress until an event has these fields (a message by its beginning)."""
        while (event := self.next_event()) is not None:
            if _matches(event, fields):
                return event
        raise AssertionError(f"no event {fields} among {self.events}: {self.finish().stderr}")

    def finish(self) -> Outcome:
        """Read everything, and wait for the end."""
        with contextlib.suppress(OSError):
            while self.next_event() is not None:
                pass
        stdout, stderr = self.process.communicate(timeout=PATIENCE)
        return Outcome(
            self.process.returncode,
            (stdout or b"").decode(errors="replace"),
            (stderr or b"").decode(errors="replace"),
        )


@dataclass(frozen=True)
class Site:
    """A node and what belongs to its tests."""

    node: node.Node
    images: Path
    disks: Path
    keeper: int
    """The process that keeps the mount namespace."""
    mounts: frozenset[str]
    """What was mounted there before any script ran."""

    def disk(self, name: str = "disk0", size: int = DISK_BYTES, *, stale: bool = True) -> Path:
        """A new disk, mode 0600; ``stale``: full of an earlier tenant's bytes, else sparse."""
        path = self.disks / name
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            if stale:
                for _ in range(size // MIB):
                    file.write(bytes([STALE]) * MIB)
            file.truncate(size)
        return path

    def environment(
        self,
        disk: Path,
        image: str = "null",
        *,
        nics: Sequence[Mapping[str, str]] = (),
        properties: Mapping[str, str] | None = None,
        **parameters: str,
    ) -> dict[str, str]:
        """What Ganeti tells a create script."""
        return {
            **node.instance_environment(NAME, disk, nics=nics),
            "OSP_IMG_ID": image,
            "OSP_IMG_FORMAT": "diskdump",
            "OSP_IMG_PROPERTIES": json.dumps(properties or {}),
            **{f"OSP_{key.upper()}": value for key, value in parameters.items()},
        }

    @contextlib.contextmanager
    def started(
        self,
        environment: Mapping[str, str],
        *arguments: str,
        script: str = "create",
        prefix: Sequence[str] = (),
    ) -> Iterator[Deployment]:
        """A script that runs, ended if the block ends before it does.

        It is run by ``prefix`` where that is given.
        """
        reading, writing = os.pipe()
        process = self.node.script(
            script,
            environment,
            ["--progress-fd", str(writing), *arguments] if script == "create" else arguments,
            pass_fds=[writing],
            prefix=[*self._enter(), *prefix],
        )
        os.close(writing)
        deployment = Deployment(process, reading)
        try:
            yield deployment
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(PATIENCE)
            for stream in (process.stdout, process.stderr):
                if stream:
                    stream.close()
            os.close(reading)

    def run(
        self, environment: Mapping[str, str], *arguments: str, script: str = "create"
    ) -> Outcome:
        """Run a script to its end."""
        with self.started(environment, *arguments, script=script) as deployment:
            return deployment.finish()

    def snf(self, *words: str) -> Outcome:
        """Run ``snf`` with the node's configuration."""
        done = subprocess.run(
            [*self._enter(), *self.node.command(*words)],
            env=node.SCRIPT_ENVIRONMENT,
            capture_output=True,
            text=True,
            umask=0o077,
            timeout=PATIENCE,
            check=False,
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    @contextlib.contextmanager
    def configured(self, group: str, **options: str) -> Iterator[None]:
        """Further options while the block runs."""
        file = self.node.config_file.with_name("snf.conf.d") / f"{group}.conf"
        file.parent.mkdir(exist_ok=True)
        lines = [f"[{group}]", *(f"{key} = {value}" for key, value in options.items())]
        file.write_text("\n".join(lines) + "\n")
        try:
            yield
        finally:
            file.unlink()

    def inside(self, *command: str | Path) -> None:
        """Run a command in the mount namespace of the scripts."""
        subprocess.run([*self._enter(), *command], check=True, timeout=PATIENCE)

    def await_orphans(self, *others: int) -> None:
        """Wait until the processes whose parents were killed are gone too.

        ``others`` are children of the tests that stay.
        """
        deadline = time.monotonic() + PATIENCE
        while orphans := _adopted({self.keeper, *others}):
            assert time.monotonic() < deadline, orphans
            time.sleep(0.02)

    def remains(self, *others: int) -> list[str]:
        """What deployments left behind: directories, files, mounts, processes, loop devices.

        ``others`` are children of the tests that stay.
        """
        left = node.leftovers(self.node)
        for name, place in _PLACES.items():
            written = Path(f"/proc/{self.keeper}/root{_OVERLAYS}/{name}/upper")
            for path in written.rglob("*"):
                shown = Path(place) / path.relative_to(written)
                # Directories that were there before, and what Python keeps of an installation.
                if not shown.is_dir() and "__pycache__" not in shown.parts:
                    left.append(str(shown))
        left += [f"adopted process {words}" for words in _adopted({self.keeper, *others})]
        left += [f"mount {mount}" for mount in _mounts(self.keeper) - self.mounts]
        left += [str(path) for path in self.node.definition.rglob("core*")]
        return left

    def _enter(self) -> list[str]:
        return ["nsenter", f"--mount=/proc/{self.keeper}/ns/mnt", "--wd=."]


@contextlib.contextmanager
def site(images: Path, settings: Mapping[str, Mapping[str, str]] | None = None) -> Iterator[Site]:
    """A node that finds its images in ``images``; ``settings`` are further options by group."""
    cache_directory().mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="site-", dir=cache_directory()))
    # Short, for the sockets' names, and open to the appliance's user.
    runtime = Path(tempfile.mkdtemp(prefix="snf-test-", dir="/run"))
    for passed in (directory, runtime):
        passed.chmod(0o711)
    _adopt_orphans(yes=True)
    try:
        disks = directory / "disks"
        disks.mkdir()
        with _namespace() as keeper:
            made = node.make(directory, images, runtime, settings)
            yield Site(made, images, disks, keeper, _mounts(keeper))
    finally:
        _adopt_orphans(yes=False)
        shutil.rmtree(directory)
        shutil.rmtree(runtime)


def processes_of(runtime: Path) -> dict[int, list[str]]:
    """Process id -> arguments of what runs with something of ``runtime`` in its arguments."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if any(str(runtime) in word for word in words):
                found[int(entry.name)] = words
    return found


def qemu(runtime: Path) -> int:
    """The process id of the one appliance that runs below ``runtime``; waits for it."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found = [
            pid
            for pid, words in processes_of(runtime).items()
            if "-drive" in words and words[0].endswith("qemu-system-x86_64")
        ]
        if found:
            assert len(found) == 1, found
            return found[0]
        time.sleep(0.02)
    raise AssertionError("no appliance was started")


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process at a standstill while the block runs."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def status_of(pid: int) -> dict[str, str]:
    """/proc/PID/status by field."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def holds(path: Path, needle: bytes) -> bool:
    """Whether a file holds these bytes somewhere."""
    tail = b""
    with path.open("rb") as file:
        while chunk := file.read(4 * MIB):
            if needle in tail + chunk:
                return True
            tail = chunk[-len(needle) :]
    return False


@contextlib.contextmanager
def _namespace() -> Iterator[int]:
    commands = [f"mount -t tmpfs tmpfs {_OVERLAYS}"]
    for name, place in _PLACES.items():
        upper, work = f"{_OVERLAYS}/{name}/upper", f"{_OVERLAYS}/{name}/work"
        options = f"lowerdir={place},upperdir={upper},workdir={work}"
        commands += [f"mkdir -p {upper} {work}", f"mount -t overlay overlay -o {options} {place}"]
    script = " && ".join([*commands, "echo up", "exec cat"])
    keeper = subprocess.Popen(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert keeper.stdin
    assert keeper.stdout
    try:
        assert keeper.stdout.readline() == b"up\n"
        yield keeper.pid
    finally:
        keeper.stdin.close()
        keeper.wait(PATIENCE)
        keeper.stdout.close()


def _mounts(pid: int) -> frozenset[str]:
    return frozenset(Path(f"/proc/{pid}/mounts").read_text().splitlines())


def _adopt_orphans(*, yes: bool) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(yes), 0, 0, 0)


def _adopted(known: set[int]) -> list[str]:
    """Processes whose parents ended before them; those that have ended too are buried."""
    found = []
    for entry in Path("/proc/self/task").glob("*/children"):
        for pid in set(map(int, entry.read_text().split())) - known:
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
            ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG) is not None
            found.append(f"{pid} ({'ended' if ended else 'alive'}): {words!r}")
    return found


def _matches(event: Event, fields: Mapping[str, str]) -> bool:
    for key, value in fields.items():
        if key == "message":
            if not any(text.startswith(value) for text in event.get("messages", [])):
                return False
        elif event.get(key) != value:
            return False
    return True
