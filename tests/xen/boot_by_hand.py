"""Boots of the Debian image that take too long under emulation to be run every time:
``python -m tests.xen tests/xen/boot_by_hand.py``. See ``test_boot``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from snf_core.model import Disk
from snf_xen.hypervisor import XenHvm, XenPvm
from tests.xen.debian import PVGRUB, Debian, Template, template

if TYPE_CHECKING:
    from collections.abc import Iterator

DISK = Disk(0, "/dev/vg/disk")


@pytest.fixture(scope="module")
def debian() -> Iterator[Template]:
    with template({}) as made:
        yield made


def test_paravirtual_guest_by_a_kernel_of_the_nodes(debian: Template) -> None:
    with Debian("direct", f"{debian.disk},raw,xvda,w", debian.direct()) as guest:
        guest.log_in()
        assert guest.kind_and_root() == ["PV", f"{XenPvm(None).disk_name(DISK)}2"]


def test_pvgrub_for_pvh(debian: Template) -> None:
    lines = ["type = 'pvh'", f"kernel = '{PVGRUB / 'grub-i386-xen_pvh.bin'}'"]
    with Debian("pvgrub-pvh", f"{debian.disk},raw,xvda,w", lines) as guest:
        guest.log_in()
        assert guest.kind_and_root() == ["PVH", f"{XenPvm(None).disk_name(DISK)}2"]


def test_hvm(debian: Template) -> None:
    """By its BIOS and the boot loader on the disk, which is emulated until Linux takes over."""
    lines = ["type = 'hvm'", "serial = 'pty'", "vnc = 0", "nographics = 1"]
    with Debian("hvm", f"{debian.disk},raw,hda,w", lines, "serial/0", patience=3600) as guest:
        guest.log_in()
        assert guest.kind_and_root() == ["HVM", f"{XenHvm(None).disk_name(DISK)}2"]
        assert "hvc0" in guest.run("ls /dev")
