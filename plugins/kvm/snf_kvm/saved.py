"""Saved states of the appliance: where they are, and whether one can be resumed here and now.

A state lies in the appliance's directory, below ``kvm`` by its accelerator, and belongs to root:

``state``          QEMU's migration stream of the running appliance, guestfsd stopped in it
``root.qcow2``     what the running appliance had changed on its root by then; backed by ``root``
``manifest.json``  under which conditions it was saved, and the checksums of the files
``features``       what libguestfs had found out about this QEMU
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snf_core.errors import ApplianceError
from snf_kvm import machine, remembered

if TYPE_CHECKING:
    from snf_core.appliance import Appliance

REMEDY = 'run "snf appliance build"'
FILES = ("state", "root.qcow2")
INSIDE = Path(__file__).with_name("inside")
"""Where that lies which runs inside the appliance; a part of what was saved."""


@dataclass(frozen=True)
class Saved:
    """A saved state that fits this node."""

    directory: Path
    machine: str
    """QEMU's machine type, in full."""
    date: str
    """When it was saved, in ISO 8601."""

    @property
    def state(self) -> Path:
        """The migration stream."""
        return self.directory / "state"

    @property
    def root(self) -> Path:
        """The root file system's image at that time."""
        return self.directory / "root.qcow2"

    @property
    def features(self) -> Path:
        """What libguestfs had found out about this QEMU."""
        return self.directory / "features"


def inside() -> list[Path]:
    """What runs inside the appliance."""
    return sorted(file for file in INSIDE.iterdir() if file.is_file())


def location(appliance: Appliance, accelerator: str) -> Path:
    """The directory of the appliance's state for an accelerator."""
    return appliance.directory / "kvm" / accelerator


def conditions(qemu: Path, accelerator: str, appliance: Appliance) -> dict[str, str]:
    """What must be as it was when a state was saved, by what people call it."""
    layout = hashlib.sha256(machine.COMMAND_LINE.encode())
    layout.update(json.dumps(machine.arguments("", accelerator, 0)).encode())
    for file in inside():
        layout.update(file.read_bytes())
    return {
        "QEMU": _identity(qemu),
        "the appliance": f"{_identity(appliance.kernel)}, {_identity(appliance.root)}",
        "the appliance's memory": f"{appliance.memory} MiB",
        "the processor": _processor() if accelerator == "kvm" else "emulated",
        "the snf-kvm plugin": layout.hexdigest(),
    }


def write_manifest(directory: Path, wanted: dict[str, str], facts: dict[str, str]) -> None:
    """Describe what lies in ``directory``: conditions, facts for people, checksums."""
    sums = {name: _checksum(directory / name) for name in FILES}
    manifest = {"conditions": wanted, **facts, "sha256": sums}
    (directory / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


def find(qemu: Path, accelerator: str, appliance: Appliance) -> Saved:
    """The state to resume. Raises ApplianceError saying why there is none that can be.

    Its checksums are compared once per boot of the node, and again where a file has changed.
    """
    directory = location(appliance, accelerator)
    try:
        manifest = json.loads((directory / "manifest.json").read_text())
        wanted, sums = dict(manifest["conditions"]), dict(manifest["sha256"])
        saved = Saved(directory, str(manifest["machine"]), str(manifest["date"]))
    except FileNotFoundError:
        raise ApplianceError(
            f"there is no saved state of the appliance for {accelerator}", remedy=REMEDY
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ApplianceError(
            f"{directory}: the manifest is unusable: {error!r}", remedy=REMEDY
        ) from error
    here = conditions(qemu, accelerator, appliance)
    others = [name for name, value in here.items() if wanted.get(name) != value]
    if others:
        raise ApplianceError(
            "the saved state of the appliance does not fit: "
            f"{' and '.join(others)} changed since it was saved",
            remedy=REMEDY,
        )
    _check_sums(directory, sums, appliance.boot_cache / f"saved-{accelerator}.json")
    return saved


def _check_sums(directory: Path, sums: dict[str, Any], cache: Path) -> None:
    try:
        key = [str(directory), *remembered.status(*(directory / name for name in FILES))]
        if remembered.recall(cache, key):
            return
        wrong = [name for name in FILES if _checksum(directory / name) != sums.get(name)]
    except OSError as error:
        raise ApplianceError(
            f"the saved state of the appliance cannot be read: {error}", remedy=REMEDY
        ) from error
    if wrong:
        raise ApplianceError(
            "the saved state of the appliance is damaged: "
            f"{directory / wrong[0]} has another checksum",
            remedy=REMEDY,
        )
    remembered.remember(cache, key, True)


def _checksum(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _identity(file: Path) -> str:
    try:
        found = file.stat()
    except OSError as error:
        return f"{file}: {error.strerror}"
    return f"{file.name} of {found.st_size} bytes from {found.st_mtime_ns}"


def _processor() -> str:
    """The model and the features of the node's processor (proc(5))."""
    text = Path("/proc/cpuinfo").read_text()
    found = re.findall(r"^(?:model name|microcode|flags)\s*:\s*(.*)$", text, re.MULTILINE)[:3]
    return hashlib.sha256("\n".join(found).encode()).hexdigest()
