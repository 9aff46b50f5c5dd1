"""The machine that is measured on: no figure means anything without it."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from snf_core.run import run
from tests.bench.place import place


def facts() -> dict[str, str]:
    """What the figures depend on most, name and value."""
    with place() as here:
        accelerator = "emulation (TCG)" if here.emulated else "KVM"
        saved = "yes" if here.launcher.fallback else "no"
    return {
        "processor": f"{_first('/proc/cpuinfo', 'model name')}, {os.cpu_count()} threads",
        "memory": _first("/proc/meminfo", "MemTotal"),
        "kernel": os.uname().release,
        "appliance": f"{accelerator}, saved state: {saved}",
        "QEMU": _version("qemu-system-x86_64"),
        "guestfs-tools": _version("virt-resize"),
        "libguestfs": _libguestfs(),
        "Python": platform.python_version(),
    }


def described(found: dict[str, str]) -> str:
    """One fact a line."""
    return "\n".join(["machine", *[f"  {name:14} {value}" for name, value in found.items()]])


def _first(file: str, key: str) -> str:
    """The value of the first line ``key : value``."""
    for line in Path(file).read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return "unknown"


def _version(program: str) -> str:
    return run([program, "--version"]).stdout.decode().splitlines()[0]


def _libguestfs() -> str:
    import guestfs

    found = guestfs.GuestFS(python_return_dict=True).version()
    return ".".join(str(found[part]) for part in ("major", "minor", "release"))
