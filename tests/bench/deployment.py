"""The deployment of the Debian image, beside the same end state by qemu-img and guestfs-tools.

Both get the same image, the same fixed appliance, and emulation or KVM as the node has it. The
peer's end state is ours as far as its tools go: the image on a larger disk with its root file
system grown (virt-resize, which copies while it grows), host name, machine id, password, key,
network and fresh SSH host keys (virt-customize). The same without growth is qemu-img convert and
virt-customize.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snf_core.image import workspace
from tests import node
from tests.images.debian import cache_directory, debian_image

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.images.debian import DebianImage

DISK_BYTES = 8 << 30
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGlqb8kY5k1hZ2Y0c0d1aFZlQ2hvY29sYXRlUGllVGFzdGVz a@b"
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


@dataclass
class Figures:
    """Seconds, and KiB of memory, of each run."""

    ours: list[float] = field(default_factory=list)
    reports: list[dict[str, Any]] = field(default_factory=list)
    resized: list[float] = field(default_factory=list)
    customized: list[float] = field(default_factory=list)
    converted: list[float] = field(default_factory=list)
    memory: int = 0

    def __str__(self) -> str:
        ours = statistics.median(self.ours)
        customized = statistics.median(self.customized)
        grown = statistics.median(self.resized) + customized
        plain = statistics.median(self.converted) + customized
        lines = [
            f"deployment of the Debian image onto {DISK_BYTES >> 30} GiB, {len(self.ours)} runs",
            f"  ours, with growth               {ours:7.1f} s",
            f"  virt-resize + virt-customize    {grown:7.1f} s   {grown / ours:5.1f} times ours",
            f"  convert + virt-customize, as is {plain:7.1f} s   {plain / ours:5.1f} times ours",
            f"  peak memory without QEMU        {self.memory >> 10:7d} MiB",
            "  ours by phase (median s; the appliance starts beside the copy):",
        ]
        for name, seconds in self._medians("phases").items():
            lines.append(f"    {name:28}{seconds:7.2f}")
        lines.append("  ours by task:")
        for name, seconds in self._medians("tasks").items():
            lines.append(f"    {name:28}{seconds:7.2f}")
        return "\n".join(lines)

    def _medians(self, key: str) -> dict[str, float]:
        return {
            name: statistics.median(report[key][name] for report in self.reports)
            for name in self.reports[0][key]
        }


def measure(runs: int = 3) -> Figures:
    """Deploy ``runs`` times in turn, by us and by the peers."""
    figures = Figures()
    image = debian_image()
    with (
        workspace.private(Path("/run/snf-bench")) as directory,
        tempfile.TemporaryDirectory(prefix="snf-bench-", dir="/var/tmp") as disks,
    ):
        directory.chmod(0o711)
        ganeti = node.make(directory, image.path.parent, directory / "run")
        for _ in range(runs):
            _ours(ganeti, image, Path(disks), figures)
            _peers(image, Path(disks), _same_accelerator(ganeti), figures)
    return figures


def _ours(ganeti: node.Node, image: DebianImage, disks: Path, figures: Figures) -> None:
    disk, report = disks / "disk0", disks / "report.json"
    with disk.open("wb") as file:
        file.truncate(DISK_BYTES)
    nic = node.bridged_nic("198.51.100.10", "198.51.100.0/24", "198.51.100.1")
    environment = node.instance_environment("web1.example.org", disk, nics=[nic]) | {
        "OSP_IMG_ID": image.path.name,
        "OSP_IMG_FORMAT": "diskdump",
        "OSP_IMG_PASSWD": "correct horse battery",
        "OSP_IMG_PROPERTIES": '{"USERS": "root"}',
        "OSP_AUTH_KEYS": KEY,
    }
    started = time.monotonic()
    script = ganeti.script("create", environment, ["--report", str(report)])
    _, said = script.communicate()
    figures.ours.append(time.monotonic() - started)
    if script.returncode != 0:
        raise RuntimeError(said.decode())
    figures.reports.append(json.loads(report.read_text()))
    # The largest single process waited for: the parent or the worker; QEMU is their orphan.
    figures.memory = max(figures.memory, _peak(ganeti, environment))
    disk.unlink()


def _peak(ganeti: node.Node, environment: Mapping[str, str]) -> int:
    """KiB: the largest resident set among parent and worker, sampled while a guest is opened."""
    script = ganeti.script("create", {**environment, "OSP_IMG_ID": "null"})
    peak = 0
    while script.poll() is None:
        peak = max(peak, sum(_resident(pid) for pid in _family(script.pid)))
        time.sleep(0.05)
    script.communicate()
    return peak


def _family(pid: int) -> list[int]:
    """A process and its descendants, without QEMU."""
    found = [pid]
    for entry in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = entry.read_text().split()
        except OSError:
            continue
        for child in children:
            found += _family(int(child))
    return [member for member in found if "qemu" not in _name(member)]


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except OSError:
        return ""


def _resident(pid: int) -> int:
    """KiB that a process holds for itself alone: shared pages are counted once, elsewhere."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def _same_accelerator(ganeti: node.Node) -> dict[str, str]:
    """What makes guestfs-tools start the same appliance in the same way."""
    known = json.loads((ganeti.runtime / "accelerator.json").read_text())
    emulated = known["accelerator"]["name"] == "tcg"
    return {
        "LIBGUESTFS_PATH": str(cache_directory() / "appliance"),
        "LIBGUESTFS_BACKEND": "direct",
        "LIBGUESTFS_BACKEND_SETTINGS": "force_tcg" if emulated else "force_kvm",
    }


def _peers(
    image: DebianImage, disks: Path, environment: Mapping[str, str], figures: Figures
) -> None:
    plain, grown = disks / "plain", disks / "grown"
    figures.converted.append(
        _timed(["qemu-img", "convert", "-f", "raw", "-O", "raw", str(image.path), str(plain)], {})
    )
    figures.customized.append(_timed(_customize(disks, plain), environment))
    with grown.open("wb") as file:
        file.truncate(DISK_BYTES)
    resize = ["virt-resize", "--quiet", "--format", "raw", "--output-format", "raw"]
    resize += ["--expand", f"/dev/sda{image.root_partition}", str(image.path), str(grown)]
    figures.resized.append(_timed(resize, environment))
    plain.unlink()
    grown.unlink()


def _customize(disks: Path, disk: Path) -> list[str]:
    for name, text in {
        "password": "correct horse battery", "key": KEY, "network": NETWORK, "unit": HOST_KEYS
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


def _timed(command: Sequence[str], environment: Mapping[str, str]) -> float:
    started = time.monotonic()
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    seconds = time.monotonic() - started
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} failed: {done.stderr}")
    return seconds
