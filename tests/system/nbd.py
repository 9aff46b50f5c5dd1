"""A storage that only QEMU can reach: a raw file behind an NBD server."""

from __future__ import annotations

import contextlib
import os
import socket as network
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.system.site import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Server:
    """A server on the Unix socket or the port that ``uri`` names."""

    process: subprocess.Popen[bytes]
    uri: str

    def kill(self) -> None:
        """End it, in the middle of whatever it does."""
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def serving(image: Path | str, *options: str, port: bool = False) -> Iterator[Server]:
    """Serve ``image``, a raw file or, with ``--image-opts``, what QEMU knows, in ``options``."""
    # Short, for the socket's name.
    socket = Path(f"/run/snf-test-nbd-{os.getpid()}-{time.monotonic_ns()}")
    if port:
        with contextlib.closing(network.create_server(("127.0.0.1", 0))) as free:
            number = free.getsockname()[1]
        place, uri = ["--bind=127.0.0.1", f"--port={number}"], f"nbd://127.0.0.1:{number}/"
    else:
        place, uri = [f"--socket={socket}"], f"nbd+unix:///?socket={socket}"
    pidfile = socket.with_suffix(".pid")
    formats = [] if "--image-opts" in options else ["--format=raw"]
    if not any(option.startswith("--discard") for option in options):
        formats.append("--discard=unmap")
    process = subprocess.Popen(
        ["qemu-nbd", "--persistent", *place, f"--pid-file={pidfile}", *formats, *options, image]
    )
    try:
        _await(pidfile, process)
        yield Server(process, uri)
    finally:
        process.kill()
        process.wait()
        pidfile.unlink(missing_ok=True)
        socket.unlink(missing_ok=True)


def _await(pidfile: Path, process: subprocess.Popen[bytes]) -> None:
    """A server writes its process id once it listens (qemu-nbd(8))."""
    deadline = time.monotonic() + PATIENCE
    while not (pidfile.exists() and pidfile.read_text()):
        assert process.poll() is None, "the server has ended"
        assert time.monotonic() < deadline, "the server does not listen"
        time.sleep(0.01)
