"""The process that opens a guest, and what runs in it: what it can reach, and how it ends."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from snf_core import appliance, config, extension
from snf_core.appliance import Launcher
from snf_core.errors import ApplianceError
from snf_core.image import confinement, identity, worker
from snf_core.image.confinement import Confinement
from snf_core.report import Reporter
from tests.system.site import MIB, PATIENCE, status_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from snf_core.appliance import Appliance
    from snf_core.image.guest import Guest
    from snf_core.image.identity import Identity
    from snf_core.report import Event
    from tests.system.site import Site

SECONDS = 240
"""For the guest's customization: some more than any of these may need."""
DISK_BYTES = 16 * MIB
SETTINGS = ("force_tcg",)
QEMU = 'exec qemu-system-x86_64 "$@"\n'
DYING = f'#!/bin/sh\nfor word; do [ "$word" = -drive ] && exit 3; done\n{QEMU}'
"""Answers libguestfs's questions, and then starts no appliance."""
CONNECTING = """#!/usr/bin/python3 -IS
import os, socket, sys
if "-drive" not in sys.argv:
    os.execvp("qemu-system-x86_64", ["qemu-system-x86_64", *sys.argv[1:]])
connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
connection.connect(os.environ["SNF_DISKS"])
socket.recv_fds(connection, 65536, 64)
"""
HANGING = CONNECTING + 'os.execv("/bin/sleep", ["sleep", "1000000"])\n'
"""Gets the disks, and then does nothing."""
LEAVING = (
    CONNECTING
    + """
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execv("/bin/sleep", ["sleep", "1000000"])
        os._exit(0)
os.execv("/bin/sleep", ["sleep", "1000000"])
"""
)
"""Hangs, and leaves processes of sessions of their own behind, whose parents have ended."""
SLEEPERS_LEFT = 4


class Kept:
    """A sink that remembers."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def emit(self, event: Event) -> None:
        """Keep it."""
        self.events.append(event)

    def close(self) -> None:
        """Nothing to end."""

    def warnings(self) -> list[str]:
        """Those that were reported, in order."""
        warnings = [e["messages"] for e in self.events if e.get("subtype") == "warning"]
        return [message for messages in warnings for message in messages]


@dataclass(frozen=True)
class Bench:
    """What an appliance is started with."""

    appliance: Appliance
    booting: Launcher
    runtime: Path
    disk: int

    @contextlib.contextmanager
    def started(
        self, launcher: Launcher, job: Callable[[Guest, Reporter], None] = lambda _guest, _to: None
    ) -> Iterator[tuple[worker.Worker, Identity]]:
        """A child that starts an appliance, and who it is."""
        locks = self.runtime / "identities"
        with identity.taken(identity.pool("snf-appliance"), launcher.groups, locks) as own:
            confined = Confinement(own, self.runtime / "deployment", SECONDS)
            with worker.started(self.appliance, launcher, confined, [self.disk], job) as started:
                yield started, own


@pytest.fixture(name="bench")
def _bench(place: Site) -> Iterator[Bench]:
    loaded = config.load(place.node.config_file)
    found = appliance.locate(loaded)
    hypervisor = extension.make(extension.HYPERVISOR, "kvm", loaded)
    *_, booting = hypervisor.launcher(found).attempts()
    disk = os.open(place.disk(size=DISK_BYTES, stale=False), os.O_RDWR | os.O_CLOEXEC)
    yield Bench(found, booting, place.node.runtime, disk)
    os.close(disk)


def processes_of(uid: int, words: str) -> list[int]:
    """The processes of a user with these words in their arguments."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            arguments = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            own = status_of(int(entry.name))["Uid"].split()[0] == str(uid)
            if own and words in arguments:
                found.append(int(entry.name))
    return found


def awaited(uid: int, words: str, count: int = 1) -> list[int]:
    """The same, once there are ``count`` of them."""
    deadline = time.monotonic() + PATIENCE
    while len(found := processes_of(uid, words)) != count:
        assert time.monotonic() < deadline, found
        time.sleep(0.01)
    return found


