"""Proving that a saved state can be resumed."""

from __future__ import annotations

import socket
import tempfile
import time
from pathlib import Path

from snf_core.errors import ApplianceError
from snf_core.run import STDOUT, started
from snf_kvm import machine, saved
from snf_kvm.monitor import accepted, listening


def prove(program: str) -> float:
    """Resume a state as a deployment does, with a disk; return the seconds until it was ready.

    ``program`` is the launcher's, which takes libguestfs's arguments. The appliance is ready when
    guestfsd greets libguestfs, whose place is taken here. Raises ApplianceError if it does not.
    """
    with tempfile.TemporaryDirectory(prefix="snf-prove-") as name:
        directory = Path(name)
        file, disk, placeholder = (directory / part for part in ("program", "disk", "placeholder"))
        file.write_text(program)
        file.chmod(0o755)
        disk.write_bytes(bytes(1 << 20))
        words: list[str | Path] = [
            file,
            "-chardev", f"socket,path={directory / 'channel'},id={machine.CHANNEL}",
            "-drive", f"file={placeholder},format=raw,id=hd0,if=none",
        ]  # fmt: skip
        environ = {"SNF_DISKS": str(directory / "disks"), "TMPDIR": name}
        with (
            listening(directory / "channel") as channel,
            listening(directory / "disks", socket.SOCK_SEQPACKET) as door,
            disk.open("r+b") as opened,
            (directory / "said").open("w+b") as said,
        ):
            begin = time.monotonic()
            with started(
                words, environ=environ, stdout=said.fileno(), stderr=STDOUT, grace=0
            ) as process:
                try:
                    with accepted(door, process) as connection:
                        socket.send_fds(connection, [str(placeholder).encode()], [opened.fileno()])
                    with accepted(channel, process) as guestfsd:
                        if not guestfsd.recv(1):
                            raise EOFError("QEMU ended")
                    return time.monotonic() - begin
                except (OSError, EOFError) as error:
                    said.seek(0)
                    last = said.read().decode(errors="replace").strip()[-300:]
                    raise ApplianceError(
                        f"the saved state of the appliance cannot be resumed: {last or error}",
                        remedy=saved.REMEDY,
                    ) from error
