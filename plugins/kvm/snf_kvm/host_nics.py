"""Ganeti's list of the taps of KVM instances: a file for each NIC, written once QEMU runs.

``/run/ganeti/kvm-hypervisor/nic/INSTANCE/INDEX`` holds the tap's name. It is removed when Ganeti
stops the instance, and stays when QEMU ends by itself.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from snf_core import model
from snf_core.contract import HostNic
from snf_core.errors import InvalidValueError
from snf_kvm.nic import COMMUNICATION

if TYPE_CHECKING:
    from collections.abc import Iterator

DIRECTORY = Path("/run/ganeti/kvm-hypervisor/nic")
_INDEX = re.compile("[0-9]{1,3}")
_LONGEST = 64
"""Bytes of a file that are read: more than any name has."""


def listed(directory: Path = DIRECTORY) -> Iterator[HostNic]:
    """All that can be understood, in no order."""
    for path in directory.glob("*/*"):
        with contextlib.suppress(OSError, InvalidValueError):
            interface = model.interface_name(_content(path))
            if _INDEX.fullmatch(path.name) and not interface.startswith(COMMUNICATION):
                yield HostNic(model.instance_name(path.parent.name), int(path.name), interface)


def _content(path: Path) -> str:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, encoding="ascii", errors="replace") as file:
        return file.read(_LONGEST).strip()
