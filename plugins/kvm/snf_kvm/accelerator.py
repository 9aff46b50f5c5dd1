"""Whether KVM works on this node, found out once per boot.

/dev/kvm being there says little: under nested virtualization QEMU may abort at once, or the
guest's kernel may never come up. So the appliance's own kernel is started with KVM, and must
reach its init within seconds. The answer is kept until the node reboots or QEMU changes.
"""

from __future__ import annotations

import os
import select
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from snf_core.run import PIPE, STDOUT, started
from snf_kvm import remembered

if TYPE_CHECKING:
    from snf_core.appliance import Appliance

DEVICE = Path("/dev/kvm")
_REACHED = b"Run /init as init process"
"""What a Linux kernel prints when it hands over to user space (init/main.c)."""


@dataclass(frozen=True)
class Accelerator:
    """What executes the appliance: ``kvm`` or ``tcg`` (emulation), and why not KVM."""

    name: str
    reason: str = ""

    @property
    def emulated(self) -> bool:
        """Whether the processor is emulated."""
        return self.name != "kvm"


def find(qemu: Path, appliance: Appliance, seconds: int) -> Accelerator:
    """The accelerator of this node, from the cache or by trying it for at most ``seconds``."""
    key = [str(qemu), *remembered.status(qemu, appliance.kernel)]
    cache = appliance.boot_cache / "accelerator.json"
    with suppress(TypeError):
        return Accelerator(**remembered.recall(cache, key))
    found = probe(qemu, appliance, seconds)
    remembered.remember(cache, key, asdict(found))
    return found


def probe(qemu: Path, appliance: Appliance, seconds: int) -> Accelerator:
    """Start the appliance's kernel with KVM and see how far it gets."""
    if not DEVICE.exists():
        return Accelerator(
            "tcg",
            f"{DEVICE} does not exist (no hardware virtualization, or the "
            "kvm module is not loaded)",
        )
    command: list[str | os.PathLike[str]] = [
        qemu, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
        "-machine", "accel=kvm", "-cpu", "max", "-m", "256", "-serial", "stdio",
        "-kernel", appliance.kernel, "-initrd", appliance.initrd,
        "-append", "console=ttyS0 panic=-1",
    ]  # fmt: skip
    with started(command, stdout=PIPE, stderr=STDOUT, grace=1) as process:
        assert process.stdout
        said = _read_until(process.stdout.fileno(), _REACHED, seconds)
    if _REACHED in said:
        return Accelerator("kvm")
    last = said.decode(errors="replace").strip().splitlines()[-1:] or ["it printed nothing"]
    return Accelerator(
        "tcg", f"a kernel started with KVM did not reach user space within {seconds} s: {last[0]}"
    )


def _read_until(descriptor: int, marker: bytes, seconds: float) -> bytes:
    deadline = time.monotonic() + seconds
    said = b""
    while marker not in said:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([descriptor], [], [], left)[0]:
            break
        chunk = os.read(descriptor, 65536)
        if not chunk:
            break
        said += chunk
    return said
