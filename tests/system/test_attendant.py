"""What stands beside an appliance with the node's rights: entered, reached, heard of, and left."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import TYPE_CHECKING

import pytest

from snf_core import appliance, config
from snf_core.appliance import Launcher
from snf_core.errors import ApplianceError, CommandError, DiskError, SnfError
from snf_core.image import identity, worker
from snf_core.image.confinement import Confinement
from snf_core.report import Event, Reporter

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.system.site import Site

GREETING = b"from an unprivileged program"
PROGRAM = f"""#!/usr/bin/python3 -IS
import os, socket, sys
if "-drive" not in sys.argv:
    os.execv("/usr/bin/qemu-system-x86_64", ["qemu", *sys.argv[1:]])
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
    connection.connect(os.environ["SNF_DISKS"])
    names, descriptors, _, _ = socket.recv_fds(connection, 65536, 64)
found = dict(zip(names.decode().split("\\0"), descriptors))
os.write(found["attendant"], {GREETING!r} if os.geteuid() else b"root")
sys.exit(1)
"""
FAILING = "#!/bin/sh\nexit 1\n"
SECONDS = 60


class Kept:
    """A sink that remembers."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def emit(self, event: Event) -> None:
        """Keep it."""
        self.events.append(event)

    def close(self) -> None:
        """Nothing to end."""

    def warnings(self) -> list[str]:
        """Those that were reported, in order."""
        found = [event for event in self.events if event.get("subtype") == "warning"]
        return [line for event in found for line in event["messages"]]


class Attendant:
    """A process that listens until everybody has hung up, and takes its time to go."""

    def __init__(self) -> None:
        self.disks: Sequence[int] = ()
        self.heard = b""
        self.left = False

    @contextlib.contextmanager
    def attend(self, disks: Sequence[int]) -> Iterator[socket.socket]:
        """As a launcher names it."""
        self.disks = disks
        ours, theirs = socket.socketpair()
        there, said = os.pipe()
        child = os.fork()
        if child == 0:
            theirs.close()
            while chunk := ours.recv(100):
                os.write(said, chunk)
            os._exit(0)
        ours.close()
        os.close(said)
        try:
            yield theirs
        finally:
            theirs.close()
            os.waitpid(child, 0)
            self.heard = os.read(there, 1000)
            os.close(there)
            self.left = True


def start(place: Site, launcher: Launcher) -> list[str]:
    """Start an appliance that does not come up; the warnings. Raises SnfError."""
    loaded = config.load(place.node.config_file)
    runtime, kept = place.node.runtime, Kept()
    disk = os.open(place.disk(stale=False), os.O_RDWR | os.O_CLOEXEC)
    identities = identity.pool(loaded.appliance.user)
    try:
        with identity.taken(identities, (), runtime / "identities") as own:
            confined = Confinement(own, runtime / "deployment", SECONDS)
            found = appliance.locate(loaded)
            started = worker.started(found, launcher, confined, [disk], lambda _guest, _to: None)
            with started as made, pytest.raises(ApplianceError):
                made.finish(Reporter([kept]))
    finally:
        os.close(disk)
    return kept.warnings()


def test_the_program_reaches_it_and_it_hears_of_the_end(place: Site) -> None:
    attendant = Attendant()
    last = Launcher(FAILING, 256, warning="the last one")
    warnings = start(place, Launcher(PROGRAM, 256, attendant=attendant.attend, fallback=last))
    assert len(attendant.disks) == 1
    assert attendant.heard == GREETING
    assert attendant.left
    assert "started in another way" in warnings[0]
    assert warnings[1:] == ["the last one"]


def test_where_it_cannot_stand_there_the_next_way_is_taken(place: Site) -> None:
    @contextlib.contextmanager
    def attend(_disks: Sequence[int]) -> Iterator[socket.socket]:
        raise CommandError("no domain could be made")
        yield

    last = Launcher(FAILING, 256, warning="the last one")
    warnings = start(place, Launcher(PROGRAM, 256, attendant=attend, fallback=last))
    assert "no domain could be made" in warnings[0]
    assert warnings[1:] == ["the last one"]


@pytest.mark.parametrize("error", [DiskError("in use"), ApplianceError("no memory")])
def test_where_it_must_not_the_deployment_fails(place: Site, error: SnfError) -> None:
    @contextlib.contextmanager
    def attend(_disks: Sequence[int]) -> Iterator[socket.socket]:
        raise error
        yield

    last = Launcher(FAILING, 256)
    with pytest.raises(type(error), match=error.message):
        start(place, Launcher(PROGRAM, 256, attendant=attend, fallback=last))
