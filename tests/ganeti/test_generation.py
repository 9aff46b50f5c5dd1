"""What the Ganeti that Debian installs calls, as its own files say."""

from __future__ import annotations

import os
from pathlib import Path

from snf_core import config, extension
from snf_core.ganeti import generation


def test_debians_ganeti_is_understood() -> None:
    found = generation.find()
    assert found, "apt-get install ganeti"
    assert found.calls("kvm-ifup", "kvm-vif-bridge")
    assert found.calls("vif-ganeti", "/etc/xen/scripts/vif-custom")
    hypervisor = extension.make(extension.HYPERVISOR, "kvm", config.load(Path(os.devnull)))
    named = [str(script.path) for script in hypervisor.nic_scripts(found)]
    assert named == ["/etc/ganeti/kvm-vif-bridge"]
