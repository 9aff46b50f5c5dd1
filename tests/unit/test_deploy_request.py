"""What a deployment asks of a guest, as its tasks are told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from snf_core import extension
from snf_core.config import Config
from snf_core.image import deploy, parameters
from snf_core.model import Disk, Instance
from snf_core.report import Reporter

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("hypervisor", "frontend", "disk_name"),
    [
        ("kvm", "paravirtual", "/dev/vdb"),
        ("kvm", "scsi-hd", "/dev/sdb"),
        ("xen-pvm", "", "/dev/xvdb"),
        ("xen-hvm", "paravirtual", "/dev/xvdb"),
    ],
)
def test_where_the_guest_will_run(
    tmp_path: Path, hypervisor: str, frontend: str, disk_name: str
) -> None:
    file = tmp_path / "snf.conf"
    file.write_text("")
    config = Config([file])
    disk = Disk(1, "/dev/vg/disk", frontend=frontend)
    checked = parameters.check({"img_id": "debian.img", "img_format": "diskdump"})
    wanted = deploy.Deployment(Instance("vm1.example.org", hypervisor), disk, (), checked)
    plugin = extension.make(extension.HYPERVISOR, hypervisor, config)
    prepared = deploy._prepare(wanted, plugin, config, Reporter([]))
    assert prepared is not None
    assert prepared.request.hypervisor == hypervisor
    assert prepared.request.disk_name == disk_name
