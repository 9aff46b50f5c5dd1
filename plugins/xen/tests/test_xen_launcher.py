"""The program that libguestfs runs in the place of QEMU."""

from __future__ import annotations

import io
import json
import os
import socket
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from snf_xen import launcher

if TYPE_CHECKING:
    from pathlib import Path

QUESTION = '{ "execute": "qmp_capabilities" }{ "execute": "query-qmp-schema" }{ "execute": "quit" }'
"""As libguestfs's shell may deliver it: without any line end."""


def test_the_help_names_a_version() -> None:
    """Of which libguestfs wants major and minor."""
    assert launcher.answers(["-display", "none", "-help"]) == "QEMU emulator version 7.2.0\n"


def test_the_devices_are_those_that_libguestfs_uses() -> None:
    """Or it would look for others."""
    said = launcher.answers(["-display", "none", "-machine", "accel=kvm:tcg", "-device", "?"])
    assert said
    assert 'name "virtio-scsi-pci"' in said


@pytest.mark.parametrize("command", ["query-qmp-schema", "query-kvm"])
def test_each_question_of_the_protocol_has_one_answer(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A greeting, and a line for each command."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(QUESTION.replace("query-qmp-schema", command)))
    said = launcher.answers(["-display", "none", "-qmp", "stdio"])
    assert said
    greeting, *answers = map(json.loads, said.splitlines())
    assert greeting["QMP"]["version"]["qemu"]["major"] == 7
    wanted = {"query-qmp-schema": [], "query-kvm": {"enabled": False, "present": False}}
    assert answers == [{"return": {}}, {"return": wanted[command]}, {"return": {}}]


def test_a_machine_to_be_started_is_no_question() -> None:
    """It has a drive, and a socket at which libguestfs waits."""
    words = ["-device", "virtio-scsi-pci,id=scsi", "-drive", "file=/x/disk0,cache=unsafe",
             "-chardev", "socket,path=/tmp/libguestfsX/guestfsd.sock,id=channel0"]  # fmt: skip
    assert launcher.answers(words) is None
    assert launcher.channel(words) == "/tmp/libguestfsX/guestfsd.sock"
    with pytest.raises(ValueError, match="no socket"):
        launcher.channel(words[:-1])


def test_the_connection_to_the_keeper_comes_with_the_disks(tmp_path: Path) -> None:
    """The disks themselves are not kept open."""
    address = str(tmp_path / "disks")
    ours, theirs = socket.socketpair()
    disk = os.open(tmp_path / "disk", os.O_RDWR | os.O_CREAT)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.bind(address)
        server.listen(1)

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                names = b"\0".join([b"/x/disk0", launcher.ATTENDANT.encode()])
                socket.send_fds(connection, [names], [disk, theirs.fileno()])

        serving = threading.Thread(target=serve)
        serving.start()
        before = len(os.listdir("/proc/self/fd"))
        with launcher.keeper(address) as found:
            serving.join()
            assert len(os.listdir("/proc/self/fd")) <= before + 1
            found.sendall(b"h")
            assert ours.recv(1) == b"h"
    os.close(disk)
    ours.close()
    theirs.close()
