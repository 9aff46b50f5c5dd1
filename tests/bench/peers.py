"""The same end state by guestfs-tools, given the same appliance and emulation or KVM as we have.

The end state is ours as far as the tools go: the image on a disk, with its root file system grown
(virt-resize, which copies while it grows) or as it is (qemu-img convert); then host name, machine
id, password, key, network and fresh SSH host keys (virt-customize).
"""

from __future__ import annotations

import os
import subprocess
import time
from typing import TYPE_CHECKING

from tests.bench.place import KEY, PASSWORD, fresh

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.bench.place import Place

NETWORK = """[Match]
MACAddress=aa:00:00:5e:00:01

[Network]
Address=198.51.100.10/24
Gateway=198.51.100.1
"""
HOST_KEYS = """[Unit]
Before=ssh.service

[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -A

[Install]
WantedBy=multi-user.target
"""


def grown(place: Place) -> float:
    """Seconds for the image on a larger disk, its root grown, and customized."""
    disk = fresh(place.disks / "grown")
    return _timed(
        place,
        [
            "virt-resize", "--quiet", "--format", "raw", "--output-format", "raw",
            "--expand", f"/dev/sda{place.image.root_partition}",
            str(place.image.path), str(disk),
        ],
        _customize(place, disk),
    )  # fmt: skip


def plain(place: Place) -> float:
    """Seconds for the image as it is, customized."""
    disk = fresh(place.disks / "plain", place.image.disk_bytes)
    return _timed(
        place,
        ["qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", str(place.image.path), str(disk)],
        _customize(place, disk),
    )


def _customize(place: Place, disk: Path) -> list[str]:
    disks = place.disks
    for name, text in {
        "password": PASSWORD, "key": KEY, "network": NETWORK, "unit": HOST_KEYS
    }.items():  # fmt: skip
        (disks / name).write_text(text)
    wants = "/etc/systemd/system/multi-user.target.wants"
    return [
        "virt-customize", "--quiet", "--no-network", "--format", "raw", "-a", str(disk),
        "--hostname", "web1.example.org",
        "--root-password", f"file:{disks / 'password'}",
        "--ssh-inject", f"root:file:{disks / 'key'}",
        "--upload", f"{disks / 'network'}:/etc/systemd/network/10-bench.network",
        "--upload", f"{disks / 'unit'}:/etc/systemd/system/host-keys.service",
        "--link", f"../host-keys.service:{wants}/host-keys.service",
        "--truncate", "/etc/machine-id",
        "--delete", "/etc/ssh/ssh_host_*",
    ]  # fmt: skip


def _timed(place: Place, *commands: Sequence[str]) -> float:
    environment = {
        **os.environ,
        "LIBGUESTFS_PATH": str(place.appliance.directory),
        "LIBGUESTFS_BACKEND": "direct",
        "LIBGUESTFS_BACKEND_SETTINGS": "force_tcg" if place.emulated else "force_kvm",
    }
    started = time.perf_counter()
    for command in commands:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{command[0]} failed: {done.stderr}")
    return time.perf_counter() - started
