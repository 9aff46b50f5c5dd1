"""Initial RAM disks: files as the kernel unpacks them, and the kernel's modules among them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def archive(files: Mapping[str, bytes]) -> bytes:
    """Files, all of them executable, by their paths without a slash in front; not compressed.

    Documentation/driver-api/early-userspace/buffer-format.rst of the kernel.
    """
    entries: dict[str, tuple[int, bytes]] = {}
    for name in files:
        for parent in reversed(Path(name).parents[:-1]):
            entries[str(parent)] = (0o040755, b"")
    entries |= {name: (0o100755, data) for name, data in files.items()}
    entries["TRAILER!!!"] = (0, b"")
    made = bytearray()
    for number, (name, (mode, data)) in enumerate(entries.items(), 1):
        path = name.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(path), 0)
        made += b"070701" + b"".join(b"%08X" % field for field in fields) + path
        made += bytes(-len(made) % 4) + data
        made += bytes(-len(made) % 4)
    return bytes(made)


def driver(modules: Path, name: str) -> Iterator[Path]:
    """A kernel module's file behind those that it needs, as modules.dep(5) lists them.

    ``modules`` is the directory of the kernel's modules below /lib/modules. Nothing where the
    kernel has it built in.
    """
    for line in (modules / "modules.dep").read_text().splitlines():
        file, _, needed = line.partition(":")
        if Path(file).name == f"{name}.ko":
            yield from (modules / one for one in reversed(needed.split()))
            yield modules / file
