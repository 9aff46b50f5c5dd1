"""The Debian image boots as guests that Xen has, started in the usual ways, and asks for a login on
its console; it has its disk under the plugin's name, and its NIC as it is rendered.

The ways that take longest under emulation are in ``tests/xen/boot_by_hand.py``.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

import pytest

from snf_core.image.nics import NicPlan
from snf_core.model import Disk
from snf_os_linux.renderer.networkd import Networkd
from snf_xen.hypervisor import XenPvm
from tests.xen.debian import PVGRUB, Debian, Template, template

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAC = "aa:00:10:38:54:25"
NIC = NicPlan(0, MAC, ipv4="static", address=ipaddress.IPv4Interface("192.0.2.2/24"))

VIF_SCRIPT = """\
#!/bin/sh
[ "$1" = offline ] || xenstore-write "$XENBUS_PATH/hotplug-status" connected
"""


@pytest.fixture(scope="module")
def debian() -> Iterator[Template]:
    """For all tests: each leaves the disk as a guest does whose power is cut."""
    [file] = Networkd(None).render([NIC], (), ())
    with template({file.path: file.content}) as made:
        yield made


ROOT = f"{XenPvm(None).disk_name(Disk(0, '/dev/vg/disk'))}2"


def test_pygrub(debian: Template, tmp_path: Path) -> None:
    """As Ganeti has it, too: it calls the disk sda. The NIC is found by its MAC address."""
    script = tmp_path / "vif-test"
    script.write_text(VIF_SCRIPT)
    script.chmod(0o755)
    vif = f"vif = ['mac={MAC},script={script}']"
    disk = f"file:{debian.disk},sda,w"
    with Debian("pygrub", disk, ["bootloader = 'pygrub'", vif]) as guest:
        guest.log_in()
        assert guest.kind_and_root() == ["PV", ROOT]
        # networkd leaves a link alone until udevd, which the short boot lacks, has seen it.
        guest.run("systemctl start systemd-udevd systemd-udev-trigger systemd-networkd")
        look = "ip -4 -o address show | grep -o '192.0.2.2/24'"  # by whatever name
        assert guest.run(f"until {look}; do sleep 1; done") == "192.0.2.2/24\n"


def test_pvgrub(debian: Template) -> None:
    lines = [f"kernel = '{PVGRUB / 'grub-x86_64-xen.bin'}'"]
    with Debian("pvgrub", f"{debian.disk},raw,xvda,w", lines) as guest:
        guest.log_in()
        assert guest.kind_and_root() == ["PV", ROOT]


def test_pvh(debian: Template) -> None:
    """By a kernel of the node's."""
    lines = ["type = 'pvh'", *debian.direct()]
    with Debian("pvh", f"{debian.disk},raw,xvda,w", lines) as guest:
        guest.log_in()
        assert guest.kind_and_root() == ["PVH", ROOT]
