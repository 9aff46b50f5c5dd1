"""Small images for whole deployments: a Linux that never boots but has all that tasks look for,
and disks that are not what they should be."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.images.small import Extent, Partition, small_image

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20
SECTOR = 512
IMAGE_BYTES = 64 * MIB
LARGE_BYTES = 768 * MIB
ROOT_UUID = "0c6fb4e5-8e0a-4a57-9d0f-6f3b8f0b1c11"
MACHINE_ID = "0123456789abcdef0123456789abcdef"
HOST_KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nshared by every copy\n"
OTHER_FILE = "usr/share/doc/notes"
"""A file that no task has a reason to touch."""

FILES = {
    "etc/os-release": "ID=debian\nVERSION_ID=12\n",
    "etc/fstab": f"UUID={ROOT_UUID} / ext4 errors=remount-ro 0 1\n",
    "etc/hostname": "template\n",
    "etc/hosts": "127.0.0.1 localhost\n127.0.1.1 template\n",
    "etc/machine-id": f"{MACHINE_ID}\n",
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n",
    "etc/shadow": "root:*:19000:0:99999:7:::\nalice:!:19000:0:99999:7:::\n",
    "etc/group": "root:x:0:\nalice:x:1000:\n",
    "etc/ssh/sshd_config": "PermitRootLogin prohibit-password\n",
    "etc/ssh/ssh_host_ed25519_key": HOST_KEY,
    "etc/ssh/ssh_host_ed25519_key.pub": "ssh-ed25519 AAAA template\n",
    "usr/lib/systemd/systemd": "",
    "usr/lib/systemd/system/systemd-networkd.service": "[Service]\n",
    "usr/bin/ssh-keygen": "",
    "home/alice/.profile": "",
    OTHER_FILE: "as it was\n" * 1000,
}
LINKS = {
    "etc/systemd/system/multi-user.target.wants/systemd-networkd.service": (
        "/usr/lib/systemd/system/systemd-networkd.service"
    ),
}
_SECRET = {"etc/shadow": 0o640, "etc/ssh/ssh_host_ed25519_key": 0o600}


@dataclass(frozen=True)
class Images:
    """A directory of images, by the names below."""

    directory: Path
    root: Extent
    """Where the root file system lies in ``linux``."""

    @property
    def linux(self) -> Path:
        """GPT, BIOS boot partition, ext4 root last."""
        return self.directory / "linux.diskdump"


def make_images(directory: Path) -> Images:
    """``linux``, and beside it: ``large`` (all data), ``empty``, ``blank`` (no partition table),
    ``no-linux`` (swap), ``no-etc`` (an empty ext4), ``bad-primary`` and ``bad-both`` (damaged
    GPTs); ``folder``, ``fifo`` and ``device``; ``outside`` and ``absolute``, which lead to a file
    outside the directory.
    """
    tree = directory / "tree"
    _make_tree(tree)
    images = directory / "images"
    images.mkdir()
    extents = small_image(
        images / "linux.diskdump",
        IMAGE_BYTES // MIB,
        "gpt",
        [
            Partition(size=1, type="21686148-6449-6E6F-744E-656564454649"),
            Partition(filesystem="ext4", content=tree, options=("-U", ROOT_UUID)),
        ],
    )
    text = (images / "linux.diskdump").read_bytes()
    small_image(images / "no-linux", 64, "gpt", [Partition(filesystem="swap")])
    small_image(images / "no-etc", 64, "gpt", [Partition(filesystem="ext4")])
    (images / "empty").touch()
    (images / "blank").write_bytes(bytes(4 * MIB) + b"not a partition table" + bytes(4 * MIB))
    (images / "bad-primary").write_bytes(_damaged(text, [1]))
    (images / "bad-both").write_bytes(_damaged(text, [1, len(text) // SECTOR - 1]))
    (images / "folder").mkdir()
    os.mkfifo(images / "fifo")
    os.mknod(images / "device", stat.S_IFCHR | 0o600, os.makedev(1, 5))  # /dev/zero
    with (images / "large").open("wb") as file:
        for _ in range(LARGE_BYTES // MIB):
            file.write(b"\x55" * MIB)
    (images / "outside").symlink_to("../secret")
    (images / "absolute").symlink_to(directory / "secret")
    (directory / "secret").write_bytes(text[: 4 * MIB])
    return Images(images, extents[1])


def _make_tree(tree: Path) -> None:
    for name, content in FILES.items():
        path = tree / name
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        path.write_text(content)
        path.chmod(_SECRET.get(name, 0o644))
    for name, target in LINKS.items():
        path = tree / name
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        path.symlink_to(target)


def _damaged(disk: bytes, sectors: list[int]) -> bytes:
    """A disk with a few bytes of each of its GPT headers changed, so that checksums are wrong."""
    damaged = bytearray(disk)
    for sector in sectors:
        at = sector * SECTOR + 40
        damaged[at : at + 8] = b"\xff" * 8
    return bytes(damaged)
