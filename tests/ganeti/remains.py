"""What is on a node that does not belong there once its deployments have ended."""

from __future__ import annotations

import contextlib
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.ganeti.node import Node

PATIENCE = 120
"""Seconds that what was killed may take to go: no figure of anything, only no endless wait."""

_EXPECTED = re.compile(
    r"(\S*python3 )?\S*/ganeti-[a-z]+( .*)?"  # daemons
    r"|\S*python3 /usr/share/ganeti/\S+/jqueue/exec\.py .*"  # a job
    r"|\S*qemu-system-\S+ -name .*"  # a guest; appliances have no name
    r"|sh -eu \S+/start|cat"  # the node itself
)


def remains(node: Node) -> set[str]:
    """Mounts, files of ours, processes but Ganeti's and guests, and loop devices.

    Waits until processes that end have ended. The node's own mounts are among the first.
    """
    deadline = time.monotonic() + PATIENCE
    while (running := processes(node)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return {
        *(f"process {words}" for words in running.values()),
        *(f"mount {line}" for line in node.path("/proc/1/mounts").read_text().splitlines()),
        *(f"file {name}" for name in _files(node)),
        *_loop_devices(node),
    }


def processes(node: Node) -> dict[int, str]:
    """By their identifiers, as the node has them, the arguments of all that is not Ganeti's."""
    found = {}
    for entry in node.path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().decode(errors="replace")
            said = words.replace("\0", " ").strip()
            if said and not _EXPECTED.fullmatch(said):
                found[int(entry.name)] = said
    return found


def _files(node: Node) -> list[str]:
    deployments = node.path("/run/snf/deployment").glob("*")
    written = [name for place in ("/tmp", "/var/tmp") for name in node.written(place)]
    return [
        *(f"/run/snf/deployment/{path.name}" for path in deployments),
        # Where the project is installed below /tmp, Python writes there.
        *(name for name in written if "__pycache__" not in name and not Path(name).is_dir()),
    ]


def _loop_devices(node: Node) -> list[str]:
    return [
        f"loop device {backing.parts[3]}"
        for backing in Path("/sys/block").glob("loop*/loop/backing_file")
        if str(node.directory) in backing.read_text()
    ]