def as_user(who: Identity, code: str, *arguments: object) -> str:
    """What a Python program prints that runs as ``who``."""
    user = ["--reuid", str(who.uid), "--regid", str(who.gid), "--clear-groups"]
    words = ["setpriv", *user, sys.executable, "-ISc", code, *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def inside(pid: int, who: Identity, script: str) -> str:
    """What a shell script prints that runs where ``pid`` does, without QEMU's own filter."""
    namespaces = ["--mount", "--net", "--ipc", "--pid"]
    user = ["--reuid", str(who.uid), "--regid", str(who.gid), "--clear-groups"]
    words = ["nsenter", "--target", str(pid), *namespaces, "setpriv", *user, "sh", "-c", script]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


# -- other ways of starting -------------------------------------------------------------------


def test_what_fails_and_what_hangs_is_followed_by_what_works(bench: Bench) -> None:
    """With one warning each, and the appliance that comes up has the disk."""

    def job(guest: Guest, reporter: Reporter) -> None:
        reporter.info(f"disk: {guest._call('blockdev_getsize64', '/dev/sda')}")

    hanging = Launcher(HANGING, 512, SETTINGS, patience=0.5, fallback=bench.booting)
    launcher = Launcher(DYING, 512, SETTINGS, fallback=hanging, warning="it was better once")
    kept = Kept()
    with bench.started(launcher, job) as (started, own):
        started.finish(Reporter([kept]))
        assert processes_of(own.uid, "sleep") == []
    before, died, hung = kept.warnings()
    assert before == "it was better once"
    assert died.startswith("the appliance did not start: ")
    assert died.endswith("; it is started in another way, which is slower")
    assert hung == (
        "the appliance was not ready within 0.5 s; it is started in another way, which is slower"
    )
    assert {"type": "image-info", "messages": [f"disk: {DISK_BYTES}"]} in [
        {key: value for key, value in event.items() if key != "timestamp"} for event in kept.events
    ]


@pytest.mark.parametrize(
    ("program", "said"),
    [(DYING, "did not start"), (HANGING, r"not ready within 0\.5 s")],
    ids=["dying", "hanging"],
)
def test_the_last_way_that_fails_is_the_error(bench: Bench, program: str, said: str) -> None:
    last = Launcher(program, 512, SETTINGS, patience=0.5)
    kept = Kept()
    with (
        bench.started(Launcher(DYING, 512, SETTINGS, fallback=last)) as (started, _),
        pytest.raises(ApplianceError, match=said) as caught,
    ):
        started.finish(Reporter([kept]))
    assert caught.value.remedy
    assert len(kept.warnings()) == 1


# -- the end ----------------------------------------------------------------------------------


def test_nobody_escapes_the_end(bench: Bench) -> None:
    """Not even who left session and parents: at once, and without being waited for."""
    with bench.started(Launcher(LEAVING, 512, SETTINGS)) as (started, own):
        awaited(own.uid, "sleep", SLEEPERS_LEFT)
        started.end()
        assert processes_of(own.uid, "") == []


def test_what_is_killed_takes_everybody_with_it(bench: Bench) -> None:
    with bench.started(Launcher(LEAVING, 512, SETTINGS)) as (started, own):
        awaited(own.uid, "sleep", SLEEPERS_LEFT)
        os.kill(started._pid, 9)
        with pytest.raises(ApplianceError, match="died"):
            started.finish(Reporter([Kept()]))
        awaited(own.uid, "sleep", 0)


# -- what can be reached ----------------------------------------------------------------------

_SIGNAL = """
import os, sys
try:
    os.kill(int(sys.argv[1]), 0)
    print("reached")
except PermissionError:
    print("refused")
"""
_TRACE = """
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
print("reached" if libc.ptrace(0x4206, int(sys.argv[1]), 0, 0) == 0 else "refused")  # PTRACE_SEIZE
"""
_READ = """
import sys
try:
    print("reached" if open(f"/proc/{sys.argv[1]}/environ").read() is not None else "")
except PermissionError:
    print("refused")
"""


_FORKS = f"""
import os
for _ in range({2 * confinement.PROCESSES}):
    if os.fork() == 0:
        os.closerange(0, 3)
        os.execv('/bin/sleep', ['sleep', '1000000'])
"""


def test_two_at_once_cannot_reach_each_other(bench: Bench) -> None:
    with bench.started(bench.booting) as (_, one), bench.started(bench.booting) as (_, two):
        (first,) = awaited(one.uid, "-drive")
        (second,) = awaited(two.uid, "-drive")
        assert one.uid != two.uid
        assert one.gid != two.gid
        for pid, who in ((first, one), (second, two)):
            assert status_of(pid)["Uid"].split() == [str(who.uid)] * 4
            assert status_of(pid)["Gid"].split() == [str(who.gid)] * 4
        for code in (_SIGNAL, _TRACE, _READ):
            assert as_user(two, code, second) == "reached", "it would never be refused"
        for code in (_SIGNAL, _TRACE, _READ):
            for victim in (first, int(status_of(first)["PPid"])):
                assert as_user(two, code, victim) == "refused"
        for kind in ("net", "ipc", "mnt", "pid"):
            namespaces = {os.readlink(f"/proc/{pid}/ns/{kind}") for pid in (first, second, "self")}
            assert len(namespaces) == 3, kind


def test_inside_there_is_little(bench: Bench) -> None:
    with bench.started(bench.booting) as (_, own):
        (pid,) = awaited(own.uid, "-drive")
        assert inside(pid, own, "cat /proc/net/dev").count(":") == 1  # lo, and that is down:
        connect = "import socket; socket.create_connection(('127.0.0.1', 9))"
        said = inside(pid, own, f'/usr/bin/python3 -ISc "{connect}"')
        assert "Network is unreachable" in said
        shown = inside(pid, own, "cd /proc && echo [0-9]*").split()
        assert 2 <= len(shown) <= 5, shown
        place = bench.runtime / "deployment"
        for directory in ("/tmp", "/var/tmp", "/dev/shm", place, "/proc/sys/kernel"):
            said = inside(pid, own, f"echo x >{directory}/snf-test-file && echo written")
            assert "written" not in said, directory
        _, writable = _mounts(pid)
        assert writable == {"/proc", str(place)}
        assert not (place / "scratch").exists(), "it shows outside"


def test_scratch_files_are_bounded(bench: Bench) -> None:
    with bench.started(bench.booting) as (_, own):
        (pid,) = awaited(own.uid, "-drive")
        scratch = bench.runtime / "deployment" / "scratch"
        script = f"cat /dev/zero 2>&1 >{scratch}/flood; du -m {scratch}/flood"
        said, written = inside(pid, own, script).splitlines()
        assert "No space left on device" in said
        assert int(written.split()[0]) * MIB <= confinement.SCRATCH_BYTES


def test_limits(bench: Bench) -> None:
    with bench.started(bench.booting) as (_, own):
        (qemu,) = awaited(own.uid, "-drive")
        for pid in (qemu, int(status_of(qemu)["PPid"])):
            limits = _limits(pid)
            assert limits["Max cpu time"] == str(2 * SECONDS + 1)
            assert limits["Max processes"] == str(confinement.PROCESSES)
            assert limits["Max open files"] == str(confinement.DESCRIPTORS)
            assert limits["Max core file size"] == "0"
        limited = f"prlimit --nproc={confinement.PROCESSES} /usr/bin/python3 -ISc"
        said = inside(qemu, own, f'{limited} "{_FORKS}"')
        assert "BlockingIOError" in said
        assert len(processes_of(own.uid, "")) <= confinement.PROCESSES


def _mounts(pid: int) -> tuple[set[str], set[str]]:
    """All mount points that a process sees, and those not mounted read-only."""
    lines = [line.split() for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]
    writable = {words[4] for words in lines if "ro" not in words[5].split(",")}
    return {words[4] for words in lines}, writable


def _limits(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()[1:]
    rows = [re.split(r"  +", line) for line in lines]
    return {row[0]: row[2] for row in rows}


# -- the ids ----------------------------------------------------------------------------------

_RESERVE = """
import json, pwd
from snf_core.image import identity
found = []
for user in ("snf-test-new", "snf-test-old", "snf-test-new", "snf-test-old"):
    identity.reserve(user)
    pool = identity.pool(user)
    found.append([[[ids.start, len(ids)] for ids in kind] for kind in (pool.uids, pool.gids)])
assert pwd.getpwnam("snf-test-new").pw_uid < 1000
assert pwd.getpwnam("snf-test-new").pw_shell == "/usr/sbin/nologin"
print(json.dumps(found))
"""


def test_ids_are_reserved_once_for_new_and_for_old_users() -> None:
    """With the real programs, on a copy of /etc."""
    overlay = "mount -t overlay overlay -o lowerdir=/etc,upperdir=/mnt/up,workdir=/mnt/work /etc"
    script = " && ".join(
        [
            "mount -t tmpfs tmpfs /mnt",
            "mkdir /mnt/up /mnt/work",
            overlay,
            "mount -t tmpfs tmpfs /var/log",
            "printf 'someone:100000:700000\\n' | tee /etc/subuid >/etc/subgid",
            "useradd --system snf-test-old",
            'exec "$@"',
        ]
    )
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"]
    done = subprocess.run(
        [*command, sys.executable, "-c", _RESERVE], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    new, old, *again = json.loads(done.stdout)
    assert again == [new, old]
    for one in (0, 1):
        ((first, many),), ((second, more),) = new[one], old[one]
        assert many == more == identity.COUNT
        assert first >= 800_000
        assert second >= first + many or first >= second + more
