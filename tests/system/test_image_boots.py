"""The Debian image that other tests deploy boots, on its own, to a login prompt."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.images.debian import DebianImage, debian_image
from tests.machine import Machine, copy_disk

if TYPE_CHECKING:
    from pathlib import Path

# A boot takes some 15 s of an otherwise idle CPU; the limit is for machines that are not.
BOOT_TIMEOUT = 240


@pytest.fixture(scope="module")
def image() -> DebianImage:
    return debian_image(print)


def test_image_boots_to_a_login_prompt(image: DebianImage, tmp_path: Path) -> None:
    """BIOS, GRUB, kernel, initial RAM disk, root by UUID, systemd, getty: each did its part."""
    disk = copy_disk(image.path, tmp_path / "disk.raw")
    with Machine(disk, tmp_path / "console.log") as machine:
        banner = machine.wait_for_console(
            r"^Debian GNU/Linux 12 (\S+) ttyS0\s+\1 login: ", BOOT_TIMEOUT
        )
        assert banner[1] == "debian"
        assert not re.findall(r"FAILED|Kernel panic|emergency mode", machine.console_text())


def test_image_is_shared_read_only(image: DebianImage) -> None:
    assert image.path.stat().st_mode & 0o777 == 0o444
    assert image.path.stat().st_size == image.disk_bytes
    assert image.path.stat().st_blocks * 512 < image.disk_bytes / 2
