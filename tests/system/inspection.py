"""What is on a deployed disk, as readers see it that have nothing to do with the project.

The disks hold nothing but what these tests put there, so the host's own tools may read them.
"""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

SECTOR = 512


@dataclass(frozen=True)
class FileSystem:
    """The ext4 file system in a partition of a disk."""

    disk: Path
    start: int
    """Bytes."""

    def read(self, path: str) -> str:
        """A file's text; empty where there is none."""
        return self._debugfs(f"cat {path}")

    def mode(self, path: str) -> str:
        """Permissions, owner and group of a path: ``0640 0 0``; empty where there is none."""
        shown = self._debugfs(f"stat {path}")
        found = re.search(r"Mode: +(\d+).*?User: +(\d+) +Group: +(\d+)", shown, re.DOTALL)
        return " ".join(found.groups()) if found else ""

    def names(self, directory: str) -> set[str]:
        """What is in a directory."""
        lines = self._debugfs(f"ls -p {directory}").splitlines()
        return {line.split("/")[5] for line in lines if line.count("/") > 5} - {".", ".."}

    def tree(self, directory: Path) -> dict[str, bytes]:
        """All regular files by path, unpacked into ``directory`` to be read."""
        directory.mkdir()
        self._debugfs(f"rdump / {directory}")
        return {
            str(path.relative_to(directory)): path.read_bytes()
            for path in directory.rglob("*")
            if path.is_file() and not path.is_symlink()
        }

    def size(self) -> int:
        """Bytes."""
        shown = self._debugfs("stats -h")
        blocks = re.search(r"Block count: +(\d+)", shown)
        length = re.search(r"Block size: +(\d+)", shown)
        assert blocks
        assert length
        return int(blocks[1]) * int(length[1])

    def check(self) -> None:
        """Fail unless e2fsck finds nothing to say against it."""
        done = subprocess.run(
            ["e2fsck", "-fn", self._name], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    @property
    def _name(self) -> str:
        return f"{self.disk}?offset={self.start}"

    def _debugfs(self, request: str) -> str:
        done = subprocess.run(
            ["debugfs", "-R", request, self._name], capture_output=True, text=True, check=True
        )
        return done.stdout


def partitions(disk: Path) -> list[tuple[int, int]]:
    """First byte and size of each partition, which sgdisk must find nothing wrong with."""
    verified = subprocess.run(["sgdisk", "-v", disk], capture_output=True, text=True, check=True)
    assert "No problems found" in verified.stdout, verified.stdout
    shown = subprocess.run(["sfdisk", "--json", disk], capture_output=True, text=True, check=True)
    entries = json.loads(shown.stdout)["partitiontable"]["partitions"]
    return [(entry["start"] * SECTOR, entry["size"] * SECTOR) for entry in entries]
