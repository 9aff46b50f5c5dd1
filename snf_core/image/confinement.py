"""Giving up everything: namespaces, limits and privileges of the process that opens a guest.

The process is forked from a parent that is root, and gives up in this order: its parent's
descriptors and environment, the network and the sight of other processes (namespaces(7)), all
that can be written to but one small directory, memory of its privileges, and the privileges.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from snf_core.errors import ApplianceError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from snf_core.image.identity import Identity

SCRATCH_BYTES = 256 << 20
"""What can be written to scratch files: sockets, what libguestfs remembers, and above all what
the running appliance changes on its root, which is a few MiB."""
PROCESSES = 128
"""Processes and threads of the identity: two of ours, and QEMU, whose pool of threads for input
and output alone may have 64."""
DESCRIPTORS = 256
"""Of one process. QEMU has some 30 open; libguestfs tries to close all that there may be before
it runs a program, so a large number costs time, too."""
_OVERHEAD = 5 << 30
"""Bytes of address space of QEMU beside the appliance's memory: code, translations, stacks."""
_PROCESSORS = 2
"""Processors' worth of time that QEMU may use: the virtual one, and input and output."""

_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNS = 0x00020000
_CLONE_NEWIPC = 0x08000000
_CLONE_NEWPID = 0x20000000
_CLONE_NEWNET = 0x40000000
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 2, 4, 8
_MS_REC, _MS_PRIVATE = 0x4000, 0x40000
_SYS_MOUNT_SETATTR = 442
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_MOUNT_ATTR_RDONLY = 1
_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38


@dataclass(frozen=True)
class Confinement:
    """As whom the process runs, where, and for how long."""

    identity: Identity
    directory: Path
    """Where the process has its files, and nobody sees them but it and its children: a directory
    of the node that stays empty, and that all deployments share."""
    timeout: float
    """Seconds that its work may take."""

    @property
    def scratch(self) -> Path:
        """The one directory in which the process may write."""
        return self.directory / "scratch"


def fork() -> int:
    """Fork as fork(2) does, the child being the first of its own pid_namespaces(7).

    When it ends, the kernel ends all its descendants before the parent can hear of it.
    """
    own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    child = -1
    try:
        _call("unshare", _CLONE_NEWPID)
        child = os.fork()
        return child
    finally:
        if child != 0:
            _call("setns", own, _CLONE_NEWPID)  # for children that come later
        os.close(own)


def isolate(confinement: Confinement) -> None:
    """Leave the node's network, its IPC objects, its processes and its writable file systems.

    No interface is there any more, not even loopback, and no abstract Unix socket of others;
    nothing mounted here shows outside, and goes with the last process that sees it; whatever is
    written goes to ``confinement.directory``, in memory and bounded.
    """
    confinement.directory.mkdir(exist_ok=True)
    _call("unshare", _CLONE_NEWNET | _CLONE_NEWIPC)
    _own_mounts()
    attributes = (ctypes.c_uint64 * 4)(_MOUNT_ATTR_RDONLY)  # struct mount_attr, mount_setattr(2)
    _call(
        "syscall",
        *(_SYS_MOUNT_SETATTR, _AT_FDCWD, b"/", _AT_RECURSIVE),
        *(ctypes.byref(attributes), ctypes.sizeof(attributes)),
    )
    flags = _MS_NOSUID | _MS_NODEV
    _call("mount", b"proc", b"/proc", b"proc", flags | _MS_NOEXEC, None)
    options = f"mode=0711,size={SCRATCH_BYTES}".encode()
    _call("mount", b"tmpfs", os.fsencode(confinement.directory), b"tmpfs", flags, options)
    confinement.scratch.mkdir(mode=0o700)
    os.chown(confinement.scratch, confinement.identity.uid, confinement.identity.gid)


def hide_mounts(directory: Path) -> None:
    """Leave the node's mounts as they are: ``directory`` is in memory, and empty, only here.

    What is mounted here shows to nobody outside, and goes with the last process that sees it.
    """
    _own_mounts()
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    _call("mount", b"tmpfs", os.fsencode(directory), b"tmpfs", flags, b"mode=0700,size=64k")


def _own_mounts() -> None:
    _call("unshare", _CLONE_NEWNS)
    _call("mount", b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)


def limit(timeout: float, memory: int) -> None:
    """Bound what each process may use (setrlimit(2)). ``memory``: bytes of the appliance.

    - AS: that memory, and what QEMU has beside it. A launcher may bound its own more closely.
    - CPU: seconds over all threads; beyond it nothing sensible is done any more, whatever the
      parent's clock says.
    - NPROC: no fork bombs. The identity is this deployment's alone, so nobody else counts.
    - NOFILE: see DESCRIPTORS.
    - CORE: a core would hold what is secret, and lie where the kernel's pattern says.

    FSIZE stays as it is: a disk may be a file of any size.
    """
    seconds = int(_PROCESSORS * timeout) + 1
    for kind, value in (
        (resource.RLIMIT_AS, memory + _OVERHEAD),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_NPROC, PROCESSES),
        (resource.RLIMIT_NOFILE, DESCRIPTORS),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (value, value))


def become(identity: Identity) -> None:
    """Give up root for good: no set-user-ID program brings it back (prctl(2))."""
    os.setgroups(identity.groups)
    os.setresgid(*[identity.gid] * 3)
    os.setresuid(*[identity.uid] * 3)
    _call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def die_with_parent() -> None:
    """Be killed when the parent dies. Changing the user takes this back (prctl(2))."""
    _call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def forget(kept: Iterable[int]) -> None:
    """Close all descriptors but standard error and those ``kept``, and empty the environment.

    /proc/PID/environ with it, which may hold a password.
    """
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    for name in set(map(int, os.listdir("/proc/self/fd"))) - {0, 1, 2, *kept}:
        with contextlib.suppress(OSError):
            os.close(name)
    os.environ.clear()
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = int(fields[47]), int(fields[48])  # env_start and env_end in proc(5)
    ctypes.memset(start, 0, end - start)


def _call(name: str, *arguments: object) -> None:
    """A function of the C library that returns -1 where it fails. Raises ApplianceError."""
    if getattr(_LIBC, name)(*arguments) == -1:
        error = ctypes.get_errno()
        raise ApplianceError(
            f"the appliance cannot be isolated from this node: {name}: {os.strerror(error)}",
            remedy="deploy as root, not from within a container, on Linux 5.12 or later",
        )
