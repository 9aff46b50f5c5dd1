"""``python -m tests.ganeti [NODES]``: a shell on the master of a cluster that goes with the shell.

``python -m tests.ganeti 1 COMMAND ...`` runs a command instead.
"""

from __future__ import annotations

import subprocess
import sys
import time

from tests.ganeti.cluster import Cluster
from tests.ganeti.node import ENVIRONMENT
from tests.images.debian import debian_image


def main(nodes: str = "1", *words: str) -> int:
    """Run the shell or the command; its exit status."""
    started = time.monotonic()
    with Cluster.create(int(nodes), progress=_say) as cluster:
        image = debian_image(_say).path
        cluster.add_image(image, "debian.diskdump")
        _say(f"{nodes} node(s) after {time.monotonic() - started:.0f} s; try: gnt-os diagnose")
        _say("their image: -O img_id=debian.diskdump,img_format=diskdump")
        command = cluster.master.command(*(words or ("bash", "--norc")))
        return subprocess.run(command, env=ENVIRONMENT, check=False).returncode


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
