"""What libguestfs finds out about QEMU, found out once instead of at each start.

Before it starts the appliance, libguestfs runs QEMU four times to learn what it can do, which
takes a quarter of a second, and keeps the answers in its cache directory in files named for the
size and time of the program (lib/qemu.c of libguestfs). A deployment has a cache directory of
its own and so would never profit. Here the answers are kept under neutral names, and put into a
deployment's cache directory under the names that libguestfs looks for. Where it does not find
what it expects, as after an upgrade of libguestfs, it asks QEMU again.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from snf_core.errors import ApplianceError
from snf_core.image import guest

if TYPE_CHECKING:
    from snf_core.appliance import Appliance, Launcher

_STAT = "stat"
"""The file that libguestfs reads first: generation of the format, size, time, path."""

_DETECTION_ONLY = """#!/bin/sh
for word; do [ "$word" = -drive ] && exit 1; done
exec "${0%/*}/launcher" "$@"
"""


def record(appliance: Appliance, launcher: Launcher, directory: Path) -> None:
    """Let libguestfs find out about the QEMU of ``launcher``; keep the answers in ``directory``.

    QEMU runs, but no machine does. Whoever names the directory in a launcher makes sure that QEMU
    is still the same. Raises ApplianceError where there are no answers.
    """
    directory.mkdir(exist_ok=True)
    directory.chmod(0o755)
    import tempfile

    with tempfile.TemporaryDirectory(dir=directory.parent) as place:
        scratch = Path(place)
        for name, text in (("launcher", launcher.program), ("detect", _DETECTION_ONLY)):
            (scratch / name).write_text(text)
            (scratch / name).chmod(0o755)
        disk = scratch / "disk"  # libguestfs wants one
        disk.touch()
        said = ""
        try:
            guest.start(appliance, launcher, scratch / "detect", scratch, {disk: 0})
        except ApplianceError as error:
            said = error.message
        found = {file.suffix[1:]: file.read_bytes() for file in scratch.glob(".guestfs-*/qemu-*")}
    if _STAT not in found:
        raise ApplianceError(
            f"libguestfs learnt nothing about QEMU: {said}", remedy='run "snf doctor" on the node'
        )
    for name, content in found.items():
        (directory / name).write_bytes(content)
        (directory / name).chmod(0o644)


def provide(cache: Path, program: Path, scratch: Path) -> None:
    """Put what was recorded into the cache directory ``scratch`` of libguestfs, for ``program``.

    To be called by the user who starts the appliance: libguestfs trusts only its own files.
    """
    home = scratch / f".guestfs-{os.geteuid()}"
    status = program.stat()
    stem = f"{status.st_size}-{int(status.st_mtime)}"
    with contextlib.suppress(OSError):  # then it asks QEMU
        home.mkdir(mode=0o700, exist_ok=True)
        generation, _, _ = (cache / _STAT).read_bytes().partition(b" ")
        for file in cache.iterdir():
            if file.name != _STAT:
                (home / f"qemu-{stem}.{file.name}").write_bytes(file.read_bytes())
        numbers = f" {status.st_size} {int(status.st_mtime)} {program}\n"
        (home / f"qemu-{stem}.{_STAT}").write_bytes(generation + numbers.encode())
